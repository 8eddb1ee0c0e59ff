"""The world misbehaving, disk by disk: nothing half-written is taken for whole, and it goes on when there is room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import pytest

from nightbatch import flow
from nightbatch.errors import StorageUnavailable
from nightbatch.ports import Ports
from tests.faults.conftest import Cell
from tests.faults.inside import WINDOW, open_inside
from tests.faults.world import DAY, PutUp, both_vendors, put_up

__all__ = ["put_up"]


def test_a_disk_that_is_full_while_requests_are_written_sends_nothing_and_says_so(cell: Cell, put_up: PutUp) -> None:
    with put_up("openai", rows=40, shard_rows=40, padding=3_000) as desk:
        full = desk.ended(desk.begin_run(largest_file_bytes=60_000))
        before = (desk.batches, [*(desk.folder / ".nightbatch").rglob("requests.jsonl")])
        desk.check_whole(cell, desk.run(), batches=1)

        assert (full.code, full.answer["error"]) == (75, "StorageUnavailable")
        assert "File too large" in full.answer["message"]
        assert before == ([], [])


@both_vendors
def test_a_disk_that_is_full_while_answers_come_keeps_no_half_file_and_goes_on_when_there_is_room(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, rows=100, shard_rows=100) as desk:
        window = ("--from", DAY.isoformat())
        command = desk.begin("run", "world.yaml", *window, largest_file_bytes=45_000)
        desk.wait_until(lambda: "not written to" in command.said(), command)
        files = [path.name for path in (desk.folder / ".nightbatch").rglob("*.jsonl")]
        half = [name for name in files if name != "requests.jsonl"]
        resource.prlimit(command.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        code = command.wait()
        desk.check_whole(cell, desk.run(), batches=1)

        assert (code, half) == (0, [])


class Full:
    """A store on a disk that is full, a while, for files with a name like this."""

    def __init__(self, store: Any, name: str, *, times: int, after_bytes: int) -> None:
        self._store, self._name, self._left, self._after_bytes = store, name, times, after_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Write a file whose disk is full after some bytes."""
        with self._store.writer(name) as file:
            if self._name not in name or not self._left:
                yield file
                return
            self._left -= 1
            inner, written = file.write, [0]

            def write(piece: Any) -> int:
                written[0] += len(piece)
                if written[0] > self._after_bytes:
                    raise StorageUnavailable(name, cause="No space left on device")
                return int(inner(piece))

            yield _Writing(file, write)  # type: ignore[misc]  # writes, and is otherwise the file

    def write(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write a small file, or find no room for it."""
        if self._name in name and self._left:
            self._left -= 1
            raise StorageUnavailable(name, cause="No space left on device")
        return bool(self._store.write(name, content, if_absent=if_absent))


class _Writing:
    def __init__(self, file: BinaryIO, write: Any) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@both_vendors
@pytest.mark.parametrize("what", ["requests.jsonl", "index.parquet", ".batch", "attempt-1", "verdicts"])
def test_a_store_without_room_for_a_file_loses_nothing_and_pays_nothing_twice(
    cell: Cell, put_up: PutUp, vendor: str, what: str
) -> None:
    with put_up(vendor, rows=8, shard_rows=4) as desk, open_inside(desk) as (ports, job):
        full: Ports = replace(ports, store=Full(ports.store, what, times=3, after_bytes=40))  # type: ignore[arg-type]
        failures = 0
        while True:
            try:
                books = flow.run(full, job, WINDOW)
                break
            except StorageUnavailable as error:
                failures += 1
                assert "No space left" in str(error)
                assert failures <= 3
        desk.record(cell)

        assert (books.state, desk.answers(), cell.billed, cell.batches) == ("complete", desk.records, 8, 2)
        assert books.sent_again == {}

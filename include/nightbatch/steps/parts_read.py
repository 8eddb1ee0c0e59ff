"""One part of a source: pull, render and pack all of it that can be asked, and leave what others must know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa

from nightbatch.core.shard import ShardPlan
from nightbatch.core.window import Window
from nightbatch.ports import Chunk, PartedSource, Ports

from .fill import ShardFiller, filling, numbers
from .lanes import packing_lane
from .pack import Asked, encode
from .parquet import RowWriter, row_writer
from .parts import Spread, once
from .parts_marks import marks_of
from .progress import Progress, Watch, nobody
from .pull import Question, Tally, pull, pull_pending
from .redact import key_of, redact
from .render import render

BAD_SCHEMA = pa.schema([("before", pa.int64()), ("key", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
"""A record that cannot be asked about; `before` says how many of its part that can be stand before it."""


@dataclass(frozen=True)
class PartRead:
    """What was made of one part."""

    shards: tuple[ShardPlan, ...]
    pulled: int
    not_deferrable: int
    from_pending: int
    waited_from: int
    """From which of its requests on they are pending rows of earlier runs."""
    bad_name: str
    seen: dict[str, bool]
    """Whether any of its records had an asked column; see `PartedSource.read_part`."""
    marks_name: str = ""
    """See `parts_marks.py`; empty in a file of a version that left none."""


def read(ports: Ports, spread: Spread, number: int, watch: Watch = nobody) -> PartRead:
    """Read a part, once for all. Raises what reading a source raises."""
    name = f"{spread.folder}/part-{number:03d}.json"
    return once(ports.store, name, PartRead, lambda: _Reading(ports, spread, number, watch).go())


class _OnePart:
    """A part of a source, as a source."""

    def __init__(self, ports: Ports, spread: Spread, number: int) -> None:
        self._source, self._part = cast(PartedSource, ports.source()), spread.parts[number]
        self.seen: dict[str, bool] = {}

    @property
    def identity(self) -> str:
        return self._source.identity

    def read(self, window: Window) -> Iterator[Chunk]:
        return self._source.read_part(window, self._part, seen=self.seen)


class _Reading:
    def __init__(self, ports: Ports, spread: Spread, number: int, watch: Watch) -> None:
        self._ports, self._spread, self._watch = ports, spread, watch
        self._source = _OnePart(ports, spread, number)
        self._is_last = number == len(spread.parts) - 1
        self._job, self._tally, self._asked = spread.read_job(), Tally(), 0
        self._key = key_of(ports, self._job)
        # A folder of its own for each attempt, so that two at once cannot mix their files.
        folder = f"{spread.folder}/part-{number:03d}-{ports.clock.now():%H%M%S%f}"
        self._bad_name, self._marks_name = f"{folder}/bad_records.parquet", f"{folder}/marks"
        self._filler = ShardFiller(
            ports.store,
            packing_lane(ports, self._job, 0),
            ledger=ports.ledger.ledger_id,
            folder=folder,
            numbers=numbers(spread.run, 0, first=number, step=len(spread.parts)),
            first_rows=spread.canary_rows or None if number == 0 else None,
        )

    def go(self) -> PartRead:
        ports, spread, job, tally = self._ports, self._spread, self._job, self._tally
        with (
            row_writer(ports.store, self._bad_name, BAD_SCHEMA) as bad,
            ports.store.writer(self._marks_name) as marks,
            filling([self._filler]),
        ):
            self._fill(render(pull(self._source, job, spread.reads, tally), job), bad, marks)
            waited_from = self._asked
            if self._is_last:
                self._fill(pull_pending(ports.store, list(spread.pending), tally), bad, marks)
            shards = self._filler.close()
        return PartRead(
            tuple(shards),
            tally.pulled,
            tally.not_deferrable,
            tally.from_pending,
            waited_from,
            self._bad_name if bad.count else "",
            self._source.seen,
            self._marks_name,
        )

    def _fill(self, parts: Iterable[list[Question]], bad: RowWriter, marks: BinaryIO) -> None:
        tally = self._tally
        for part in redact(parts, self._ports, self._job, self._key):
            requests = [one.request() for question in part if (one := self._asked_for(question, bad))]
            self._filler.add(requests)
            marks.write(marks_of((one.key, one.fingerprint) for one in requests))
            self._watch(Progress("prepare", tally.pulled + tally.from_pending, note=f"{self._asked:,} requests"))

    def _asked_for(self, question: Question, bad: RowWriter) -> Asked | None:
        one = encode(question, self._filler)
        if one is None:
            bad.add((self._asked, question.key, question.reason.value, question.detail))
        else:
            self._asked += 1
        return one

"""What is left at the vendor goes once it is loaded, never before, and its delete fails nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.errors import ProviderBusy
from tests.memory_stack import NIGHT, KillAt, Stack, job_of

RECORDS = [(str(number), f"text {number}") for number in range(5)]


class Unwilling:
    """A provider that deletes nothing, as long as it is told so."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.is_unwilling = inner, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def discard(self, *names: Any, **more: Any) -> None:
        if self.is_unwilling:
            raise ProviderBusy("memory", "deleting", cause="HTTP 500")
        self._inner.discard(*names, **more)


def test_a_loaded_shard_leaves_nothing_at_the_vendor_and_the_ledger_says_since_when() -> None:
    stack = Stack(RECORDS)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert stack.vendor.discarded == set(stack.vendor.batches)
    assert all(attempt.vendor_files_deleted_utc for attempt in stack.ledger.attempts(books.run))


def test_a_job_may_keep_its_files_at_the_vendor() -> None:
    stack = Stack(RECORDS)

    books = flow.run(stack.ports(), job_of(delete_vendor_files=False), NIGHT)

    assert stack.vendor.discarded == set()
    assert not any(attempt.vendor_files_deleted_utc for attempt in stack.ledger.attempts(books.run))


def test_nothing_is_deleted_before_the_answers_are_in_the_sink() -> None:
    stack = Stack(RECORDS[:3])
    seen: list[tuple[str, int]] = []

    class Watching:
        def __getattr__(self, name: str) -> Any:
            return getattr(stack.provider, name)

        def discard(self, batch_id: str, **more: Any) -> None:
            [run] = stack.ledger.runs()
            [shard] = stack.ledger.shards(run.run)
            seen.append((shard.state.value, len(stack.answers())))
            assert all(stack.store.exists(name) for name in shard.raw_names)
            stack.provider.discard(batch_id, **more)

    flow.run(stack.ports(provider=lambda _name, _connection: Watching()), job_of(), NIGHT)

    assert seen == [("loaded", 3)]


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_delete_that_fails_fails_nothing_and_is_done_at_the_next_look(
    found_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    stack = Stack(RECORDS, found_by=found_by)
    unwilling = Unwilling(stack.provider)
    ports = stack.ports(provider=lambda _name, _connection: unwilling)

    books = flow.run(ports, job_of(), NIGHT)

    assert books.state == "complete"
    assert "deleted by housekeeping" in caplog.text
    unwilling.is_unwilling = False
    assert flow.run(ports, job_of(), NIGHT).cost_usd == books.cost_usd
    assert stack.vendor.discarded == set(stack.vendor.batches)
    assert set(stack.vendor.billed.values()) == {1}


def test_a_process_that_dies_around_the_delete_leaves_nothing_to_clean_by_hand() -> None:
    for when in ("before", "after"):
        stack = Stack(RECORDS[:3])
        names: list[str] = []
        counting = KillAt(stack.provider, 0, when, names=names)
        flow.run(stack.ports(provider=lambda _name, _connection, it=counting: it), job_of(), NIGHT)
        nth = names.index("discard") + 1

        stack = Stack(RECORDS[:3])
        dying = KillAt(stack.provider, nth, when)
        with pytest.raises(BaseException, match="discard"):
            flow.run(stack.ports(provider=lambda _name, _connection, it=dying: it), job_of(), NIGHT)
        books = flow.run(stack.ports(), job_of(), NIGHT)

        assert books.state == "complete"
        assert stack.vendor.discarded == set(stack.vendor.batches)
        assert len(stack.vendor.batches) == 1
        assert all(attempt.vendor_files_deleted_utc for attempt in stack.ledger.attempts(books.run))


def test_a_look_that_was_begun_before_the_delete_finds_the_shard_loaded() -> None:
    """At Anthropic a deleted batch is not found; to a process that slept meanwhile it must not look vanished."""
    stack = Stack(RECORDS[:3], found_by="count")
    stack.provider.ends_at_once = False
    ports = stack.ports()
    [plan] = flow.prepare(ports, job_of(), NIGHT).shards
    flow.advance(ports, job_of(), plan.ref)
    stale = stack.ledger.shard(plan.ref)
    stack.provider.ends_at_once = True
    flow.advance(ports, job_of(), plan.ref)
    stack.clock.advance(timedelta(hours=1))

    class Sleepy:
        """A ledger whose first look is an hour old."""

        def __init__(self) -> None:
            self.looks = [stale]

        def __getattr__(self, name: str) -> Any:
            return getattr(stack.ledger, name)

        def shard(self, ref: Any) -> Any:
            return self.looks.pop() if self.looks else stack.ledger.shard(ref)

    sleepy = stack.ports(ledger=Sleepy())
    while isinstance(outcome := flow.advance(sleepy, job_of(), plan.ref), flow.Waiting):
        stack.clock.advance(outcome.until - stack.clock.now())

    assert outcome == flow.Finished("loaded")

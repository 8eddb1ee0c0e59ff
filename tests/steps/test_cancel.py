"""A person cancels a run: nothing more is sent, nothing that was paid is lost, and it is said before what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from nightbatch import flow
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.result import Outcome, Result
from nightbatch.errors import ProviderBusy, RunCancelled, RunIncomplete, StaleAttempt
from nightbatch.steps.cancel import forecast
from tests.memory_deaths import Deaths
from tests.memory_stack import NIGHT, Stack, job_of
from tests.steps.shards import answered

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
ALL = {f"k{n}": f"text {n}" for n in range(8)}


class Slow:
    """A vendor whose batches end when they are cancelled, with only their first row answered."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.cancelled, self.busy = stack, [], 0
        stack.vendor.answer = lambda messages, _: (
            answered(messages.user) if messages.user in ("text 0", "text 3") else Result("", Outcome.CANCELLED)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stack.provider, name)

    def poll(self, batch_id: str) -> BatchState:
        if batch_id in self.cancelled:
            return self.stack.provider.poll(batch_id)
        return BatchState(batch_id, BatchStatus.RUNNING, "in_progress", rows_total=3, rows_done=1)

    def cancel(self, batch_id: str) -> None:
        if self.busy:
            self.busy -= 1
            raise ProviderBusy("openai", "cancelling", cause="503")
        assert batch_id not in self.cancelled
        self.cancelled.append(batch_id)


def begun(sent: int = 2, **changes: Any) -> tuple[Stack, Slow, str]:
    """Give an installation with an open run of three shards, so many of them sent."""
    stack = Stack([*RECORDS, ("twin", "text 1")])
    vendor = Slow(stack)
    plan = flow.prepare(ports(stack, vendor), job_of(**changes), NIGHT)
    for shard in plan.shards[:sent]:
        flow.advance(ports(stack, vendor), job_of(), shard.ref)
    return stack, vendor, plan.run


def ports(stack: Stack, vendor: Any, **more: Any) -> Any:
    return stack.ports(provider=lambda *_: vendor, **more)


def test_it_is_said_first_what_a_cancel_costs_and_keeps() -> None:
    stack, vendor, run = begun()

    found = forecast(ports(stack, vendor), stack.ledger.run(run))

    assert [(batch.shard, batch.rows_done, batch.rows) for batch in found.batches] == [
        ("r0-s000", 1, 3),
        ("r0-s001", 1, 3),
    ]
    assert (found.loaded, found.done, found.unsent, found.undone) == (0, 2, 2, 6)
    assert found.reserved_usd == sum(batch.reserved_usd for batch in found.batches) > 0
    assert (vendor.cancelled, stack.ledger.run(run).cancelled_utc) == ([], None)


def test_what_is_paid_is_loaded_and_the_rest_is_dead_and_stays_where_it_is() -> None:
    stack, vendor, run = begun()

    with pytest.raises(RunCancelled, match=r"2 answers are loaded, .* 6 rows are dead letters"):
        flow.cancel(ports(stack, vendor), run, drops=True)

    assert len(vendor.cancelled) == len(stack.vendor.batches) == 2
    assert stack.answers() == {"k0": "text 0", "k3": "text 3"}
    reasons = {key: letter["reason"] for (_, key), letter in stack.sink.dead.items()}
    assert reasons == dict.fromkeys((*ALL.keys() - {"k0", "k3"}, "twin"), "cancelled")
    assert (stack.ledger.run(run).state, stack.ledger.pending("reviews"), stack.ledger.spent(run)[0]) == (
        "failed",
        [],
        0,
    )


def test_what_was_cancelled_can_be_sent_after_all_and_then_the_window_is_complete() -> None:
    stack, vendor, run = begun()
    with pytest.raises(RunCancelled):
        flow.cancel(ports(stack, vendor), run, drops=True)
    stack.vendor.answer = lambda messages, _: answered(messages.user)

    books = flow.run(
        stack.ports(), job_of(max_dead_share=0.0), NIGHT, flow.Options(retry=flow.Ask(("cancelled",), "me"))
    )

    assert (books.state, books.from_dead, books.requests, books.duplicates) == ("complete", 7, 6, 1)
    assert stack.answers() == ALL | {"twin": "text 1"}
    assert stack.sink.dead == {}
    assert (stack.vendor.billed["text 0"], stack.vendor.billed["text 3"], stack.reads) == (1, 1, 1)


def test_with_pending_the_rows_go_with_the_next_run() -> None:
    stack, vendor, run = begun()
    with pytest.raises(RunIncomplete, match="7 rows are pending"):
        flow.cancel(ports(stack, vendor), run, drops=False)
    assert stack.sink.dead == {}
    stack.vendor.answer = lambda messages, _: answered(messages.user)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.from_pending) == ("complete", 7)
    assert stack.answers() == ALL | {"twin": "text 1"}


def test_a_cancel_that_comes_too_late_changes_nothing() -> None:
    stack, vendor, run = begun(sent=3)
    stack.vendor.answer = lambda messages, _: answered(messages.user)

    books = flow.cancel(ports(stack, vendor), run, drops=True)

    assert (books.state, books.merged, stack.sink.dead) == ("complete", 9, {})


def test_a_busy_vendor_is_asked_again() -> None:
    stack, vendor, run = begun()
    vendor.busy = 3

    with pytest.raises(RunCancelled):
        flow.cancel(ports(stack, vendor), run, drops=True)

    assert len(vendor.cancelled) == 2


def test_only_an_open_run_can_be_cancelled() -> None:
    stack = Stack(RECORDS)
    books = flow.run(stack.ports(), job_of(), NIGHT)

    with pytest.raises(StaleAttempt, match="a run that is complete"):
        flow.cancel(stack.ports(), books.run, drops=True)


def test_whoever_runs_it_meanwhile_sends_nothing_more() -> None:
    """The mark alone is enough: another process that goes on with the run collects, and ends it."""
    stack, vendor, run = begun()
    stack.ledger.cancel(run, drops=True, now=stack.clock.now())
    vendor.cancelled += list(stack.vendor.batches)

    with pytest.raises(RunCancelled):
        flow.run(ports(stack, vendor), job_of(), NIGHT)

    assert len(stack.vendor.batches) == 2
    assert stack.answers() == {"k0": "text 0", "k3": "text 3"}


def test_killed_at_any_call_and_typed_again_it_ends_the_same() -> None:
    """The vendor takes a second cancel of one batch, as vendors do."""
    whole, vendor, run = begun()
    deaths = Deaths(whole)
    watched = {**deaths.ports(), "provider": lambda *_: deaths.watched(vendor)}
    with pytest.raises(RunCancelled):
        flow.cancel(whole.ports(**watched), run, drops=True)
    for where, stack in deaths:
        if stack.ledger.run(run).state == "open":
            with pytest.raises(RunCancelled):
                flow.cancel(ports(stack, Slow(stack)), run, drops=True)

        assert stack.answers() == {"k0": "text 0", "k3": "text 3"}, where
        assert len(stack.sink.dead) == 7, where
        assert len(stack.vendor.batches) == 2, where
    assert len(deaths) > 20

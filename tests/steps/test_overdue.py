"""Overdue: what no status bounds is told, once a run, when the vendor's own time and a grace are over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.core.batch import COMPLETION_WINDOW, OVERDUE_GRACE, BatchStatus
from nightbatch.steps.outcome import Waiting
from tests.memory_stack import NIGHT, Stack, job_of, later
from tests.steps.shards import answered

RECORDS = [(f"k{number}", f"text {number}") for number in range(6)]


def under_way(status: BatchStatus, word: str) -> Stack:
    """Send two shards to a vendor that calls their state so, for ever."""
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, _: answered(messages.user)
    stack.provider.ends_at_once = False
    inner = stack.provider.poll
    stack.provider.poll = lambda batch_id: replace(inner(batch_id), status=status, vendor_status=word)
    return stack


@pytest.mark.parametrize(("status", "word"), [(BatchStatus.RUNNING, "validating"), (BatchStatus.UNKNOWN, "pondering")])
def test_a_batch_that_does_not_end_is_told_of_once_and_never_sent_again(status, word, caplog) -> None:
    stack = under_way(status, word)
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)

    def look() -> None:
        for shard in plan.shards:
            assert isinstance(flow.advance(stack.ports(), job_of(), shard.ref), Waiting)

    look()
    later(stack, seconds=(COMPLETION_WINDOW + OVERDUE_GRACE).total_seconds())
    look()
    assert stack.notifier.messages == []
    for _ in range(3):
        later(stack, minutes=1)
        look()

    (message,) = stack.notifier.messages
    assert message.kind == "overdue"
    assert word in message.happened
    assert "batch_0" in dict(message.facts)["Batches"]
    assert "batch_1" in dict(message.facts)["Batches"]
    assert len(stack.vendor.batches) == 2
    del stack.provider.poll
    stack.provider.ends_at_once = True
    assert flow.run(stack.ports(), job_of(), NIGHT).state == "complete"
    assert set(stack.vendor.billed.values()) == {1}


def test_a_status_that_nobody_knows_is_logged_once_a_batch(caplog) -> None:
    stack = under_way(BatchStatus.UNKNOWN, "pondering")
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    for _ in range(4):
        flow.advance(stack.ports(), job_of(), plan.shards[0].ref)
        later(stack, minutes=1)

    assert caplog.text.count("which is not known here") == 1


def test_a_job_that_wants_to_hear_of_nothing_late_hears_nothing() -> None:
    stack = under_way(BatchStatus.RUNNING, "validating")
    job = job_of(notify={"on": ["failed"]})
    plan = flow.prepare(stack.ports(), job, NIGHT)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    later(stack, days=2)
    flow.advance(stack.ports(), job, plan.shards[0].ref)

    assert stack.notifier.messages == []


@pytest.mark.parametrize(("said", "hours"), [(None, 26), (timedelta(hours=72), 74)])
def test_the_vendors_own_time_counts_where_it_says_one(said, hours) -> None:
    stack = under_way(BatchStatus.RUNNING, "in_progress")
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    flow.advance(stack.ports(), job_of(), plan.shards[0].ref)
    if said is not None:
        inner, ends = stack.provider.poll, stack.clock.now() + said
        stack.provider.poll = lambda batch_id: replace(inner(batch_id), expires_utc=ends)
    later(stack, hours=hours, seconds=-1)
    flow.advance(stack.ports(), job_of(), plan.shards[0].ref)
    assert stack.notifier.messages == []

    later(stack, seconds=2)
    flow.advance(stack.ports(), job_of(), plan.shards[0].ref)

    assert len(stack.notifier.messages) == 1

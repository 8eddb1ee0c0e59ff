"""Wait: one look at a batch says what is next; looks grow rarer with a batch's age."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.shard import ShardState
from nightbatch.errors import BatchVanished
from nightbatch.ports import Settings
from nightbatch.steps.outcome import BatchWait, Moved, Waiting
from nightbatch.steps.telemetry import lane_labels
from nightbatch.steps.wait import next_poll, wait
from tests.memory_stack import later
from tests.steps.shards import UNHURRIED, again, opened, stack_of

SETTINGS = Settings("sqlite://", "memory://", poll_from_s=30, poll_to_s=300)


@UNHURRIED
@given(st.text(max_size=10), st.timedeltas(timedelta(0), timedelta(days=3)))
def test_looks_come_within_the_settings_give_or_take_a_fifth(batch_id, age) -> None:
    pause = next_poll(SETTINGS, batch_id=batch_id, age=age).total_seconds()

    assert 0.8 * 30 <= pause <= 1.2 * 300
    assert 0.8 * age.total_seconds() / 10 <= pause or age > timedelta(seconds=3_000) or pause >= 24


def test_batches_made_together_are_not_asked_about_together() -> None:
    pauses = {next_poll(SETTINGS, batch_id=f"batch_{n}", age=timedelta(minutes=30)) for n in range(50)}

    assert len(pauses) > 40


def test_a_running_batch_is_left_alone_for_a_while() -> None:
    stack = stack_of(1)
    stack.provider.ends_at_once = False
    shard = opened(stack)

    outcome = wait(stack.ports(), shard)

    assert isinstance(outcome, Waiting)
    assert outcome.until > stack.clock.now()
    assert outcome.batch == BatchWait("openai", "c", "batch_0", shard.current.created_utc, lane_labels(shard.plan))
    assert again(stack, shard.plan.ref).current.last_seen_utc == stack.clock.now()


def test_an_ended_batch_is_collected() -> None:
    stack = stack_of(1)
    shard = opened(stack)

    assert wait(stack.ports(), shard) == Moved()

    assert again(stack, shard.plan.ref).state is ShardState.STORED


def test_a_batch_refused_for_a_full_queue_waits_its_turn() -> None:
    stack = stack_of(1)
    shard = opened(stack)
    full = BatchState("batch_0", BatchStatus.ENDED, "failed", queue_full=True)
    stack.provider.poll = lambda _: full

    wait(stack.ports(), shard)

    shard = again(stack, shard.plan.ref)
    assert shard.state is ShardState.SEALED
    assert shard.not_before_utc == stack.clock.now() + timedelta(seconds=stack.ports().settings.queue_wait_s)


def test_a_404_is_a_blip_before_it_is_a_persons_decision() -> None:
    stack = stack_of(1)
    shard = opened(stack)
    stack.provider.poll = lambda batch_id: BatchState(batch_id, BatchStatus.NOT_FOUND, "not found")
    assert isinstance(wait(stack.ports(), shard), Waiting)
    later(stack, days=3)

    with pytest.raises(BatchVanished, match="has not known batch batch_0"):
        wait(stack.ports(), again(stack, shard.plan.ref))

    assert again(stack, shard.plan.ref).state is ShardState.OPEN


def test_a_shard_without_a_batch_is_looked_at_again() -> None:
    stack = stack_of(1)
    shard = opened(stack)

    assert wait(stack.ports(), replace(shard, current=None)) == Moved()

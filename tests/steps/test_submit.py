"""Submit: an intent before the paid call, an id after it, and every refusal ends in its own way."""

from __future__ import annotations

import pytest

from nightbatch.core.shard import ShardState
from nightbatch.errors import (
    AccountTrouble,
    CreateUnclear,
    PlanChanged,
    ProviderBusy,
    QueueFull,
    RequestRefused,
    StorageUnavailable,
)
from nightbatch.steps.outcome import Moved, Waiting
from nightbatch.steps.submit import batch_note, submit
from tests.memory_stack import job_of
from tests.steps.shards import again, sealed, stack_of


def refuse_with(stack, error) -> None:
    def refuse() -> None:
        raise error

    stack.vendor.before_create = refuse


def test_the_intent_and_the_reserve_are_written_before_the_vendor_is_called() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    seen = []
    stack.vendor.before_create = lambda: seen.append(again(stack, shard.plan.ref))

    assert submit(stack.ports(), job_of(), shard) == Moved()

    ((attempt, state),) = [(one.current, one.state) for one in seen]
    assert (state, attempt.state, attempt.batch_id) == (ShardState.SUBMITTING, "sending", None)
    assert attempt.reserved_usd == shard.plan.worst_usd
    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.current.batch_id) == (ShardState.OPEN, "batch_0")
    assert stack.store.read(batch_note(shard.current)) == b"batch_0"


@pytest.mark.parametrize(
    ("error", "state", "held", "wait_s"),
    [
        (QueueFull("v", cause="full"), "sealed", "", 300),
        (ProviderBusy("v", "creating", cause="429", retry_after_s=7), "sealed", "", 7),
        (ProviderBusy("v", "creating", cause="429"), "sealed", "", 5),
        (AccountTrouble("v", code="401", message="no"), "held", "account_trouble", None),
        (RequestRefused("v", code="400", message="no"), "held", "request_refused", None),
    ],
)
def test_what_the_vendor_did_not_make_ends_the_attempt_and_returns_its_reserve(error, state, held, wait_s) -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    refuse_with(stack, error)

    submit(stack.ports(), job_of(), shard)

    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.held_reason) == (state, held)
    assert stack.ledger.spent(shard.plan.ref.run) == (0, 0)
    waits = shard.not_before_utc and (shard.not_before_utc - stack.clock.now()).total_seconds()
    assert waits == wait_s


def test_a_shard_waits_its_turn_without_asking_the_vendor() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    refuse_with(stack, QueueFull("v", cause="full"))
    submit(stack.ports(), job_of(), shard)
    shard = again(stack, shard.plan.ref)
    refuse_with(stack, AssertionError("nobody asks"))

    assert submit(stack.ports(), job_of(), shard) == Waiting(shard.not_before_utc, "waits for its turn at openai")


def test_a_lost_reply_keeps_the_intent_and_sends_nothing_more() -> None:
    stack = stack_of(2)
    shard = sealed(stack)

    def lose() -> None:
        raise CreateUnclear("memory", cause="timeout")

    stack.vendor.after_create = lose

    outcome = submit(stack.ports(), job_of(), shard)

    assert isinstance(outcome, Waiting)
    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.current.state) == (ShardState.SUBMITTING, "sending")
    assert stack.ledger.spent(shard.plan.ref.run)[0] == shard.plan.worst_usd


def test_a_second_process_with_the_same_view_sends_nothing() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    submit(stack.ports(), job_of(), shard)

    assert submit(stack.ports(), job_of(), shard) == Moved()

    assert len(stack.vendor.batches) == 1


def test_nothing_but_what_was_sealed_is_sent() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    stack.store.files[shard.plan.requests_name] += b"more\n"

    with pytest.raises(PlanChanged, match="It was not sent"):
        submit(stack.ports(), job_of(), shard)

    assert stack.vendor.batches == {}


def test_a_shard_over_the_budget_is_held() -> None:
    stack = stack_of(2)
    shard = sealed(stack)

    submit(stack.ports(), job_of(budget_usd="0.000001"), shard)

    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.held_reason, stack.vendor.batches) == (ShardState.HELD, "budget", {})


def test_an_id_is_kept_although_the_store_is_away_for_a_while() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    write, failures = stack.store.write, [StorageUnavailable("the store", cause="down")] * 3

    def flaky(*args, **kwargs):
        if failures:
            raise failures.pop()
        return write(*args, **kwargs)

    stack.store.write = flaky

    assert submit(stack.ports(), job_of(), shard) == Moved()

    assert again(stack, shard.plan.ref).current.batch_id == "batch_0"


def test_a_store_that_stays_full_does_not_keep_the_id_from_the_ledger() -> None:
    stack = stack_of(2)
    shard = sealed(stack)

    def full(*_, **__):
        raise StorageUnavailable("the store", cause="No space left on device")

    stack.store.write = full

    assert submit(stack.ports(), job_of(), shard) == Moved()

    assert again(stack, shard.plan.ref).current.batch_id == "batch_0"
    assert stack.clock.slept_s == []

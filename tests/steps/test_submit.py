"""Submit: an intent before the paid call, an id after it, and every refusal ends in its own way."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import StaticPrices
from nightbatch.core.money import Price, Rate
from nightbatch.core.shard import ShardState
from nightbatch.errors import (
    AccountTrouble,
    CreateUnclear,
    JobInvalid,
    PlanChanged,
    ProviderBusy,
    QueueFull,
    RequestRefused,
    StorageUnavailable,
)
from nightbatch.steps.batch_id import batch_note
from nightbatch.steps.budgets import day_of, worst_case
from nightbatch.steps.outcome import Moved, Waiting
from nightbatch.steps.submit import submit
from nightbatch.steps.wait import wait
from tests.memory_stack import NIGHT, RATE, job_of, later
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
    assert shard.problem.startswith("budget_usd is 0.0000 USD; in this run 0.0000 are spent")


def test_a_shard_that_fits_once_others_end_waits_and_says_for_what() -> None:
    stack = stack_of(6)
    stack.provider.ends_at_once = False
    plan = flow.prepare(stack.ports(), job_of(budget_day_usd="0.0022"), NIGHT)
    first, second = (stack.ledger.shard(shard.ref) for shard in plan.shards)
    job = flow.sealed_job(stack.ports(), plan.run)
    assert first.plan.worst_usd < job.budget_day_usd < first.plan.worst_usd * 2
    assert submit(stack.ports(), job, first) == Moved()

    outcome = submit(stack.ports(), job, second)

    assert isinstance(outcome, Waiting)
    assert outcome.until - stack.clock.now() == timedelta(seconds=60)
    waiting = again(stack, second.plan.ref)
    assert (waiting.state, waiting.attempts) == (ShardState.SEALED, 0)
    assert waiting.waits_for.startswith("budget_day_usd is 0.0022 USD; on 2026-11-21 0.0000 are spent")
    wait(stack.ports(), again(stack, first.plan.ref))
    stack.provider.ends_at_once = True
    flow.advance(stack.ports(), job, first.plan.ref)
    assert submit(stack.ports(), job, second) == Moved()


@pytest.mark.parametrize(("zone", "day"), [("UTC", 21), ("America/Los_Angeles", 20), ("Asia/Tokyo", 21)])
def test_a_charge_belongs_to_the_day_in_the_job_s_time_zone(zone: str, day: int) -> None:
    stack = stack_of(1)

    assert day_of(job_of(timezone=zone), stack.clock.now()) == date(2026, 11, day)


def test_the_reserve_is_at_today_s_price_where_that_is_dearer() -> None:
    stack = stack_of(1)
    job = job_of(budget_usd="1")
    shard = sealed(stack, job)
    dearer, cheaper = (
        Price(Rate(RATE.input_usd * by, RATE.output_usd * by, RATE.cached_usd, RATE.input_usd * by, "t"), None)
        for by in (3, Decimal("0.1"))
    )

    worst = {
        name: worst_case(stack.ports(prices=StaticPrices({("openai", "echo-1"): price})), job, shard.plan)
        for name, price in (("dearer", dearer), ("cheaper", cheaper))
    }

    assert worst == {"dearer": shard.plan.worst_usd * 3, "cheaper": shard.plan.worst_usd}


def test_a_price_that_nobody_knows_any_more_is_not_reserved_by() -> None:
    stack = stack_of(1)
    job = job_of(budget_usd="1")
    shard = sealed(stack, job)

    with pytest.raises(JobInvalid, match="budget_usd cannot be kept"):
        submit(stack.ports(prices=StaticPrices({})), job, shard)

    assert stack.vendor.batches == {}


def test_a_batch_that_turns_up_late_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stack = stack_of(1)
    shard = sealed(stack)
    ports = stack.ports()

    def thought_absent() -> None:
        attempt = again(stack, shard.plan.ref).current
        ports.ledger.end_attempt(attempt.attempt_id, "absent", reason="", retry_at=None, now=stack.clock.now())

    stack.vendor.after_create = thought_absent
    submit(ports, job_of(), shard)

    assert again(stack, shard.plan.ref).state is ShardState.OPEN
    assert "reserved again, even where that is more than a budget leaves" in caplog.text


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


@pytest.mark.parametrize("pause", ["before the first piece", "before the end"])
def test_a_create_call_that_outlives_its_deadline_is_broken_off_and_made_again(pause: str) -> None:
    """A process may freeze after its call has begun; as long as the body has not ended, nothing was made."""
    stack = stack_of(2)
    shard, create = sealed(stack), stack.provider.create

    def slow(*, lines, **rest):
        if pause == "before the first piece":
            later(stack, hours=1)
        pieces = [next(lines)]
        later(stack, hours=1)
        return create(lines=iter([*pieces, *lines]), **rest)

    stack.provider.create = slow

    assert submit(stack.ports(), job_of(), shard) == Moved()

    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.attempts, stack.vendor.batches) == (ShardState.SEALED, 1, {})
    assert stack.ledger.spent(shard.plan.ref.run) == (0, 0)

"""A batch that was made beside another one: found out, cancelled, told and booked, whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.core.batch import BatchStatus
from nightbatch.core.shard import ShardState
from nightbatch.errors import StaleAttempt
from nightbatch.housekeeping import House, housekeep
from nightbatch.steps.double import close_doubles
from nightbatch.steps.outcome import Finished, Waiting
from tests.memory_deaths import Deaths
from tests.memory_stack import NIGHT, KillAt, Stack, job_of, later
from tests.steps.shards import answered

LOUD = job_of(rounds=0, notify={"mail": ["a@example.com"], "on": ["failed", "report"]})


def frozen(*, whole_run: bool = True) -> Stack:
    """
    Put up a vendor without labels at which the first create call freezes before its request has left.

    Meanwhile its successor finds nothing, sends again, and does the whole run, or only its own create call.
    """
    stack = Stack([("k0", "text 0"), ("k1", "text 1")], found_by="count")

    def freeze() -> None:
        stack.vendor.before_create = lambda: None
        later(stack, hours=2)
        if whole_run:
            flow.run(stack.ports(), LOUD, NIGHT)
        else:
            stack.provider.ends_at_once = False
            ref = flow.prepare(stack.ports(), LOUD, NIGHT).shards[0].ref
            while stack.ledger.shard(ref).state is not ShardState.OPEN:
                flow.advance(stack.ports(), LOUD, ref)
                later(stack, minutes=1)

    stack.vendor.before_create = freeze
    return stack


def run_of(stack: Stack) -> str:
    return stack.ledger.runs()[0].run


def check_closed(stack: Stack, where: str = "") -> None:
    """Both batches are accounted for: one has the answers, the other its price."""
    run, cost = run_of(stack), Decimal(0)
    (shard,) = stack.ledger.shards(run)
    ((double, cost),) = stack.ledger.doubles(run)
    assert {double.batch_id, shard.current.batch_id} == {"batch_0", "batch_1"} == set(stack.vendor.batches), where
    assert (double.state, shard.state) == ("ended", ShardState.LOADED), where
    assert cost == shard.cost.batch_usd > 0, where
    assert stack.ledger.spent(run) == (0, 2 * cost), where
    assert stack.answers() == {"k0": "text 0", "k1": "text 1"}, where
    assert [message.kind for message in stack.notifier.messages].count("paid_twice") == 1, where
    books = flow.books_of(stack.ledger.run(run))
    assert (books.state, books.doubles, books.doubles_usd, books.cost_usd) == ("complete", 1, cost, cost), where


def test_who_wakes_up_after_his_rows_were_sent_again_cancels_tells_and_books_his_own_batch() -> None:
    stack = frozen()
    cancelled = list[str]()
    cancel = stack.provider.cancel
    stack.provider.cancel = lambda batch_id: (cancelled.append(batch_id), cancel(batch_id))
    stack.provider.ends_at_once = False
    poll = stack.provider.poll

    def looked_at(batch_id: str):
        # The successor's batch ends by itself; the late one only when it is cancelled.
        return stack.vendor.end(batch_id) if batch_id == "batch_0" else poll(batch_id)

    stack.provider.poll = looked_at

    flow.run(stack.ports(), LOUD, NIGHT)

    assert cancelled == ["batch_1"]
    assert stack.vendor.batches["batch_1"].state.status is BatchStatus.ENDED
    check_closed(stack)
    (told,) = [message for message in stack.notifier.messages if message.kind == "paid_twice"]
    assert dict(told.facts)["Made too late"].startswith("batch_1 at openai")
    assert dict(told.facts)["Kept"] == "batch_0"


def test_a_batch_beside_one_that_is_still_open_is_the_one_that_is_cancelled() -> None:
    stack = frozen(whole_run=False)
    plan = flow.prepare(stack.ports(), LOUD, NIGHT)

    outcome = flow.advance(stack.ports(), LOUD, plan.shards[0].ref)

    assert isinstance(outcome, Waiting)
    shard = stack.ledger.shard(plan.shards[0].ref)
    assert (shard.state, shard.current.batch_id) == (ShardState.OPEN, "batch_0")
    ((double, cost),) = stack.ledger.doubles(plan.run)
    assert (double.state, double.batch_id, cost) == ("double", "batch_1", 0)
    reserved, _ = stack.ledger.spent(plan.run)
    assert reserved == 2 * shard.current.reserved_usd, "both may still be billed"

    stack.provider.ends_at_once = True
    flow.run(stack.ports(), LOUD, NIGHT)

    check_closed(stack)


def deaths_of_the_late_one() -> Iterator[tuple[str, Stack]]:
    """Give the moments at which the late process may die, from that on at which its batch was made."""
    whole = frozen()
    deaths = Deaths(whole)
    freeze = whole.vendor.before_create

    def successor_then_late() -> None:
        freeze()
        whole.vendor.after_create = deaths.begin_here

    whole.vendor.before_create = successor_then_late
    flow.run(whole.ports(**deaths.ports()), LOUD, NIGHT)
    assert len(deaths) > 8
    for where, stack in deaths:
        stack.vendor.before_create = stack.vendor.after_create = lambda: None
        later(stack, minutes=5)
        yield where, stack


def test_killed_at_any_call_after_it_woke_up_and_run_again_it_books_the_double_once() -> None:
    for where, stack in deaths_of_the_late_one():
        books = flow.run(stack.ports(), LOUD, NIGHT)
        if not any(b"batch_1" in content for content in stack.store.files.values()):
            # Its id is in no place: nobody but the vendor knows of the batch.
            assert (books.doubles, "before anything" in where) == (0, True), where
            continue
        events = [message.event_id for message in stack.notifier.messages]
        assert all(events.count(event) <= 2 for event in events), where
        stack.notifier.messages = list({message.event_id: message for message in stack.notifier.messages}.values())
        check_closed(stack, where)


def test_a_batch_that_has_an_owner_is_not_made_twice() -> None:
    """A successor that lost its own reply may have taken the late batch for its own: both hold the same custom_ids."""
    stack = frozen(whole_run=False)
    ref = flow.prepare(stack.ports(), LOUD, NIGHT).shards[0].ref
    flow.advance(stack.ports(), LOUD, ref)
    states = {batch_id: batch.state for batch_id, batch in stack.vendor.batches.items()}
    number_of = {attempt.batch_id: attempt.attempt_id for attempt in stack.ledger.attempts(ref.run)}

    with pytest.raises(StaleAttempt, match="belongs to"):
        stack.ledger.note_double(number_of["batch_1"], states["batch_0"], now=stack.clock.now())
    with pytest.raises(StaleAttempt, match="not at attempt 2, absent"):
        stack.ledger.note_double(number_of["batch_0"], replace(states["batch_0"], batch_id="batch_9"), now=NIGHT.end)


def test_a_shard_that_was_sent_once_costs_no_look() -> None:
    stack = Stack([("k0", "text 0")])
    flow.run(stack.ports(), LOUD, NIGHT)
    (shard,) = stack.ledger.shards(run_of(stack))
    counting = KillAt(stack.ledger, 10**9, "before")

    assert close_doubles(stack.ports(ledger=counting), LOUD, shard) is None
    assert counting.names == []
    assert flow.advance(stack.ports(), LOUD, shard.plan.ref) == Finished("loaded")


def test_answers_of_the_double_are_not_loaded() -> None:
    stack = frozen()
    asked = dict[str, int]()

    def answer(messages, _times):
        asked[messages.user] = asked.get(messages.user, 0) + 1
        return answered(f"{messages.user}, time {asked[messages.user]}")

    stack.vendor.answer = answer

    flow.run(stack.ports(), LOUD, NIGHT)

    assert stack.answers() == {"k0": "text 0, time 1", "k1": "text 1, time 1"}


def test_housekeeping_books_a_double_whose_process_died_and_whose_run_nobody_runs_again() -> None:
    (stack,) = [stack for where, stack in deaths_of_the_late_one() if where.endswith("after SqlLedger.note_double")]
    house = House(stack.ledger, stack.store, stack.clock, lambda _job: stack.ports(), lambda *_: stack.provider)

    assert housekeep(house).waiting == {}

    ((double, cost),) = stack.ledger.doubles(run_of(stack))
    assert (double.state, cost > 0) == ("ended", True)
    assert stack.ledger.spent(run_of(stack)) == (0, 2 * cost)
    assert [message.kind for message in stack.notifier.messages].count("paid_twice") == 1

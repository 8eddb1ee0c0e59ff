"""Resolve: what became of an attempt whose process died. "Could not read" is never "is not there"."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nightbatch.core.shard import ShardState
from nightbatch.errors import CreateUnclear, ProviderBusy
from nightbatch.steps.batch_id import batch_note
from nightbatch.steps.outcome import Moved, Waiting
from nightbatch.steps.resolve import resolve
from nightbatch.steps.submit import submit
from tests.memory_stack import Killed, job_of, later
from tests.steps.shards import again, sealed, stack_of


def lost(found_by="label", *, made=True):
    """Lose the reply to a create call, that made a batch or did not."""
    stack = stack_of(2)
    stack.found_by = stack.provider.found_by = found_by
    stack.provider.ends_at_once = False
    shard = sealed(stack)

    def lose() -> None:
        raise CreateUnclear("memory", cause="timeout")

    if made:
        stack.vendor.after_create = lose
    else:
        stack.vendor.before_create = lose
    submit(stack.ports(), job_of(), shard)
    stack.vendor.after_create = stack.vendor.before_create = lambda: None
    return stack, again(stack, shard.plan.ref)


def die(*_, **__) -> None:
    raise Killed


def until_certain(stack, shard) -> None:
    """Look for the batch as long as its absence takes to be certain."""
    attempt = shard.current
    for _ in range(2):
        stack.ledger.note_absence(attempt.attempt_id, at_most=timedelta(days=1), now=stack.clock.now())
        later(stack, seconds=(attempt.certain_utc - attempt.intent_utc).total_seconds())


def test_a_batch_with_our_label_is_taken_over() -> None:
    stack, shard = lost()

    assert resolve(stack.ports(), shard) == Moved()

    shard = again(stack, shard.plan.ref)
    assert (shard.state, shard.current.batch_id) == (ShardState.OPEN, "batch_0")


def test_nothing_is_certain_before_the_vendors_listing_is() -> None:
    stack, shard = lost(made=False)

    outcome = resolve(stack.ports(), shard)

    assert isinstance(outcome, Waiting)
    assert "cannot know yet" in outcome.reason
    assert again(stack, shard.plan.ref).state is ShardState.SUBMITTING


def test_a_batch_that_is_certainly_not_there_frees_its_shard_and_its_reserve() -> None:
    stack, shard = lost(made=False)
    until_certain(stack, shard)

    assert resolve(stack.ports(), shard) == Moved()

    assert again(stack, shard.plan.ref).state is ShardState.SEALED
    assert stack.ledger.spent(shard.plan.ref.run) == (0, 0)


def test_a_listing_that_cannot_be_read_proves_nothing() -> None:
    stack, shard = lost(made=False)
    until_certain(stack, shard)

    def unreadable(*_, **__):
        raise ProviderBusy("memory", "listing", cause="503")

    stack.provider.find = unreadable

    with pytest.raises(ProviderBusy):
        resolve(stack.ports(), shard)

    assert again(stack, shard.plan.ref).state is ShardState.SUBMITTING


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
def test_a_clock_that_jumps_between_two_looks_makes_no_batch_absent(jump) -> None:
    """It may be in no listing yet: what a jump can shorten the wait by is one look."""
    stack, shard = lost(made=False)
    resolve(stack.ports(), shard)
    stack.clock.advance(jump)

    outcome = resolve(stack.ports(), shard)

    assert isinstance(outcome, Waiting)
    assert timedelta(0) < outcome.until - stack.clock.now() <= timedelta(seconds=5)
    assert again(stack, shard.plan.ref).state is ShardState.SUBMITTING
    looked = stack.ledger.note_absence(shard.current.attempt_id, at_most=timedelta(0), now=stack.clock.now())
    assert looked == (timedelta(seconds=10) if jump > timedelta(0) else timedelta(0))


def test_an_intent_of_a_clock_that_has_been_put_back_is_not_waited_for_all_that_time() -> None:
    stack = stack_of(2)
    shard = sealed(stack)

    def die(*_, **__):
        raise Killed

    stack.provider.upload = die
    with pytest.raises(Killed):
        submit(stack.ports(), job_of(), shard)
    del stack.provider.upload
    stack.clock.advance(timedelta(hours=-3))

    assert resolve(stack.ports(), again(stack, shard.plan.ref)) == Moved()

    assert again(stack, shard.plan.ref).state is ShardState.SEALED


def test_a_candidate_is_held_until_its_results_prove_whose_it_is() -> None:
    stack, shard = lost("count")
    until_certain(stack, shard)

    outcome = resolve(stack.ports(), shard)

    assert isinstance(outcome, Waiting)
    assert "holds 1 candidate" in outcome.reason
    stack.vendor.end("batch_0")
    assert resolve(stack.ports(), shard) == Moved()
    assert again(stack, shard.plan.ref).current.batch_id == "batch_0"


def test_a_strangers_batch_of_the_same_size_is_not_taken() -> None:
    stack, shard = lost("count", made=False)
    other = [line.replace(b"nb_", b"xx_") for line in stack.store.files[shard.plan.requests_name].splitlines()]
    stack.vendor.create(other, None)
    stack.vendor.end("batch_0")
    until_certain(stack, shard)

    resolve(stack.ports(), shard)

    assert again(stack, shard.plan.ref).state is ShardState.SEALED


def test_an_id_that_reached_only_the_store_is_enough() -> None:
    stack, shard = lost()
    stack.store.write(batch_note(shard.current), b"batch_0")
    stack.provider.find = lambda *_, **__: pytest.fail("nobody needs a listing")

    assert resolve(stack.ports(), shard) == Moved()

    assert again(stack, shard.plan.ref).current.batch_id == "batch_0"


def test_a_process_that_died_before_its_call_is_waited_for_and_then_replaced() -> None:
    stack = stack_of(2)
    shard = sealed(stack)
    upload = stack.provider.upload

    stack.provider.upload = die
    with pytest.raises(Killed):
        submit(stack.ports(), job_of(), shard)
    stack.provider.upload = upload
    shard = again(stack, shard.plan.ref)

    outcome = resolve(stack.ports(), shard)

    assert outcome == Waiting(
        shard.current.send_deadline_utc, "another process is sending this shard, or died while it was"
    )
    later(stack, seconds=(shard.current.send_deadline_utc - stack.clock.now()) / timedelta(seconds=1))
    assert resolve(stack.ports(), shard) == Moved()
    assert again(stack, shard.plan.ref).state is ShardState.SEALED


def test_a_file_that_was_uploaded_by_a_process_that_died_is_deleted_again() -> None:
    stack = stack_of(2)
    shard, withdrawn = sealed(stack), list[str]()
    stack.provider.upload = lambda *_, **__: "file-1"
    stack.provider.withdraw = withdrawn.append
    stack.ledger.note_sending, note_sending = die, stack.ledger.note_sending
    with pytest.raises(Killed):
        submit(stack.ports(), job_of(), shard)
    stack.ledger.note_sending = note_sending
    shard = again(stack, shard.plan.ref)
    later(stack, seconds=(shard.current.send_deadline_utc - stack.clock.now()) / timedelta(seconds=1))

    assert resolve(stack.ports(), shard) == Moved()

    assert withdrawn == ["file-1"]


def test_a_shard_that_somebody_else_resolved_is_looked_at_again() -> None:
    stack, shard = lost()
    resolve(stack.ports(), shard)

    assert resolve(stack.ports(), shard) == Moved()
    assert resolve(stack.ports(), replace(shard, current=None)) == Moved()
    assert len(stack.vendor.batches) == 1

"""Batches: what to do next, whatever the vendor says, also when it says something new."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.batch import NOT_FOUND_GRACE, BatchState, BatchStatus, Next, decide

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
ages = st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))


def state(status: BatchStatus, **more) -> BatchState:
    return BatchState("batch_1", status, "its word", **more)


@pytest.mark.parametrize(
    ("status", "step"),
    [
        (BatchStatus.RUNNING, Next.WAIT),
        (BatchStatus.ENDED, Next.COLLECT),
        (BatchStatus.UNKNOWN, Next.WAIT),
        (BatchStatus.NOT_FOUND, Next.WAIT),
    ],
)
def test_each_status_has_its_next_step(status: BatchStatus, step: Next) -> None:
    assert decide(state(status), now=NOW, last_seen=NOW).next is step


@given(st.sampled_from(list(BatchStatus)), ages, st.booleans())
def test_every_status_is_decided_at_any_age_with_a_reason(status: BatchStatus, age: timedelta, full: bool) -> None:
    decision = decide(state(status, queue_full=full), now=NOW, last_seen=NOW - age)

    assert decision.next in Next
    assert decision.reason


@given(st.sampled_from([BatchStatus.RUNNING, BatchStatus.UNKNOWN]), ages)
def test_a_batch_that_runs_is_never_given_up(status: BatchStatus, age: timedelta) -> None:
    assert decide(state(status), now=NOW, last_seen=NOW - age).next is Next.WAIT


@given(ages)
def test_an_ended_batch_is_collected_whatever_its_vendor_calls_it(age: timedelta) -> None:
    """Expired, cancelled and failed batches may hold answers that were paid."""
    assert decide(state(BatchStatus.ENDED), now=NOW, last_seen=NOW - age).next is Next.COLLECT


@given(ages)
def test_a_batch_is_vanished_only_after_the_grace(age: timedelta) -> None:
    decision = decide(state(BatchStatus.NOT_FOUND), now=NOW, last_seen=NOW - age)

    assert decision.next is (Next.VANISHED if age > NOT_FOUND_GRACE else Next.WAIT)


def test_a_batch_refused_for_a_full_queue_waits_for_its_turn() -> None:
    decision = decide(state(BatchStatus.ENDED, queue_full=True, problem="token_limit_exceeded"), now=NOW, last_seen=NOW)

    assert decision.next is Next.REQUEUE
    assert "token_limit_exceeded" in decision.reason


def test_a_word_we_do_not_know_is_told() -> None:
    assert "'its word'" in decide(state(BatchStatus.UNKNOWN), now=NOW, last_seen=NOW).reason


def test_answers_that_a_vendor_counts_and_never_shows_end_as_a_persons_decision() -> None:
    ended = datetime(2026, 11, 21, tzinfo=UTC)
    state = BatchState("b", BatchStatus.ENDED, "completed", rows_done=10, ended_utc=ended)

    soon, late = (decide(state, now=ended + timedelta(hours=hours), last_seen=ended) for hours in (1, 7))

    assert (soon.next, late.next) == (Next.WAIT, Next.VANISHED)

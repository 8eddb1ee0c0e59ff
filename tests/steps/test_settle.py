"""Settle: the books add up, whatever happened to a run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch import flow
from nightbatch.errors import NightbatchError, RunFailed, RunIncomplete
from nightbatch.steps.parquet import read_rows
from nightbatch.steps.settle import Books, differences
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of, later
from tests.steps.shards import UNHURRIED, stack_of
from tests.steps.test_retry import RESULTS

keys = st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6", "k7", "", None])
records = st.lists(st.tuples(keys, st.sampled_from([f"text {n}" for n in range(5)] + [None])), max_size=9)
vendors = st.fixed_dictionaries(
    {f"text {n}": st.lists(st.sampled_from(sorted(RESULTS)), min_size=1, max_size=4) for n in range(5)}
)


def run_once(stack, job):
    """Run a night to whatever end; gives its books."""
    try:
        flow.run(stack.ports(), job, NIGHT)
    except NightbatchError as error:
        assert isinstance(error, RunIncomplete | RunFailed), error
    books = flow.books_of(flow.find_run(stack.ports(), job, NIGHT))
    assert books is not None
    return books


@UNHURRIED
@given(records, vendors, st.integers(0, 2))
def test_every_record_of_any_night_is_in_exactly_one_place(rows, vendor, rounds) -> None:
    stack, job = Stack(rows), job_of(rounds=rounds, prompt={"user": "{{ text.strip() }}"})

    def answer(messages, times):
        says = vendor[messages.user.split("\n")[0]]
        return RESULTS[says[min(times, len(says) - 1)]]

    stack.vendor.answer = answer

    books = run_once(stack, job)

    run = flow.find_run(stack.ports(), job, NIGHT)
    pending = [key for file in stack.ledger.pending(job.name) for (key,) in read_rows(stack.store, file.name, ("key",))]
    dead = [key for (of, key) in stack.sink.dead if of == run.run]
    assert differences(books, stack.ledger.shards(run.run)) == []
    assert (books.pulled, books.in_flight) == (len(rows), 0)
    assert (len(stack.sink.answers), len(dead)) == (books.merged, books.dead_rows)
    assert len(pending) == sum(books.pending.values()) + books.copies_pending
    assert len(rows) == len(stack.sink.answers) + len(dead) + len(pending)
    assert not set(stack.sink.answers) & set(pending)
    assert books.state == ("incomplete" if pending else "complete")
    reserved, spent = stack.ledger.spent(run.run)
    assert (reserved, spent) == (0, books.cost_usd)


BALANCED = Books("r", "j", "w", pulled=10, unchanged=1, duplicates=2, requests=7, good=5, dead={"x": 2}, merged=7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"pulled": 11}, "11 records came in, 10 are placed"),
        ({"good": 4}, "7 requests, but 4 good"),
        ({"merged": 6}, "7 answers are good, 6 reached the sink"),
    ],
)
def test_a_sum_that_does_not_hold_is_named(changes, said) -> None:
    assert said in "; ".join(differences(replace(BALANCED, **changes), []))
    assert bool(differences(replace(BALANCED, **changes), [])) is bool(said)


def test_a_run_with_too_many_dead_letters_is_not_green() -> None:
    stack = stack_of(4)
    stack.vendor.answer = lambda messages, _: RESULTS["permanent" if messages.user == "text 0" else "good"]

    with pytest.raises(RunFailed, match=r"1 of 4 rows are dead letters \(25.0%\); the job allows 20.0%"):
        flow.run(stack.ports(), job_of(max_dead_share=0.2), NIGHT)

    assert stack.ledger.runs()[0].state == "failed"
    assert len(stack.answers()) == 3


def refuse(*texts):
    """Give a vendor that refuses these questions for good."""
    return lambda messages, _: RESULTS["permanent" if messages.user in texts else "good"]


def test_one_bad_new_row_beside_many_unchanged_ones_is_a_small_share() -> None:
    stack = stack_of(40)
    flow.run(stack.ports(), job_of(), NIGHT)
    stack.records.append(("new", "new text"))
    stack.vendor.answer = refuse("new text")

    books = flow.run(stack.ports(), job_of(max_dead_share=0.05), NEXT_NIGHT)

    assert (books.state, books.unchanged, books.dead_rows) == ("complete", 40, 1)


def expire_and_refuse(expired, refused):
    return lambda messages, _: RESULTS[
        "expired" if messages.user in expired else "permanent" if messages.user in refused else "good"
    ]


def test_a_run_that_goes_on_does_not_fail_for_one_row_of_its_window() -> None:
    stack, job = stack_of(40), job_of(rounds=0, max_dead_share=0.05)
    for pending in (["text 0", "text 1"], ["text 0"]):
        stack.vendor.answer = expire_and_refuse(pending, [])
        with pytest.raises(RunIncomplete):
            flow.run(stack.ports(), job, NIGHT)
    stack.vendor.answer = refuse("text 0")

    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.state, books.from_pending, books.dead_rows) == ("complete", 1, 1)


def test_the_dead_letters_before_a_run_went_on_count_as_well() -> None:
    stack, job = stack_of(40), job_of(rounds=0, max_dead_share=0.05)
    stack.vendor.answer = expire_and_refuse(["text 0"], ["text 1", "text 2"])
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)
    stack.vendor.answer = refuse("text 0")

    with pytest.raises(RunFailed, match=r"3 of 40 rows are dead letters \(7.5%\)"):
        flow.run(stack.ports(), job, NIGHT)


def test_a_complete_run_that_is_looked_at_again_took_no_longer() -> None:
    stack = stack_of(2)
    books = flow.run(stack.ports(), job_of(), NIGHT)
    for _ in range(2):
        later(stack, hours=8)

        assert flow.run(stack.ports(), job_of(), NIGHT) == books

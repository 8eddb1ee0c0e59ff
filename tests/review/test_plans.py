"""Plans: who makes one, what it is made of, and that no attempt at one can spoil another's."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.core.money import Usage
from nightbatch.core.result import Outcome, Result
from nightbatch.core.window import Window
from nightbatch.errors import RunFailed, RunIncomplete, RunOverlaps, StorageUnavailable
from tests.memory_stack import NEXT_NIGHT, NIGHT, KillAt, Killed, Stack, job_of

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
USAGE = Usage(input_tokens=10, output_tokens=5)


def answered(text: str) -> Result:
    return Result("", Outcome.ANSWERED, text, usage=USAGE, model="echo-1")


def expire(*texts: str):
    """Give a vendor that never answers these questions."""
    return lambda messages, _: Result("", Outcome.EXPIRED) if messages.user in texts else answered(messages.user)


def night_after(window: Window) -> Window:
    return Window(window.end, window.end + timedelta(days=1))


def echo(messages, _times) -> Result:
    return answered(messages.user)


# --- a prepare that failed ------------------------------------------------------------------------------------


def test_a_window_whose_prepare_failed_for_good_can_be_run_again() -> None:
    stack = Stack(RECORDS)

    def down():
        raise StorageUnavailable("the warehouse", cause="down")

    with pytest.raises(StorageUnavailable):
        flow.prepare(stack.ports(source=down), job_of(), NIGHT)
    with pytest.raises(RunFailed, match="it has no plan"):
        flow.fail_unplanned(stack.ports(), job_of(), NIGHT)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.good) == ("complete", 8)


def test_a_failed_prepare_between_does_not_make_an_incomplete_run_read_its_source_again() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = expire("text 0")
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = echo
    with pytest.raises(Killed):
        flow.prepare(stack.ports(ledger=KillAt(stack.ledger, 4, "before")), job_of(), NIGHT)
    with pytest.raises(RunFailed):
        flow.fail_unplanned(stack.ports(), job_of(), NIGHT)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.pulled, books.from_pending) == ("complete", 0, 1)


# --- what the window must hold --------------------------------------------------------------------------------


def test_a_run_that_only_goes_on_needs_no_minimum_of_new_records() -> None:
    stack = Stack(RECORDS)
    job = job_of(min_rows=8)
    stack.vendor.answer = expire("text 0")
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)
    stack.vendor.answer = echo

    assert flow.run(stack.ports(), job, NIGHT).state == "complete"


def test_a_window_with_too_few_records_fails() -> None:
    stack = Stack(RECORDS[:3])

    with pytest.raises(RunFailed, match="3 records were pulled; the job expects at least 8"):
        flow.run(stack.ports(), job_of(min_rows=8), NIGHT)


# --- a first look ---------------------------------------------------------------------------------------------


def test_a_first_look_at_a_window_does_not_stand_for_the_whole_of_it() -> None:
    stack = Stack(RECORDS)
    first = flow.run(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (first.pulled, books.pulled, books.unchanged, books.requests) == (2, 8, 2, 6)
    assert set(stack.answers()) == {key for key, _ in RECORDS}
    assert set(stack.vendor.billed.values()) == {1}


def test_a_first_look_that_ended_incomplete_does_not_stand_for_the_whole_window() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = expire("text 0")
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))
    stack.vendor.answer = echo

    flow.run(stack.ports(), job_of(), NIGHT)

    assert set(stack.answers()) == {key for key, _ in RECORDS}


def test_a_first_look_again_reads_no_source_and_sends_nothing() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    flow.run(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    assert (stack.reads, len(stack.vendor.batches)) == (1, 1)


def test_a_whole_window_stays_sealed_when_somebody_takes_a_first_look_at_it() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)

    flow.run(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    assert (stack.reads, len(stack.vendor.batches)) == (1, 3)


def test_a_first_look_sends_nothing_that_other_windows_left_pending() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = echo

    books = flow.run(stack.ports(), job_of(), NEXT_NIGHT, flow.Options(limit=2))

    assert (books.pulled, books.from_pending, books.requests) == (2, 0, 2)
    assert [file.rows for file in stack.ledger.pending("reviews")] == [8]


# --- pending rows and the order of windows --------------------------------------------------------------------


def test_a_backfill_of_an_older_window_leaves_newer_pending_rows_alone() -> None:
    """Its own, older record of the same key would take the newer one's place, and nobody would ask that again."""
    stack = Stack([("k", "new")])
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NEXT_NIGHT)
    stack.vendor.answer = echo
    stack.records = [("k", "old")]
    flow.run(stack.ports(), job_of(), NIGHT)

    flow.run(stack.ports(), job_of(), NEXT_NIGHT)

    assert stack.answers() == {"k": "new"}


def test_of_two_pending_rows_of_one_key_the_newer_window_counts() -> None:
    stack = Stack([])
    job, plans = job_of(rounds=0), {}
    for window, text in ((NIGHT, "old"), (NEXT_NIGHT, "new")):
        stack.records = [("k", text)]
        plans[window] = flow.prepare(stack.ports(), job, window)
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    for plan in plans.values():
        flow.advance(stack.ports(), job, plan.shards[0].ref)
        flow.close_round(stack.ports(), job, plan.run, 0)
        with pytest.raises(RunIncomplete):
            flow.finish(stack.ports(), job, plan.run)
    stack.vendor.answer, stack.records = echo, []
    day_after = replace(NEXT_NIGHT, start=NEXT_NIGHT.end, end=NEXT_NIGHT.end + timedelta(days=1))

    books = flow.run(stack.ports(), job, day_after)

    assert stack.answers() == {"k": "new"}
    assert (books.from_pending, books.superseded, books.requests) == (2, 1, 1)


@pytest.mark.parametrize("refresh", [False, True])
def test_a_pending_row_never_takes_the_place_of_a_newer_answer(refresh: bool) -> None:
    """Two windows run at once: the newer one answers the keys, and the older one leaves its records pending."""
    stack, job, plans = Stack([]), job_of(rounds=0), {}
    for window, text in ((NIGHT, "old"), (NEXT_NIGHT, "new")):
        stack.records = [("k", text), ("twin", text)]
        plans[window] = flow.prepare(stack.ports(), job, window)
    stack.vendor.answer = expire("old")
    flow.run(stack.ports(), job, NEXT_NIGHT)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)
    stack.vendor.answer, stack.records = echo, []

    books = flow.run(stack.ports(), job, night_after(NEXT_NIGHT), flow.Options(refresh=refresh))

    assert stack.answers() == {"k": "new", "twin": "new"}
    assert (books.from_pending, books.superseded, books.requests) == (2, 2, 0)


def test_a_row_that_is_pending_again_is_still_as_old_as_its_record() -> None:
    """It went through a later run than the one that answers its key meanwhile."""
    stack, job = Stack([("k", "old"), ("twin", "old")]), job_of(rounds=1)
    stack.vendor.answer = expire("old")
    third = night_after(NEXT_NIGHT)
    for window in (NIGHT, third):
        with pytest.raises(RunIncomplete):
            flow.run(stack.ports(), job, window)
        stack.records = []
    stack.vendor.answer = echo
    stack.records = [("k", "new"), ("twin", "new")]
    flow.run(stack.ports(), job, NEXT_NIGHT)
    stack.records = []

    books = flow.run(stack.ports(), job, night_after(third))

    assert stack.answers() == {"k": "new", "twin": "new"}
    assert (books.from_pending, books.superseded, books.requests) == (2, 2, 0)


def test_two_windows_that_are_prepared_at_once_share_the_pending_rows_and_both_go_on() -> None:
    stack = Stack([("k0", "text 0")])
    stack.vendor.answer = expire("text 0")
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = echo
    stack.records = [("k1", "text 1")]
    day_after = replace(NEXT_NIGHT, start=NEXT_NIGHT.end, end=NEXT_NIGHT.end + timedelta(days=1))
    others = []

    def source():
        if not others:
            others.append(flow.prepare(stack.ports(), job_of(), NEXT_NIGHT))
        return stack._source()

    books = flow.run(stack.ports(source=source), job_of(), day_after)

    assert others[0].facts["counts"]["from_pending"] == 1
    assert (books.state, books.from_pending, books.good) == ("complete", 0, 1)


# --- force ----------------------------------------------------------------------------------------------------


def test_clearing_a_forced_run_that_is_incomplete_pays_only_for_what_is_pending() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)
    options = flow.Options(force="airflow manual", refresh=True)
    stack.vendor.answer = expire("text 0")
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT, options)
    stack.vendor.answer = echo

    books = flow.run(stack.ports(), job_of(), NIGHT, options)

    assert (books.state, books.pulled, books.from_pending) == ("complete", 0, 1)
    assert {stack.vendor.billed[f"text {n}"] for n in range(1, 8)} == {2}


def test_an_asker_is_heard_once_although_another_one_forced_in_between() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)
    for asker in ("a", "b"):
        flow.run(stack.ports(), job_of(), NIGHT, flow.Options(force=asker, refresh=True))

    flow.run(stack.ports(), job_of(), NIGHT, flow.Options(force="a", refresh=True))

    assert set(stack.vendor.billed.values()) == {3}


def test_a_forced_prepare_that_dies_and_is_run_again_makes_one_generation() -> None:
    nth, died = 0, True
    while died:
        nth += 1
        stack = Stack(RECORDS)
        flow.run(stack.ports(), job_of(), NIGHT)
        options = flow.Options(force="a", refresh=True)
        try:
            flow.prepare(stack.ports(ledger=KillAt(stack.ledger, nth, "after")), job_of(), NIGHT, options)
            died = False
        except Killed:
            pass

        books = flow.run(stack.ports(), job_of(), NIGHT, options)

        assert books.run.endswith("/g2"), nth
        assert set(stack.vendor.billed.values()) == {2}, nth


# --- two attempts at one plan ---------------------------------------------------------------------------------


def test_a_retry_that_woke_up_late_does_not_touch_the_files_of_the_sealed_round() -> None:
    """Its shards hold other rows: answers would be loaded under the keys of others."""
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, times: Result("", Outcome.EXPIRED) if times == 0 else echo(messages, 0)
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    late, *others = plan.shards
    for shard in others:
        flow.advance(stack.ports(), job, shard.ref)
    sealed = []

    class Sleeper:
        """Falls asleep before it writes the first file of the round; meanwhile another attempt does all the work."""

        def __getattr__(self, name):
            if name == "writer" and not sealed:
                sealed.append(None)
                flow.advance(stack.ports(), job, late.ref)
                stack.clock.advance(timedelta(seconds=1))
                sealed[0] = flow.close_round(stack.ports(), job, plan.run, 0)
            return getattr(stack.store, name)

    flow.close_round(stack.ports(store=Sleeper()), job, plan.run, 0)

    books = flow.run(stack.ports(), job, NIGHT)
    assert (books.state, books.good) == ("complete", 8)
    assert stack.answers() == dict(RECORDS)


def test_two_prepares_at_once_seal_one_plan_and_lose_nothing() -> None:
    stack = Stack(RECORDS)
    job, plans = job_of(), []

    def source():
        if not plans:
            plans.append(None)
            stack.clock.advance(timedelta(microseconds=1))
            plans[0] = flow.prepare(stack.ports(), job, NIGHT)
            stack.clock.advance(timedelta(microseconds=1))
        return stack._source()

    stack.records = RECORDS
    mine = flow.prepare(stack.ports(source=source), job, NIGHT)
    books = flow.run(stack.ports(), job, NIGHT)

    assert mine == plans[0]
    assert (books.state, stack.answers()) == ("complete", dict(RECORDS))
    assert set(stack.vendor.billed.values()) == {1}


def test_looking_ahead_leaves_nothing_behind() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    files, pending, runs = dict(stack.store.files), stack.ledger.pending("reviews"), stack.ledger.runs()
    stack.records = [*RECORDS, ("k9", "text 9")]

    estimate = flow.look_ahead(stack.ports(), job_of(), NEXT_NIGHT)

    assert (estimate.counts.requests, estimate.counts.from_pending, estimate.counts.superseded) == (9, 8, 8)
    assert (stack.store.files, stack.ledger.pending("reviews"), stack.ledger.runs()) == (files, pending, runs)
    assert stack.sink.answers == {}


def test_a_whole_run_that_finds_a_first_look_under_way_finishes_it_and_then_reads_the_rest() -> None:
    stack = Stack(RECORDS)
    flow.prepare(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.run[-2:], books.pulled, books.unchanged) == ("g2", 8, 2)
    assert stack.answers() == dict(RECORDS)
    assert set(stack.vendor.billed.values()) == {1}


def test_a_whole_run_in_airflow_waits_for_a_first_look_under_way() -> None:
    stack = Stack(RECORDS)
    first = flow.prepare(stack.ports(), job_of(), NIGHT, flow.Options(limit=2))

    with pytest.raises(RunOverlaps, match=first.run):
        flow.prepare(stack.ports(), job_of(), NIGHT)

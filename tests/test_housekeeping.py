"""Housekeeping: what dead runs left is collected and closed, what is past its retention goes, and nothing is paid."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.core.proof import Link
from nightbatch.core.result import ErrorKind, Outcome, Result
from nightbatch.errors import DoesNotAddUp, ProviderBusy, RunIncomplete, StagingRemoved
from nightbatch.housekeeping import House, Swept, housekeep
from nightbatch.ports import Run
from tests.memory_stack import NEXT_NIGHT, NIGHT, Killed, Stack, job_of, later

RECORDS = [(str(number), f"text {number}") for number in range(5)]
MONTH = timedelta(days=30)


def house(stack: Stack, **changes: Any) -> House:
    return House(stack.ledger, stack.store, stack.clock, lambda _job: stack.ports(), stack.ports().provider, **changes)


def sweep(stack: Stack, **changes: Any) -> Swept:
    return housekeep(house(stack, **changes))


def files_of(stack: Stack, run: str) -> list[str]:
    return list(stack.store.names(run))


# --- files between the steps ----------------------------------------------------------------------------------


def test_files_stay_for_the_retention_and_then_go() -> None:
    stack = Stack(RECORDS)
    run = flow.run(stack.ports(), job_of(retention="30d"), NIGHT).run

    later(stack, days=29, hours=23)
    assert sweep(stack).removed == []
    assert files_of(stack, run)
    later(stack, hours=1)
    count, size = len(files_of(stack, run)), sum(len(stack.store.files[name]) for name in files_of(stack, run))

    swept = sweep(stack)

    assert (swept.files, swept.size_bytes) == (count, size)
    assert files_of(stack, run) == []
    assert len(stack.answers()) == 5
    assert sweep(stack) == Swept()


def test_a_dry_run_says_what_would_go_and_removes_nothing() -> None:
    stack = Stack(RECORDS)
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    later(stack, days=31)
    before = dict(stack.store.files)

    would = sweep(stack, dry_run=True)

    assert stack.store.files == before
    assert stack.ledger.run(run).staging_removed_utc is None
    assert would.removed == sweep(stack).removed


def test_a_run_whose_files_are_gone_stops_with_a_sentence_and_pays_nothing() -> None:
    stack = Stack(RECORDS)
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    later(stack, days=31)
    sweep(stack)
    billed, reads = dict(stack.vendor.billed), stack.reads

    for again in (
        lambda: flow.run(stack.ports(), job_of(), NIGHT),
        lambda: flow.close_round(stack.ports(), job_of(), run, 0),
        lambda: flow.finish(stack.ports(), job_of(), run),
        lambda: flow.fail_unplanned(stack.ports(), job_of(), NIGHT),
    ):
        with pytest.raises(StagingRemoved, match="Nothing was read, sent or paid"):
            again()

    assert (stack.vendor.billed, stack.reads) == (billed, reads)
    assert stack.ledger.run(run).state == "complete"


def test_a_window_whose_files_are_gone_can_be_forced_and_knows_what_is_unchanged() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)
    later(stack, days=31)
    sweep(stack)

    books = flow.run(stack.ports(), job_of(), NIGHT, flow.Options(force="me"))

    assert (books.state, books.unchanged, books.requests) == ("complete", 5, 0)


def test_pending_rows_keep_their_files_until_a_run_has_taken_them() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda _messages, _times: Result(
        "", Outcome.ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="busy"
    )
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(rounds=0), NIGHT)
    [first] = stack.ledger.runs()
    later(stack, days=31)

    assert sweep(stack, dry_run=True).removed == []
    assert sweep(stack).removed == []
    stack.vendor.answer = lambda messages, _times: Result("", Outcome.ANSWERED, messages.user)
    stack.records = []
    flow.run(stack.ports(), job_of(), NEXT_NIGHT)

    assert [removal.run for removal in sweep(stack).removed] == [first.run]
    assert len(stack.answers()) == 5
    # The window that left them has nothing of its own to ask any more, and does not miss its files.
    assert flow.run(stack.ports(), job_of(), NIGHT).requests == 0


def test_a_run_that_does_not_add_up_keeps_its_files() -> None:
    """They are the evidence; mended and settled again, they go like all others."""
    stack = Stack(RECORDS)
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    (raw,) = stack.ledger.shards(run)[0].raw_names
    whole = stack.store.files[raw]
    stack.store.files[raw] = whole[:-1]
    with pytest.raises(DoesNotAddUp):
        flow.run(stack.ports(), job_of(), NIGHT)
    later(stack, days=31)

    assert sweep(stack).kept == {"does not add up": 1}
    stack.store.files[raw] = whole
    flow.run(stack.ports(), job_of(), NIGHT)
    later(stack, days=31)

    assert [removal.run for removal in sweep(stack).removed] == [run]


@pytest.mark.parametrize("at", range(1, 9))
def test_a_removal_that_dies_is_gone_on_with_by_the_next_one(at: int) -> None:
    stack = Stack(RECORDS[:3])
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    later(stack, days=31)
    delete, calls = stack.store.delete, 0

    def dying(name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed(name)
        delete(name)

    stack.store.delete = dying  # type: ignore[method-assign]
    try:
        sweep(stack)
        assert calls < at
    except Killed:
        with pytest.raises(StagingRemoved):
            flow.run(stack.ports(), job_of(), NIGHT)
    stack.store.delete = delete  # type: ignore[method-assign]
    sweep(stack)

    assert files_of(stack, run) == []
    assert sweep(stack) == Swept()


def test_a_run_that_never_got_a_plan_is_removed_too() -> None:
    stack = Stack(RECORDS)
    run = stack.ledger.open_run("reviews", NIGHT, now=stack.clock.now()).run
    stack.store.write(f"{run}/round-0/000000/s000/requests.jsonl", b"half a plan")
    later(stack, hours=7)

    assert sweep(stack).closed == {run: "failed"}
    later(stack, days=31)

    assert sweep(stack).files == 1


@pytest.mark.parametrize("holds", [None, False])
def test_a_run_without_a_proof_or_with_one_that_does_not_hold_keeps_its_files(holds: bool | None) -> None:
    stack = Stack(RECORDS)
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    settled = stack.ledger.run(run)
    assert settled.books is not None
    proof = [] if holds is None else [Link("rows", run, "5", "4", holds)]
    stack.ledger.settle(run, state="complete", books=settled.books, proof=proof, now=stack.clock.now())
    later(stack, days=31)

    swept = sweep(stack)

    assert (swept.removed, swept.kept.total()) == ([], 1)
    assert files_of(stack, run)


def test_what_belongs_to_other_runs_stays() -> None:
    stack = Stack(RECORDS)
    old = flow.run(stack.ports(), job_of(), NIGHT).run
    later(stack, days=31)
    new = flow.run(stack.ports(), job_of(), NEXT_NIGHT).run
    stack.store.write("reviews/notes.txt", b"not a run's")

    sweep(stack)

    assert files_of(stack, old) == []
    assert files_of(stack, new)
    assert stack.store.exists("reviews/notes.txt")


# --- runs that nobody works on --------------------------------------------------------------------------------


def dead_run(stack: Stack, **changes: Any) -> Run:
    """Leave a run whose process died once its batches were made."""
    stack.provider.ends_at_once = False
    job = job_of(**changes)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    for shard in plan.shards:
        flow.advance(stack.ports(), job, shard.ref)
    return stack.ledger.run(plan.run)


def test_the_batches_of_a_dead_run_are_collected_loaded_and_its_books_closed() -> None:
    stack = Stack(RECORDS)
    run = dead_run(stack)
    later(stack, hours=7)
    stack.provider.ends_at_once = True

    swept = sweep(stack)

    assert swept.closed == {run.run: "complete"}
    assert len(stack.answers()) == 5
    assert stack.ledger.run(run.run).state == "complete"
    assert set(stack.vendor.billed.values()) == {1}
    assert stack.vendor.discarded == set(stack.vendor.batches)
    assert flow.run(stack.ports(), job_of(), NIGHT).merged == 5


def test_a_run_whose_batches_are_under_way_is_left_open() -> None:
    stack = Stack(RECORDS)
    run = dead_run(stack)
    later(stack, hours=7)

    swept = sweep(stack)

    assert list(swept.waiting) == [run.run]
    assert (swept.closed, swept.problems) == ({}, {})
    assert stack.ledger.run(run.run).state == "open"


def test_a_run_that_moved_lately_or_is_known_to_live_is_not_touched() -> None:
    stack = Stack(RECORDS)
    run = dead_run(stack)
    stack.provider.ends_at_once = True
    later(stack, hours=5)
    before = stack.ledger.shards(run.run)

    assert sweep(stack).closed == {}
    later(stack, hours=2)
    assert sweep(stack, is_live=lambda _: True).closed == {}
    later(stack, hours=20)
    assert sweep(stack, is_live=lambda _: True).closed == {}
    assert sweep(stack, dry_run=True).closed == {run.run: "open"}

    assert stack.ledger.shards(run.run) == before
    later(stack, hours=4)
    assert sweep(stack, is_live=lambda _: True).closed == {run.run: "complete"}


def test_what_a_dead_run_never_sent_is_not_paid_for_and_goes_with_the_next_run() -> None:
    stack = Stack(RECORDS)
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    flow.advance(stack.ports(), job_of(), plan.shards[0].ref)
    later(stack, hours=7)

    swept = sweep(stack)

    assert swept.closed == {plan.run: "incomplete"}
    assert (len(stack.vendor.batches), len(stack.answers())) == (1, 3)
    assert [message.kind for message in stack.notifier.messages] == ["incomplete"]
    stack.records = []
    flow.run(stack.ports(), job_of(), NEXT_NIGHT)
    assert len(stack.answers()) == 5
    assert set(stack.vendor.billed.values()) == {1}


def test_bad_rows_of_a_dead_run_get_their_fate() -> None:
    stack = Stack(RECORDS)
    run = dead_run(stack)
    later(stack, hours=7)
    stack.provider.ends_at_once = True
    bad = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="bad")
    stack.vendor.answer = lambda messages, _times: (
        bad if messages.user == "text 1" else Result("", Outcome.ANSWERED, messages.user)
    )

    sweep(stack)

    books = stack.ledger.run(run.run).books
    assert books is not None
    assert (books["good"], sum(books["dead"].values())) == (4, 1)
    assert [key for _, key in stack.sink.dead] == ["1"]


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_lost_create_of_a_dead_run_is_found_and_collected(found_by: str) -> None:
    stack = Stack(RECORDS[:3], found_by=found_by)

    def dies() -> None:
        raise Killed("create")

    stack.vendor.after_create = dies
    with pytest.raises(Killed):
        flow.run(stack.ports(), job_of(), NIGHT)
    later(stack, hours=7)

    swept = sweep(stack)

    assert list(swept.closed.values()) == ["complete"]
    assert len(stack.vendor.batches) == 1
    assert len(stack.answers()) == 3


def test_a_batch_that_vanished_is_a_persons_business_and_stops_nothing_else() -> None:
    stack = Stack(RECORDS)
    run = dead_run(stack)
    stack.vendor.batches.clear()
    later(stack, hours=7)

    first = sweep(stack)
    later(stack, hours=7)
    swept = sweep(stack)

    assert run.run in {**first.problems, **swept.problems}
    assert "may have been billed" in {**first.problems, **swept.problems}[run.run]
    assert stack.ledger.run(run.run).state == "open"


def test_a_live_run_beside_housekeeping_ends_with_every_row_once() -> None:
    """Housekeeping is wrong about a runner that slept for long: it wakes up, and finds its work done."""
    stack = Stack(RECORDS)
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    stack.provider.ends_at_once = False
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    stack.provider.ends_at_once = True
    later(stack, hours=7)
    sweep(stack)

    for shard in plan.shards:
        assert isinstance(flow.advance(stack.ports(), job, shard.ref), flow.Finished)
    flow.close_round(stack.ports(), job, plan.run, 0)
    with pytest.raises(RunIncomplete):
        flow.finish(stack.ports(), job, plan.run)
    assert flow.run(stack.ports(), job, NIGHT).state == "complete"

    assert len(stack.answers()) == 5
    assert set(stack.vendor.billed.values()) == {1}


def test_a_vendor_that_is_away_stops_the_housekeeping_of_no_other_run() -> None:
    stack = Stack(RECORDS)
    old = flow.run(stack.ports(), job_of(name="other"), NIGHT).run
    stack.sink.job = ""
    stack.sink.answers.clear()
    later(stack, days=31)
    run = dead_run(stack)
    later(stack, hours=7)

    def away(_batch_id: str) -> Any:
        raise ProviderBusy("memory", "looking", cause="HTTP 503")

    stack.provider.poll = away  # type: ignore[method-assign]
    swept = sweep(stack)

    assert [removal.run for removal in swept.removed] == [old]
    assert list(swept.waiting) == [run.run]

"""What the port promises of a ledger, on every database it may live in."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import sqlalchemy as sa
from tests.adapters.ledger_builders import (
    COST,
    NIGHT,
    NOW,
    USD,
    batch,
    collected,
    intent,
    night,
    opened,
    round_plan,
    sealed_run,
    shard_plan,
)

from nightbatch.adapters.ledger_attempts import _MAY_END
from nightbatch.adapters.ledger_runs import STATES
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.batch import BatchStatus
from nightbatch.core.budget import Budget, BudgetKind
from nightbatch.core.gaps import RunSpan
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost, Usage
from nightbatch.core.proof import Link
from nightbatch.core.shard import ShardPlan, ShardState
from nightbatch.core.window import Window
from nightbatch.errors import BudgetExceeded, BudgetTaken, MustWait, RunIncomplete, RunOverlaps, StaleAttempt
from nightbatch.ports import Attempt, Event, Gate, Intent, Ledger, PendingFile, RoundPlan, Run, Shard

pytest_plugins = ["tests.servers"]

LATER = NOW + timedelta(minutes=1)
AGAIN = timedelta(minutes=10)


@pytest.fixture(params=["postgresql", "sqlite-file", "sqlite-memory"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    urls = {"sqlite-file": f"sqlite:///{tmp_path}/ledger.db", "sqlite-memory": "sqlite://"}
    url = urls.get(request.param) or request.getfixturevalue("postgres_server").new_database()
    ledger = SqlLedger.open_or_migrate(url)
    yield ledger
    ledger.close()


@pytest.fixture
def run(ledger: SqlLedger) -> str:
    """A run with three sealed shards."""
    return sealed_run(ledger, shards=3).run


@pytest.fixture
def ref(run: str) -> ShardRef:
    """The first of them."""
    return ShardRef(run, 0, 0)


def test_it_is_a_ledger_with_an_id_of_its_own(ledger: SqlLedger) -> None:
    port: Ledger = ledger

    assert len(port.ledger_id) == 32
    assert int(port.ledger_id, 16)


# --- runs


def test_a_window_has_one_run_wherever_it_is_started_from(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW)

    assert first == Run("job/20261121T000000Z-20261122T000000Z/g1", "job", NIGHT, 1, "open", NOW)
    assert ledger.open_run("job", NIGHT, now=LATER) == first
    assert ledger.run(first.run) == first


@pytest.mark.parametrize("state", ["complete", "failed"])
def test_a_run_that_is_over_is_given_again(ledger: SqlLedger, state: str) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW)
    ledger.settle(run.run, state=state, books={"good": 1}, now=LATER)

    again = ledger.open_run("job", NIGHT, now=LATER)

    assert again == replace(run, state=state, settled_utc=LATER, books={"good": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["complete", "incomplete", "failed"])
def test_a_closed_run_that_is_settled_again_was_closed_when_it_was_closed(ledger: SqlLedger, state: str) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW)
    ledger.settle(run.run, state=state, books={}, now=NOW)
    ledger.settle(run.run, state=state, books={"good": 1}, now=LATER)

    assert (ledger.run(run.run).settled_utc, ledger.run(run.run).books) == (NOW, {"good": 1})


def test_an_incomplete_run_goes_on_as_a_new_generation(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW)
    ledger.settle(first.run, state="incomplete", books={}, now=LATER)

    second = ledger.open_run("job", NIGHT, now=LATER)

    assert (second.generation, second.state, second.run) == (2, "open", first.run[:-1] + "2")


def test_force_makes_a_new_generation_but_never_of_an_open_run(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW)
    assert ledger.open_run("job", NIGHT, now=NOW, force=True) == first

    ledger.settle(first.run, state="complete", books={}, now=LATER)

    assert ledger.open_run("job", NIGHT, now=LATER, force=True).generation == 2
    assert ledger.open_run("job", NIGHT, now=LATER).generation == 2


@pytest.mark.parametrize("state", ["complete", "failed", "incomplete"])
def test_a_generation_can_be_opened_with_its_plan_in_one_step(ledger: SqlLedger, state: str) -> None:
    first = sealed_run(ledger)
    ledger.settle(first.run, state=state, books={}, now=LATER)
    plan = round_plan(first.run[:-1] + "2", shards=2)

    opened = ledger.open_sealed(plan, job="job", window=NIGHT, now=LATER)

    assert opened == plan
    run = ledger.run(plan.run)
    assert (run.generation, run.state, run.plan) == (2, "open", plan.facts)
    assert [shard.plan for shard in ledger.shards(plan.run)] == list(plan.shards)


def test_a_generation_with_a_plan_takes_no_other_ones_place(ledger: SqlLedger) -> None:
    first = sealed_run(ledger)
    second, third = (round_plan(first.run[:-1] + str(number)) for number in (2, 3))
    with pytest.raises(StaleAttempt):
        ledger.open_sealed(second, job="job", window=NIGHT, now=LATER)
    ledger.settle(first.run, state="complete", books={}, now=LATER)
    with pytest.raises(StaleAttempt):
        ledger.open_sealed(third, job="job", window=NIGHT, now=LATER)
    assert [run.run for run in ledger.runs()] == [first.run]

    ledger.open_sealed(second, job="job", window=NIGHT, now=LATER)

    with pytest.raises(StaleAttempt):
        ledger.open_sealed(second, job="job", window=NIGHT, now=LATER)
    wide = Window(NIGHT.start, NIGHT.end + timedelta(days=1))
    with pytest.raises(RunOverlaps):
        ledger.open_sealed(round_plan("job/other/g1"), job="job", window=wide, now=LATER)


@pytest.mark.parametrize("shift_hours", [-12, 12])
def test_an_overlapping_run_waits_and_names_the_first(ledger: SqlLedger, shift_hours: int) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW)
    shift = timedelta(hours=shift_hours)
    other = Window(NIGHT.start + shift, NIGHT.end + shift)

    with pytest.raises(RunOverlaps) as overlap:
        ledger.open_run("job", other, now=LATER)

    assert (overlap.value.other_run, overlap.value.since) == (first.run, NOW)
    ledger.settle(first.run, state="incomplete", books={}, now=LATER)
    assert ledger.open_run("job", other, now=LATER).state == "open"


def test_neighbouring_windows_and_other_jobs_do_not_wait(ledger: SqlLedger) -> None:
    ledger.open_run("job", NIGHT, now=NOW)

    assert ledger.open_run("job", night(1), now=NOW).state == "open"
    assert ledger.open_run("other", NIGHT, now=NOW).state == "open"


def test_a_settled_run_is_never_opened_again(ledger: SqlLedger) -> None:
    """Its window may be another run's by then."""
    run = ledger.open_run("job", NIGHT, now=NOW)
    ledger.settle(run.run, state="open", books={"in_flight": 1}, now=NOW)
    assert ledger.run(run.run) == replace(run, books={"in_flight": 1})

    ledger.settle(run.run, state="failed", books={"dead": 1}, now=NOW)
    ledger.settle(run.run, state="open", books={"dead": 2}, now=LATER)

    assert ledger.run(run.run) == replace(run, state="failed", settled_utc=NOW, books={"dead": 2})


def test_runs_are_listed_newest_first(ledger: SqlLedger) -> None:
    names = [ledger.open_run("job", night(day), now=NOW + timedelta(hours=day)).run for day in range(3)]
    other = ledger.open_run("other", NIGHT, now=NOW - timedelta(days=1)).run

    assert [run.run for run in ledger.runs()] == [*reversed(names), other]
    assert [run.run for run in ledger.runs(job="job", limit=2)] == [names[2], names[1]]
    assert ledger.runs(job="nobody's") == []
    window = ledger.run(names[1]).window
    assert [run.run for run in ledger.runs(job="job", window=window)] == [names[1]]


def test_what_is_not_there_is_said_to_be_absent(ledger: SqlLedger, run: str) -> None:
    with pytest.raises(LookupError, match="no run x"):
        ledger.run("x")
    with pytest.raises(LookupError, match="r0-s007"):
        ledger.shard(ShardRef(run, 0, 7))
    with pytest.raises(LookupError, match="no run x"):
        ledger.begin(intent(ShardRef("x", 0, 0)), now=NOW)
    with pytest.raises(LookupError, match="attempt 99"):
        ledger.note_sending(99)
    with pytest.raises(LookupError, match="no run x"):
        ledger.settle("x", state="complete", books={}, now=NOW)
    assert ledger.sealed(run, 1) is None
    assert ledger.shards("x") == []
    assert ledger.spent("x") == (0, 0)


def test_times_without_a_zone_and_windows_with_split_seconds_are_refused(ledger: SqlLedger) -> None:
    with pytest.raises(ValueError, match=r"^the ledger takes times with a zone"):
        ledger.open_run("job", NIGHT, now=datetime(2026, 11, 22, 1))  # noqa: DTZ001 - what is tested
    with pytest.raises(ValueError, match="whole seconds"):
        ledger.open_run("job", Window(NIGHT.start, NIGHT.end + timedelta(microseconds=1)), now=NOW)
    assert ledger.runs() == []


def test_an_instant_comes_back_in_utc(ledger: SqlLedger) -> None:
    kathmandu = timezone(timedelta(hours=5, minutes=45))
    now = datetime(2026, 11, 22, 3, 0, 0, 123456, tzinfo=kathmandu)

    started = ledger.open_run("job", NIGHT, now=now).started_utc

    assert started == now
    assert started.utcoffset() == timedelta(0)


# --- seal


def test_a_sealed_round_comes_back_exactly(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run
    plan = round_plan(run, shards=12, worst_usd=USD("123456789.000000001"), max_output_tokens=None)

    assert ledger.seal(plan, now=NOW) == plan
    assert ledger.sealed(run, 0) == plan
    assert ledger.run(run).plan == plan.facts
    assert [shard.plan for shard in ledger.shards(run)] == list(plan.shards)


def test_a_second_seal_gives_the_first_and_changes_nothing(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run
    first = ledger.seal(round_plan(run, shards=2), now=NOW)
    left = PendingFile(run, "late.parquet", 3)

    second = ledger.seal(round_plan(run, shards=5), leaves=left, pending=[left], now=LATER)

    assert second == first
    assert len(ledger.shards(run)) == 2
    assert ledger.pending("job") == []


def test_the_first_round_of_a_settled_run_cannot_be_sealed(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run
    ledger.settle(run, state="failed", books={}, now=NOW)

    with pytest.raises(StaleAttempt, match="failed"):
        ledger.seal(round_plan(run), now=NOW)

    assert ledger.sealed(run, 0) is None


def test_an_empty_round_can_be_sealed(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run
    plan = RoundPlan(run, 0, (), {})

    assert ledger.seal(plan, now=NOW) == plan
    assert ledger.sealed(run, 0) == plan
    assert ledger.run(run).plan == {}


def test_sealing_marks_the_shards_it_takes_once(ledger: SqlLedger, run: str) -> None:
    refs = [ShardRef(run, 0, number) for number in range(3)]
    collected(ledger, refs[0])
    ledger.hold(refs[1], "budget", now=NOW)

    ledger.seal(round_plan(run, round_=1), takes=refs[:2], now=NOW)

    assert [shard.taken_by_round for shard in ledger.shards(run)] == [1, 1, None, None]
    with pytest.raises(StaleAttempt, match="taken by 1"):
        ledger.seal(round_plan(run, round_=2), takes=refs[:1], now=NOW)
    assert ledger.sealed(run, 2) is None


@pytest.mark.parametrize("state", ["sealed", "submitting", "open"])
def test_a_shard_that_may_still_be_answered_is_not_taken(
    ledger: SqlLedger, run: str, ref: ShardRef, state: str
) -> None:
    if state == "submitting":
        ledger.begin(intent(ref), now=NOW)
    if state == "open":
        opened(ledger, ref)

    with pytest.raises(StaleAttempt, match=state):
        ledger.seal(round_plan(run, round_=1), takes=[ref], now=NOW)

    assert ledger.sealed(run, 1) is None
    assert ledger.shard(ref).taken_by_round is None


def test_pending_rows_are_left_by_one_run_and_taken_by_one(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW).run
    files = [PendingFile(first, f"{first}/round-{n}/pending.parquet", 10 + n) for n in range(2)]
    ledger.seal(round_plan(first), leaves=files[0], now=NOW)
    ledger.seal(round_plan(first, round_=1), leaves=files[1], now=LATER)
    assert ledger.pending("job") == files
    assert ledger.pending("other") == []

    second, third = (ledger.open_run("job", night(day), now=NOW).run for day in (1, 2))
    ledger.seal(round_plan(second), pending=files, now=NOW)

    assert ledger.pending("job") == []
    with pytest.raises(StaleAttempt, match=second):
        ledger.seal(round_plan(third), pending=files[1:], now=NOW)
    assert ledger.sealed(third, 0) is None
    assert ledger.shards(third) == []


def test_a_pending_file_nobody_left_cannot_be_taken(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run

    with pytest.raises(StaleAttempt, match="no such file"):
        ledger.seal(round_plan(run), pending=[PendingFile(run, "x.parquet", 1)], now=NOW)


def test_a_plan_with_foreign_shards_is_refused(ledger: SqlLedger, run: str) -> None:
    plan = RoundPlan(run, 1, (shard_plan(ShardRef(run, 2, 0)),), {})
    with pytest.raises(ValueError, match="another round"):
        ledger.seal(plan, now=NOW)
    with pytest.raises(ValueError, match="not of run"):
        ledger.seal(round_plan(run, round_=1), takes=[ShardRef("other", 0, 0)], now=NOW)


# --- attempts


def test_an_attempt_says_until_when_it_may_send_and_when_its_absence_is_certain(
    ledger: SqlLedger, ref: ShardRef
) -> None:
    attempt = ledger.begin(intent(ref, reserve_usd=USD("0.5")), now=NOW)

    assert attempt == Attempt(
        attempt_id=attempt.attempt_id,
        ref=ref,
        number=1,
        state="intent",
        provider="openai",
        account="org-1",
        content_sha256="0" * 64,
        rows=100,
        intent_utc=NOW,
        send_deadline_utc=NOW + timedelta(seconds=120),
        certain_utc=NOW + timedelta(seconds=1320),
        reserved_usd=USD("0.5"),
    )
    assert attempt.queued_utc == NOW
    shard = ledger.shard(ref)
    assert (shard.state, shard.attempts, shard.current) == (ShardState.SUBMITTING, 1, attempt)


def test_a_shard_has_one_attempt_at_a_time(ledger: SqlLedger, ref: ShardRef) -> None:
    ledger.begin(intent(ref), now=NOW)

    for seen in (0, 1):
        with pytest.raises(StaleAttempt, match="attempt 1, submitting"):
            ledger.begin(intent(ref, expected_attempts=seen), now=NOW)


def test_who_saw_fewer_attempts_than_there_were_does_not_send(ledger: SqlLedger, ref: ShardRef) -> None:
    first = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(first.attempt_id, "refused", reason="queue full", retry_at=None, now=NOW)

    with pytest.raises(StaleAttempt, match="not at attempt 0"):
        ledger.begin(intent(ref), now=NOW)

    assert ledger.begin(intent(ref, expected_attempts=1), now=NOW).number == 2


def test_a_shard_with_a_date_waits_for_it(ledger: SqlLedger, ref: ShardRef) -> None:
    first = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(first.attempt_id, "refused", reason="queue full", retry_at=LATER, now=NOW)
    shard = ledger.shard(ref)
    assert (shard.state, shard.current, shard.not_before_utc) == (ShardState.SEALED, None, LATER)

    with pytest.raises(MustWait) as wait:
        ledger.begin(intent(ref, expected_attempts=1), now=LATER - timedelta(microseconds=1))

    assert wait.value.until == LATER
    ledger.begin(intent(ref, expected_attempts=1), now=LATER)
    assert ledger.shard(ref).not_before_utc is None


def test_rows_that_were_left_to_the_next_run_are_not_sent(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    ledger.settle(run, state="incomplete", books={}, now=NOW)

    with pytest.raises(RunIncomplete, match="left to the job's next run"):
        ledger.begin(intent(ref), now=NOW)

    assert ledger.spent(run) == (0, 0)


def test_rows_of_an_old_generation_are_not_sent(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    ledger.settle(run, state="failed", books={}, now=NOW)
    ledger.begin(intent(ShardRef(run, 0, 1)), now=NOW)  # a failed run that is cleared goes on
    newer = ledger.open_run("job", NIGHT, now=NOW, force=True)

    with pytest.raises(RunOverlaps, match=newer.run):
        ledger.begin(intent(ref), now=NOW)


def test_equal_numbers_of_rows_are_not_sent_together_where_a_vendor_has_no_labels(ledger: SqlLedger, run: str) -> None:
    refs = [ShardRef(run, 0, number) for number in range(3)]
    twins = sealed_run(ledger, job="other", shards=3).run  # shards of 100, 101 and 102 rows as well
    first = ledger.begin(intent(refs[0], distinct_rows=True), now=NOW)

    twin = intent(ShardRef(twins, 0, 0), distinct_rows=True)
    with pytest.raises(MustWait, match=r"shard job/.* of 100 rows is being sent to openai account org-1") as wait:
        ledger.begin(twin, now=NOW + timedelta(minutes=2))
    assert wait.value.until == NOW + timedelta(minutes=3)
    assert ledger.spent(twins) == (0, 0)

    ledger.begin(intent(refs[1], distinct_rows=True), now=NOW)
    ledger.begin(replace(twin, ref=ShardRef(twins, 0, 1), account="org-2"), now=NOW)
    ledger.begin(replace(twin, ref=ShardRef(twins, 0, 2), distinct_rows=False), now=NOW)
    ledger.note_sending(first.attempt_id)
    with pytest.raises(MustWait):
        ledger.begin(twin, now=NOW)
    ledger.note_open(first.attempt_id, batch(), now=NOW)
    assert ledger.begin(twin, now=NOW).number == 1


RATES = {"batch": {"input_usd": "0.5", "source": "a list"}, "realtime": {"input_usd": "1", "source": "a list"}}


def test_the_way_of_a_shard(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    """Every step, and all that the ledger then says of the shard."""
    attempt = ledger.begin(intent(ref), now=NOW)
    ledger.note_file(attempt.attempt_id, "file-1")
    ledger.note_sending(attempt.attempt_id)
    ledger.note_open(attempt.attempt_id, batch(created_utc=NOW - timedelta(seconds=3)), now=NOW)
    ledger.note_seen(attempt.attempt_id, batch(vendor_status="finalizing", rows_done=40), now=LATER)
    ledger.note_stored(attempt.attempt_id, ["output.jsonl", "error.jsonl"], ["aa" * 32, "bb" * 32], now=LATER)
    ledger.note_collected(
        ref,
        verdicts_name="verdicts.parquet",
        verdicts_sha256="cc" * 32,
        counts={"good": 98, "again:expired": 2},
        cost=COST,
        rates=RATES,
        now=LATER,
    )
    assert ledger.note_loaded(ref, merged=97, now=LATER)

    ended = replace(
        attempt,
        state="ended",
        file_id="file-1",
        batch_id="batch-1",
        created_utc=NOW - timedelta(seconds=3),
        last_seen_utc=LATER,
        vendor_status="finalizing",
        ended_utc=LATER,
    )
    assert ledger.shard(ref) == Shard(
        plan=shard_plan(ref),
        state=ShardState.LOADED,
        attempts=1,
        current=ended,
        raw_names=("output.jsonl", "error.jsonl"),
        raw_sha256s=("aa" * 32, "bb" * 32),
        verdicts_name="verdicts.parquet",
        verdicts_sha256="cc" * 32,
        counts={"good": 98, "again:expired": 2},
        cost=COST,
        rates=RATES,
        merged=97,
    )
    assert ledger.shards(run)[0] == ledger.shard(ref)
    assert ledger.shards(run, round_=1) == []


def test_steps_out_of_order_are_refused(ledger: SqlLedger, ref: ShardRef) -> None:
    def collect() -> None:
        ledger.note_collected(ref, verdicts_name="v", counts={}, cost=COST, now=NOW)

    for step in (collect, lambda: ledger.note_loaded(ref, merged=1, now=NOW)):
        with pytest.raises(StaleAttempt):
            step()
    attempt = ledger.begin(intent(ref), now=NOW)
    with pytest.raises(StaleAttempt, match="not at attempt 1, open"):
        ledger.note_stored(attempt.attempt_id, ["a"], ["b"], now=NOW)
    with pytest.raises(ValueError, match="do not belong together"):
        ledger.note_stored(attempt.attempt_id, ["a"], [], now=NOW)
    ledger.note_open(attempt.attempt_id, batch(), now=NOW)
    with pytest.raises(StaleAttempt):
        collect()


def test_a_step_done_twice_changes_nothing(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    attempt = collected(ledger, ref)
    ledger.note_loaded(ref, merged=7, now=NOW)
    before = (ledger.shard(ref), ledger.spent(run))

    assert ledger.note_open(attempt.attempt_id, batch(), now=LATER) is None
    ledger.note_stored(attempt.attempt_id, ["output.jsonl"], ["ab" * 32], now=LATER)
    assert not ledger.note_collected(ref, verdicts_name="x", counts={}, cost=Cost(batch_usd=USD(9)), now=LATER)
    assert not ledger.note_loaded(ref, merged=8, now=LATER)
    ledger.note_seen(attempt.attempt_id, batch(vendor_status="expired"), now=LATER)

    assert (ledger.shard(ref), ledger.spent(run)) == before


def test_other_raw_results_than_the_first_are_told(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = collected(ledger, ref)

    with pytest.raises(StaleAttempt):
        ledger.note_stored(attempt.attempt_id, ["output.jsonl"], ["cd" * 32], now=LATER)


def test_only_an_intent_is_sent(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)
    ledger.note_sending(attempt.attempt_id)

    for step in (ledger.note_sending, lambda attempt_id: ledger.note_file(attempt_id, "file-2")):
        with pytest.raises(StaleAttempt, match="attempt 1, sending"):
            step(attempt.attempt_id)


def test_a_frozen_process_whose_attempt_was_ended_does_not_send(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(attempt.attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)

    with pytest.raises(StaleAttempt, match="absent"):
        ledger.note_sending(attempt.attempt_id)
    with pytest.raises(StaleAttempt, match="absent"):
        ledger.note_file(attempt.attempt_id, "file-1")


def test_a_lost_create_can_be_adopted(ledger: SqlLedger, ref: ShardRef) -> None:
    """A successor that finds the batch at the vendor records it, also where its predecessor never said it sends."""
    attempt = ledger.begin(intent(ref), now=NOW)

    ledger.note_open(attempt.attempt_id, batch(), now=LATER)

    current = ledger.shard(ref).current
    assert current is not None
    assert (current.state, current.batch_id, current.created_utc) == ("open", "batch-1", LATER)


def test_an_attempt_has_one_batch_and_a_batch_one_attempt(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    first = opened(ledger, ref)
    ledger.note_open(first.attempt_id, batch(), now=LATER)
    with pytest.raises(StaleAttempt, match="open as batch batch-1"):
        ledger.note_open(first.attempt_id, batch("batch-2"), now=LATER)

    second = ledger.begin(intent(ShardRef(run, 0, 1)), now=NOW)
    with pytest.raises(StaleAttempt, match="r0-s000, attempt 1"):
        ledger.note_open(second.attempt_id, batch("batch-1"), now=LATER)

    assert ledger.shard(ShardRef(run, 0, 1)).state is ShardState.SUBMITTING
    other = ledger.begin(intent(ShardRef(run, 0, 2), provider="anthropic"), now=NOW)
    ledger.note_open(other.attempt_id, batch("batch-1"), now=LATER)  # another vendor's ids are its own


def test_a_batch_that_is_known_is_not_absent(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)

    with pytest.raises(StaleAttempt, match="open as batch batch-1"):
        ledger.end_attempt(attempt.attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)

    assert ledger.shard(ref).state is ShardState.OPEN


def test_a_batch_that_turns_up_late_is_used_unless_somebody_began_again(
    ledger: SqlLedger, run: str, ref: ShardRef
) -> None:
    first = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(first.attempt_id, "absent", reason="not listed", retry_at=LATER, now=NOW)
    assert ledger.spent(run) == (0, 0)

    ledger.note_open(first.attempt_id, batch(), now=NOW)

    shard = ledger.shard(ref)
    assert (shard.state, shard.not_before_utc, ledger.spent(run)) == (ShardState.OPEN, None, (1, 0))
    with pytest.raises(StaleAttempt):
        ledger.begin(intent(ref, expected_attempts=1), now=LATER)


def test_a_batch_that_turns_up_too_late_is_told(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    first = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(first.attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)
    ledger.begin(intent(ref, expected_attempts=1), now=NOW)

    with pytest.raises(StaleAttempt, match="attempt 1, absent"):
        ledger.note_open(first.attempt_id, batch(), now=NOW)

    assert ledger.spent(run) == (1, 0)


@pytest.mark.parametrize("outcome", sorted(_MAY_END))
def test_an_attempt_without_a_result_gives_its_reserve_back(
    ledger: SqlLedger, run: str, ref: ShardRef, outcome: Any
) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)

    for reason in ("because \x00 of it", "a second time"):
        ledger.end_attempt(attempt.attempt_id, outcome, reason=reason, retry_at=None, now=NOW)

    shard = ledger.shard(ref)
    assert (shard.state, shard.current, shard.attempts) == (ShardState.SEALED, None, 1)
    assert ledger.spent(run) == (0, 0)
    for other in sorted({*_MAY_END} - {outcome}):
        with pytest.raises(StaleAttempt, match=outcome):
            ledger.end_attempt(attempt.attempt_id, other, reason="", retry_at=None, now=NOW)


@pytest.mark.parametrize("outcome", sorted(_MAY_END))
def test_an_attempt_may_end_and_its_shard_be_held_in_one_commit(
    ledger: SqlLedger, run: str, ref: ShardRef, outcome: Any
) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)

    for _ in range(2):
        ledger.end_attempt(attempt.attempt_id, outcome, reason="no", retry_at=None, hold="request_refused", now=NOW)

    shard = ledger.shard(ref)
    assert (shard.state, shard.held_reason, shard.current) == (ShardState.HELD, "request_refused", None)
    assert ledger.spent(run) == (0, 0)
    with pytest.raises(StaleAttempt, match="held"):
        ledger.begin(intent(ref, expected_attempts=1), now=NOW)


def test_a_batch_may_be_refused_after_it_was_made(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)

    ledger.end_attempt(attempt.attempt_id, "refused", reason="token_limit_exceeded", retry_at=LATER, now=NOW)

    assert ledger.shard(ref).state is ShardState.SEALED
    assert ledger.owned("openai", ["batch-1"]) == {"batch-1"}


def test_an_attempt_with_results_cannot_be_ended_without(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = collected(ledger, ref)

    with pytest.raises(StaleAttempt, match="ended"):
        ledger.end_attempt(attempt.attempt_id, "lost", reason="", retry_at=None, now=NOW)


def test_a_vendor_that_does_not_know_a_batch_has_not_seen_it(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)

    ledger.note_seen(attempt.attempt_id, batch(status=BatchStatus.NOT_FOUND, vendor_status="404"), now=LATER)

    current = ledger.shard(ref).current
    assert current is not None
    assert (current.last_seen_utc, current.vendor_status) == (NOW, "404")


def test_only_a_shard_that_is_not_under_way_is_held(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    for _ in range(2):
        ledger.hold(ref, "budget", now=NOW)
    assert (ledger.shard(ref).state, ledger.shard(ref).held_reason) == (ShardState.HELD, "budget")
    with pytest.raises(StaleAttempt, match="held"):
        ledger.begin(intent(ref), now=NOW)

    opened(ledger, ShardRef(run, 0, 1))
    with pytest.raises(StaleAttempt, match="open"):
        ledger.hold(ShardRef(run, 0, 1), "budget", now=NOW)


def test_the_ledger_knows_its_own_batches(ledger: SqlLedger, run: str) -> None:
    opened(ledger, ShardRef(run, 0, 0), "batch-7")
    many = [f"batch-{number}" for number in range(2000)]

    assert ledger.owned("openai", many) == {"batch-7"}
    assert ledger.owned("anthropic", many) == set()
    assert ledger.owned("openai", []) == set()


# --- money


def test_a_batch_s_own_total_is_kept_when_it_has_ended(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)
    ledger.note_seen(attempt.attempt_id, batch(usage=Usage(1)), now=NOW)
    assert ledger.shard(ref).current.vendor_usage is None  # type: ignore[union-attr]

    ended = batch(status=BatchStatus.ENDED, usage=Usage(5, 4, 0, 3, 2))
    ledger.note_seen(attempt.attempt_id, ended, now=LATER)

    assert ledger.shard(ref).current.vendor_usage == Usage(5, 4, 0, 3, 2)  # type: ignore[union-attr]


def test_the_budget_counts_reserves_and_actual_costs_of_all_rounds(ledger: SqlLedger, run: str) -> None:
    budget = USD("2.5")
    collected(ledger, ShardRef(run, 0, 0), cost=Cost(batch_usd=USD("0.5")))
    ledger.seal(round_plan(run, round_=1), takes=[ShardRef(run, 0, 0)], now=NOW)
    ledger.begin(intent(ShardRef(run, 0, 1), budget_usd=budget), now=NOW)
    assert ledger.spent(run) == (USD(1), USD("0.5"))

    over = intent(ShardRef(run, 1, 0), budget_usd=budget, reserve_usd=USD("1.000000001"))
    with pytest.raises(BudgetTaken, match="waits for what other shards give back") as taken:
        ledger.begin(over, now=NOW)

    assert taken.value.until > NOW
    assert ledger.shard(ShardRef(run, 1, 0)).attempts == 0
    ledger.begin(replace(over, reserve_usd=USD(1)), now=NOW)
    assert sum(ledger.spent(run)) == budget


def test_what_is_billed_is_gone_and_a_shard_that_needs_more_is_told_so(ledger: SqlLedger, run: str) -> None:
    collected(ledger, ShardRef(run, 0, 0), cost=Cost(batch_usd=USD("0.5")))
    ledger.begin(intent(ShardRef(run, 0, 1), reserve_usd=USD("0.25")), now=NOW)

    with pytest.raises(BudgetExceeded) as exceeded:
        ledger.begin(intent(ShardRef(run, 0, 2), reserve_usd=USD("0.75"), budget_usd=USD(1)), now=NOW)

    error = exceeded.value
    assert (error.key, error.budget_usd, error.needed_usd, error.new_on) == ("budget_usd", USD(1), USD("0.75"), None)
    assert "in this run 0.5000 are spent and 0.2500 reserved, and 0.7500 are needed" in str(error)


def with_budget(ref: ShardRef, kind: BudgetKind, usd: str = "1.5", **changes: Any) -> Intent:
    return intent(ref, budgets=(Budget(kind, USD(usd)),), **changes)


@pytest.mark.parametrize("kind", [BudgetKind.JOB_DAY, BudgetKind.JOB_MONTH, BudgetKind.ACCOUNT_MONTH])
def test_a_budget_of_a_day_or_month_counts_every_run_and_starts_anew(ledger: SqlLedger, kind: BudgetKind) -> None:
    runs = [sealed_run(ledger, window=night(number), shards=3).run for number in range(2)]
    ledger.begin(intent(ShardRef(runs[0], 0, 0)), now=NOW)

    with pytest.raises(BudgetTaken):
        ledger.begin(with_budget(ShardRef(runs[1], 0, 0), kind), now=NOW)

    days = 1 if kind is BudgetKind.JOB_DAY else 9
    following = NOW.date() + timedelta(days=days)
    last = following - timedelta(days=1)
    with pytest.raises(BudgetTaken):
        ledger.begin(with_budget(ShardRef(runs[1], 0, 0), kind, day=last), now=NOW)
    assert ledger.begin(with_budget(ShardRef(runs[1], 0, 0), kind, day=following), now=NOW).number == 1


def test_a_job_s_budget_is_its_own_and_an_account_s_is_everybody_s(ledger: SqlLedger) -> None:
    refs = [ShardRef(sealed_run(ledger, job=f"job-{number}").run, 0, 0) for number in range(3)]
    ledger.begin(intent(refs[0]), now=NOW)

    ledger.begin(with_budget(refs[1], BudgetKind.JOB_MONTH), now=NOW)
    with pytest.raises(BudgetTaken, match=r"the account's budget_month_usd is 2\.5000 USD"):
        ledger.begin(with_budget(refs[2], BudgetKind.ACCOUNT_MONTH, "2.5"), now=NOW)
    assert ledger.begin(with_budget(refs[2], BudgetKind.ACCOUNT_MONTH, "2.5", account="other"), now=NOW).number == 1


def test_a_charge_belongs_to_the_day_of_its_reserve_whenever_it_is_billed(ledger: SqlLedger, run: str) -> None:
    yesterday = NOW.date() - timedelta(days=1)
    collected_on = opened(ledger, ShardRef(run, 0, 0), day=yesterday)
    ledger.note_stored(collected_on.attempt_id, [], [], now=NOW)
    ledger.note_collected(collected_on.ref, verdicts_name="v", counts={}, cost=COST, now=NOW + timedelta(days=3))
    refused = ledger.begin(intent(ShardRef(run, 0, 1), day=yesterday), now=NOW)
    ledger.end_attempt(refused.attempt_id, "refused", reason="", retry_at=None, now=NOW + timedelta(days=3))

    with ledger._database.read() as connection:
        days = connection.execute(sa.text("SELECT DISTINCT day FROM nb_money")).scalars().all()

    assert [str(day) for day in days] == [str(yesterday)]


def test_generations_that_go_on_share_one_budget(ledger: SqlLedger, run: str) -> None:
    collected(ledger, ShardRef(run, 0, 0), cost=Cost(batch_usd=USD("0.5")))
    ledger.settle(run, state="incomplete", books={}, now=NOW)
    ref = ShardRef(sealed_run(ledger).run, 0, 0)
    assert ref.run != run
    shared, alone = (Budget(BudgetKind.RUN, USD("1.2"), runs) for runs in ((run,), ()))

    with pytest.raises(BudgetExceeded, match=r"in this run and those it goes on from 0\.5000 are spent"):
        ledger.begin(intent(ref, budgets=(shared,)), now=NOW)
    assert ledger.begin(intent(ref, budgets=(alone,)), now=NOW).number == 1


def test_nobody_waits_for_a_reserve_that_nobody_collects(ledger: SqlLedger, run: str) -> None:
    opened(ledger, ShardRef(run, 0, 0))
    wanted = intent(ShardRef(run, 0, 1), budget_usd=USD("1.5"))

    with pytest.raises(BudgetTaken):
        ledger.begin(wanted, now=NOW + timedelta(hours=48))
    with pytest.raises(BudgetExceeded):
        ledger.begin(wanted, now=NOW + timedelta(hours=49))


def test_a_batch_that_turns_up_late_is_told_and_keeps_further_reserves_out(ledger: SqlLedger, run: str) -> None:
    budget = USD("1.5")
    late = ledger.begin(intent(ShardRef(run, 0, 0), budget_usd=budget), now=NOW)
    ledger.end_attempt(late.attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)
    ledger.begin(intent(ShardRef(run, 0, 1), budget_usd=budget), now=NOW)

    assert ledger.note_open(late.attempt_id, batch(), now=LATER) is True
    assert ledger.note_open(late.attempt_id, batch(), now=LATER) is None

    assert sum(ledger.spent(run)) == 2 > budget
    current = ledger.shard(late.ref).current
    assert current is not None
    assert current.turned_up_utc == LATER
    with pytest.raises(BudgetTaken):
        ledger.begin(intent(ShardRef(run, 0, 2), budget_usd=budget, reserve_usd=USD("0.01")), now=LATER)


def test_what_a_shard_waits_for_is_kept_until_it_begins(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    ledger.note_waiting(ref, "a budget", now=NOW)
    assert [shard.waits_for for shard in ledger.shards(run)] == ["a budget", "", ""]

    ledger.begin(intent(ref), now=NOW)
    ledger.note_waiting(ref, "too late", now=NOW)

    assert ledger.shard(ref).waits_for == ""


def test_a_reserve_is_never_rounded_down(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    tiny = USD("0.0000000001")

    assert ledger.begin(intent(ref, reserve_usd=tiny), now=NOW).reserved_usd == USD("0.000000001")
    with pytest.raises(BudgetExceeded):
        ledger.begin(intent(ShardRef(run, 0, 1), reserve_usd=tiny, budget_usd=USD("0.0000000005")), now=NOW)


def test_a_penny_is_a_penny_after_thousands_of_them(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    """What floats get wrong: 0.1 + 0.2."""
    for number, reserve in enumerate(("0.1", "0.2", "100000000.000000001")):
        ledger.begin(intent(ShardRef(run, 0, number), reserve_usd=USD(reserve)), now=NOW)

    assert ledger.spent(run) == (USD("100000000.300000001"), 0)


@pytest.mark.parametrize("usd", [0.1, Decimal("NaN"), Decimal(1_000_000_000)])
def test_money_is_an_exact_number_that_fits(ledger: SqlLedger, ref: ShardRef, usd: Any) -> None:
    opened_attempt = opened(ledger, ref)
    ledger.note_stored(opened_attempt.attempt_id, [], [], now=NOW)

    with pytest.raises((TypeError, ValueError), match=r"^(money|the ledger)"):
        ledger.note_collected(ref, verdicts_name="v", counts={}, cost=Cost(Usage(), usd, USD(0)), now=NOW)

    assert ledger.shard(ref).state is ShardState.STORED


# --- events


def test_an_event_is_recorded_once(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {"rows": 3}, now=NOW)
    ledger.record_event("e1", "failed", "another run", {}, now=LATER)
    assert ledger.deliveries(run) == []

    assert ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW)
    ledger.note_delivered("e1", "mail", now=NOW)

    assert ledger.deliveries(run) == [("e1", "late", "mail")]


def test_an_event_that_only_counted_can_be_forgotten_and_one_that_was_told_stays(ledger: SqlLedger) -> None:
    for event in ("counted", "told"):
        ledger.record_event(event, "hit", "away openai c", {}, now=NOW)
    ledger.may_deliver("told", "mail", again_after=AGAIN, now=NOW)

    for event in ("counted", "told", "nowhere"):
        ledger.forget_event(event)

    assert [event.event_id for event in ledger.events("away openai c")] == ["told"]


def test_nobody_is_told_what_was_not_written_down(ledger: SqlLedger) -> None:
    with pytest.raises(LookupError, match="recorded before"):
        ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW)
    with pytest.raises(LookupError, match="recorded before"):
        ledger.note_delivered("e1", "mail", now=NOW)


def test_a_delivery_is_claimed_at_most_twice_and_so_long_apart(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {}, now=NOW)
    minutes = (0, 1, 9.99, 10, 11, 21, 1000)

    claims = [ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW + timedelta(minutes=m)) for m in minutes]

    assert claims == [True, False, False, True, False, False, False]
    assert ledger.may_deliver("e1", "slack", again_after=AGAIN, now=NOW)


def test_a_delivery_of_a_clock_that_has_been_put_back_since_is_claimed_once_more(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {}, now=NOW)
    claims = [ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW - gap) for gap in (-AGAIN / 2, AGAIN)]

    assert claims == [True, True]


def test_a_delivery_under_way_is_told_from_those_that_are_over(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {}, now=NOW)
    assert ledger.delivery_claimed("e1", "mail") is None

    ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW)
    assert ledger.delivery_claimed("e1", "mail") == NOW
    ledger.note_delivered("e1", "mail", now=LATER)
    assert ledger.delivery_claimed("e1", "mail") is None

    for moment in (NOW, NOW + AGAIN):
        assert ledger.may_deliver("e1", "slack", again_after=AGAIN, now=moment)
    assert ledger.delivery_claimed("e1", "slack") is None, "it was claimed twice, and is never claimed again"


def test_a_claim_that_was_given_back_may_be_claimed_again_later_and_as_often(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {}, now=NOW)
    moments = [NOW + number * AGAIN for number in range(5)]

    for moment in moments:
        assert ledger.may_deliver("e1", "mail", again_after=AGAIN, now=moment)
        ledger.note_undelivered("e1", "mail", now=moment)
        assert not ledger.may_deliver("e1", "mail", again_after=AGAIN, now=moment)

    assert ledger.deliveries(run) == []
    ledger.note_delivered("e1", "mail", now=LATER)
    ledger.note_undelivered("e1", "mail", now=LATER)
    assert ledger.deliveries(run) == [("e1", "late", "mail")]


def test_what_a_channel_did_not_take_is_listed_by_job(ledger: SqlLedger, run: str) -> None:
    job = run.partition("/")[0]
    for event_id, about in (("e1", run), ("e2", "account openai c"), ("e3", f"{job}x/w/g1"), ("e4", run), ("e5", run)):
        ledger.record_event(event_id, "late", about, {"title": event_id}, now=NOW)
    for event_id in ("e1", "e2", "e3", "e4"):
        ledger.may_deliver(event_id, "mail", again_after=AGAIN, now=NOW)
    ledger.note_delivered("e4", "mail", now=NOW)

    found = ledger.undelivered(job, "mail")

    assert [(event.event_id, event.run, event.payload) for event in found] == [("e1", run, {"title": "e1"})]
    assert ledger.undelivered(job, "slack") == []
    assert [event.event_id for event in ledger.events(run)] == ["e1", "e4", "e5"]
    assert ledger.events(run)[0].recorded_utc == NOW


def test_what_was_delivered_is_not_claimed_again(ledger: SqlLedger, run: str) -> None:
    ledger.record_event("e1", "late", run, {}, now=NOW)
    assert ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW)
    for _ in range(2):
        ledger.note_delivered("e1", "mail", now=NOW)
    ledger.note_delivered("e1", "slack", now=LATER)

    assert not ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW + timedelta(hours=1))
    assert not ledger.may_deliver("e1", "slack", again_after=AGAIN, now=NOW + timedelta(hours=1))
    assert ledger.deliveries(run) == [("e1", "late", "mail"), ("e1", "late", "slack")]


# --- threads, and complete maps


def test_threads_share_a_ledger(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=16).run
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait()
        for number in range(worker * 2, worker * 2 + 2):
            collected(ledger, ShardRef(run, 0, number), f"batch-{number}")
            ledger.shards(run)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert {shard.state for shard in ledger.shards(run)} == {ShardState.COLLECTED}
    assert ledger.spent(run) == (0, 16 * COST.batch_usd)


def test_every_field_of_a_plan_is_stored() -> None:
    """A plan that differs from the default in each field, so that the round trip above proves something."""
    plan = shard_plan(ShardRef("run", 0, 3))

    assert not [f.name for f in fields(ShardPlan) if getattr(plan, f.name) in ("", 0, None)]


def test_outcomes_and_states_are_those_of_the_port() -> None:
    assert set(_MAY_END) == set(get_args(get_type_hints(Ledger.end_attempt)["outcome"]))
    assert set().union(*_MAY_END.values(), _MAY_END) < set(get_args(get_type_hints(Attempt)["state"]))
    assert STATES == ("open", "complete", "incomplete", "failed")


def test_a_gate_is_decided_once_and_only_a_person_opens_it(ledger: SqlLedger, run: str) -> None:
    assert ledger.gate(run, "canary") is None

    stopped = ledger.decide_gate(run, "canary", "stopped", {"breaches": ["too long"]}, by="", now=NOW)
    again = ledger.decide_gate(run, "canary", "passed", {}, by="", now=LATER)
    released = ledger.decide_gate(run, "canary", "released", {}, by="a person", now=LATER)

    assert again == stopped == Gate(run, "canary", "stopped", {"breaches": ["too long"]}, "", NOW)
    assert released == Gate(run, "canary", "released", {"breaches": ["too long"]}, "a person", LATER)
    assert ledger.decide_gate(run, "canary", "released", {}, by="another", now=LATER) == released
    assert ledger.gate(run, "canary") == released


def test_what_a_gate_let_through_stays_let_through(ledger: SqlLedger, run: str) -> None:
    passed = ledger.decide_gate(run, "canary", "passed", {}, by="", now=NOW)

    assert ledger.decide_gate(run, "canary", "released", {}, by="a person", now=LATER) == passed


def test_what_a_person_discarded_stays_discarded_and_says_why_it_was_stopped(ledger: SqlLedger, run: str) -> None:
    ledger.decide_gate(run, "quality", "stopped", {"breaches": ["too short"]}, by="", now=NOW)

    discarded = ledger.decide_gate(run, "quality", "discarded", {}, by="a person", now=LATER)

    assert discarded == Gate(run, "quality", "discarded", {"breaches": ["too short"]}, "a person", LATER)
    assert ledger.decide_gate(run, "quality", "released", {}, by="another", now=LATER) == discarded


def test_discarded_verdicts_take_the_place_of_those_that_were_read_and_of_no_others(
    ledger: SqlLedger, ref: ShardRef
) -> None:
    collected(ledger, ref)
    anew: dict[str, Any] = {"verdicts_name": "anew", "verdicts_sha256": "cd" * 32, "counts": {"dead:discarded": 99}}

    with pytest.raises(StaleAttempt, match="collected"):
        ledger.note_discarded(ref, instead_of="other", **anew, now=LATER)
    ledger.note_discarded(ref, instead_of="verdicts.parquet", **anew, now=LATER)
    shard = ledger.shard(ref)

    assert (shard.state, shard.verdicts_name, shard.counts) == (ShardState.COLLECTED, "anew", {"dead:discarded": 99})
    assert shard.cost == COST
    ledger.note_loaded(ref, merged=0, now=LATER)
    with pytest.raises(StaleAttempt, match="loaded"):
        ledger.note_discarded(ref, instead_of="anew", **anew, now=LATER)


def test_what_answers_look_like_is_kept_with_their_shard(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)
    ledger.note_stored(attempt.attempt_id, ["output.jsonl"], ["ab" * 32], now=NOW)
    profile = {"answers": 2, "values": {"rating": {"good": 2}}, "chars": {}, "outside": {}}

    ledger.note_collected(ref, verdicts_name="v", counts={"good": 2}, cost=COST, profile=profile, now=NOW)

    assert ledger.shard(ref).profile == profile


def test_a_resumed_run_sends_what_a_released_canary_held_back(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    ledger.hold(ref, "canary", now=NOW)
    ledger.decide_gate(run, "canary", "stopped", {}, by="", now=NOW)
    ledger.resume(run, now=NOW)
    assert ledger.shard(ref).state is ShardState.HELD

    ledger.decide_gate(run, "canary", "released", {}, by="a person", now=NOW)
    ledger.resume(run, now=NOW)

    assert ledger.shard(ref).state is ShardState.SEALED


# --- tidying up


def test_what_was_deleted_at_the_vendor_is_noted_once(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    attempt = opened(ledger, ref)
    files = ("output:file-1", "error:file-2")
    ended = batch(status=BatchStatus.ENDED, vendor_status="completed", result_files=files)
    ledger.note_seen(attempt.attempt_id, ended, now=NOW)

    ledger.note_files_deleted(attempt.attempt_id, now=NOW)
    ledger.note_files_deleted(attempt.attempt_id, now=LATER)

    [found] = ledger.attempts(run)
    assert (found.result_files, found.vendor_files_deleted_utc) == (files, NOW)


def test_all_attempts_of_a_run_are_listed(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    first = ledger.begin(intent(ref), now=NOW)
    ledger.end_attempt(first.attempt_id, "refused", reason="full", retry_at=None, now=NOW)
    ledger.begin(intent(ref, expected_attempts=1), now=NOW)

    assert [(attempt.number, attempt.state) for attempt in ledger.attempts(run)] == [(1, "refused"), (2, "intent")]
    assert ledger.attempts("other") == []


def test_the_files_of_an_open_run_are_not_given_up(ledger: SqlLedger, run: str) -> None:
    assert not ledger.give_up_files(run, now=NOW)
    assert ledger.run(run).staging_removed_utc is None


def test_files_are_given_up_once_and_listed_until_they_are_gone(ledger: SqlLedger) -> None:
    runs = [sealed_run(ledger, window=night(number)).run for number in range(3)]
    ledger.settle(runs[1], state="complete", books={}, now=NOW)

    assert ledger.give_up_files(runs[1], now=NOW)
    assert ledger.give_up_files(runs[1], now=LATER)

    assert ledger.run(runs[1]).staging_removed_utc == NOW
    assert [found.run for found in ledger.runs_with_files()] == sorted(runs)
    ledger.note_emptied(runs[1], now=LATER)
    assert [found.run for found in ledger.runs_with_files()] == [runs[0], runs[2]]


def test_files_that_hold_pending_rows_are_kept_until_a_run_has_taken_them(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW).run
    file = PendingFile(first, f"{first}/round-1/pending.parquet", 10)
    ledger.seal(round_plan(first), leaves=file, now=NOW)
    ledger.settle(first, state="incomplete", books={}, now=NOW)
    assert not ledger.give_up_files(first, now=NOW)

    second = ledger.open_run("job", night(1), now=NOW).run
    ledger.seal(round_plan(second), pending=[file], now=NOW)

    assert ledger.give_up_files(first, now=NOW)


def test_files_are_kept_while_a_newer_plan_of_the_window_is_under_way(ledger: SqlLedger, run: str) -> None:
    ledger.settle(run, state="complete", books={}, now=NOW)
    newer = ledger.open_run("job", NIGHT, now=NOW, force=True).run

    assert not ledger.give_up_files(run, now=NOW)
    ledger.settle(newer, state="complete", books={}, now=NOW)
    assert ledger.give_up_files(run, now=NOW)


def test_a_run_moved_when_anything_of_it_last_did(ledger: SqlLedger, run: str, ref: ShardRef) -> None:
    assert ledger.last_moved(run) == NOW

    attempt = opened(ledger, ref)
    ledger.note_seen(attempt.attempt_id, batch(), now=LATER)

    assert ledger.last_moved(run) == LATER
    with pytest.raises(LookupError):
        ledger.last_moved("other")


# --- cancelling


def held(ledger: SqlLedger, run: str) -> dict[str, str]:
    return {shard.plan.ref.name: shard.held_reason for shard in ledger.shards(run) if shard.state is ShardState.HELD}


def test_a_cancel_holds_what_is_not_under_way_and_nothing_else(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=3).run
    opened(ledger, ShardRef(run, 0, 1))

    marked = ledger.cancel(run, drops=True, now=NOW)

    assert (marked.state, marked.cancelled_utc, marked.cancel_drops) == ("open", NOW, True)
    ledger.hold(ShardRef(run, 0, 2), "budget", problem="it would break the budget", now=LATER)
    assert held(ledger, run) == {"r0-s000": "cancelled", "r0-s002": "cancelled"}
    with pytest.raises(StaleAttempt, match="held"):
        ledger.begin(intent(ShardRef(run, 0, 0)), now=LATER)


def test_the_first_cancel_stands(ledger: SqlLedger) -> None:
    run = sealed_run(ledger).run
    ledger.cancel(run, drops=False, now=NOW)

    again = ledger.cancel(run, drops=True, now=LATER)

    assert (again.cancelled_utc, again.cancel_drops) == (NOW, False)


def test_what_comes_back_to_a_cancelled_run_or_is_sealed_in_it_is_held(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=2).run
    sending = ledger.begin(intent(ShardRef(run, 0, 0)), now=NOW)
    ledger.cancel(run, drops=True, now=NOW)

    ledger.end_attempt(sending.attempt_id, "refused", reason="queue full", retry_at=LATER, now=NOW)
    ledger.seal(round_plan(run, round_=1), now=NOW)

    assert held(ledger, run) == dict.fromkeys(("r0-s000", "r0-s001", "r1-s000"), "cancelled")
    assert ledger.spent(run) == (0, 0)


def test_a_batch_that_turns_up_in_a_cancelled_run_is_used_until_its_rows_have_their_fate(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=2).run
    late = [ledger.begin(intent(ShardRef(run, 0, number)), now=NOW) for number in (0, 1)]
    ledger.cancel(run, drops=True, now=NOW)
    for attempt in late:
        ledger.end_attempt(attempt.attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)
    ledger.seal(round_plan(run, shards=0, round_=1), takes=[ShardRef(run, 0, 1)], now=NOW)

    ledger.note_open(late[0].attempt_id, batch("batch-1"), now=LATER)

    assert ledger.shard(late[0].ref).state is ShardState.OPEN
    with pytest.raises(StaleAttempt):
        ledger.note_open(late[1].attempt_id, batch("batch-2"), now=LATER)


@pytest.mark.parametrize("state", ["complete", "failed", "incomplete"])
def test_a_closed_run_is_not_cancelled(ledger: SqlLedger, state: str) -> None:
    run = sealed_run(ledger).run
    ledger.settle(run, state=state, books={}, now=NOW)

    with pytest.raises(StaleAttempt, match=state):
        ledger.cancel(run, drops=True, now=LATER)


def test_a_shard_is_begun_before_a_cancel_or_not_at_all(ledger: SqlLedger) -> None:
    """Whichever comes first: there is never a sealed shard left in a cancelled run, nor an attempt at a held one."""
    run = sealed_run(ledger, shards=8).run
    began: list[ShardRef] = []

    def begin(number: int) -> None:
        with contextlib.suppress(StaleAttempt):
            began.append(ledger.begin(intent(ShardRef(run, 0, number)), now=NOW).ref)

    with ThreadPoolExecutor(9) as pool:
        first = [pool.submit(begin, number) for number in range(4)]
        cancelling = pool.submit(ledger.cancel, run, drops=True, now=NOW)
        for one in [*first, cancelling, *(pool.submit(begin, number) for number in range(4, 8))]:
            one.result()

    states = {shard.plan.ref: shard.state for shard in ledger.shards(run)}
    assert {ref for ref, state in states.items() if state is ShardState.SUBMITTING} == set(began)
    assert set(states.values()) <= {ShardState.SUBMITTING, ShardState.HELD}


# --- the proof ------------------------------------------------------------------------------------------------


def test_the_proof_of_a_run_comes_back_in_order_and_the_last_one_counts(ledger: SqlLedger, run: str) -> None:
    first = [
        Link("file", "a/requests.jsonl", "ab" * 32, "ab" * 32, True),
        Link("cost", "r0-s000", "1.0 USD", "2.0 USD", False),
        Link("rates", "r0-s000", "", "the rates were not recorded then", None),
    ]
    second = [Link("file", f"file {number}", "x", "x", True) for number in range(300)]
    assert ledger.proof(run) == []

    ledger.settle(run, state="open", books={}, proof=first, now=NOW)
    assert ledger.proof(run) == first
    ledger.settle(run, state="open", books={}, now=NOW)
    assert ledger.proof(run) == first
    ledger.settle(run, state="complete", books={}, proof=second, now=LATER)

    assert ledger.proof(run) == second
    assert ledger.run(run).state == "complete"


# --- what the watchdog asks -----------------------------------------------------------------------------------


def test_a_job_s_windows_say_what_became_of_them(ledger: SqlLedger) -> None:
    """Newer generations and other jobs beside them; a first look is told from a whole run."""
    complete = sealed_run(ledger, window=night(0))
    first_look = ledger.open_run("job", night(1), now=LATER)
    plan = round_plan(first_look.run)
    ledger.seal(replace(plan, facts={**plan.facts, "limit": 5}), now=LATER)
    unplanned = ledger.open_run("job", night(2), now=LATER)
    sealed_run(ledger, job="other", window=night(3))
    ledger.settle(complete.run, state="complete", books={}, now=LATER)
    ledger.settle(unplanned.run, state="failed", books={}, now=LATER)

    assert ledger.jobs() == ["job", "other"]
    assert ledger.spans("job") == [
        RunSpan(night(0), "complete", NOW, is_whole=True, is_answered=True),
        RunSpan(night(1), "open", LATER, is_whole=False),
        RunSpan(night(2), "failed", LATER, is_whole=True),
    ]
    assert ledger.spans("nobody") == []


def test_a_window_says_what_its_plan_read_by_a_watermark(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", night(2), now=NOW)
    mark = {"column": "at", "from": night(0).start.isoformat(), "until": night(1).end.isoformat()}
    plan = round_plan(run.run)
    ledger.seal(replace(plan, facts={**plan.facts, "watermark": mark}), now=LATER)

    [span] = ledger.spans("job")

    assert span == RunSpan(night(2), "open", NOW, read=Window(night(0).start, night(1).end), read_by="at")
    assert span.covers == Window(night(0).start, night(2).end)


def test_an_incomplete_run_is_answered_once_the_runs_that_took_its_rows_are(ledger: SqlLedger) -> None:
    """Also where one of these left some of them again."""

    def leave(number: int, *, takes: str = "") -> str:
        run = ledger.open_run("job", night(number), now=NOW + timedelta(hours=number))
        ledger.seal(round_plan(run.run), pending=[PendingFile(takes, "p", 1)] if takes else (), now=NOW)
        ledger.seal(RoundPlan(run.run, 1, (), {}), leaves=PendingFile(run.run, "p", 1), now=NOW)
        ledger.settle(run.run, state="incomplete", books={}, now=NOW)
        return run.run

    def answered() -> list[bool]:
        return [span.is_answered for span in ledger.spans("job")]

    second = leave(1, takes=leave(0))
    assert answered() == [False, False]

    last = ledger.open_run("job", night(2), now=NOW + timedelta(hours=2))
    ledger.seal(round_plan(last.run), pending=[PendingFile(second, "p", 1)], now=NOW)
    assert answered() == [False, False, False]
    ledger.settle(last.run, state="complete", books={}, now=NOW)

    assert answered() == [True, True, True]


def test_events_are_found_by_what_they_are_about(ledger: SqlLedger) -> None:
    ledger.record_event("b", "missing", "watchdog", {"n": 1}, now=NOW)
    ledger.record_event("a", "missing_over", "watchdog", {"n": 2}, now=LATER)
    ledger.record_event("c", "skipped", "job", {}, now=NOW)

    assert ledger.events("watchdog") == [
        Event("b", "missing", "watchdog", {"n": 1}, NOW),
        Event("a", "missing_over", "watchdog", {"n": 2}, LATER),
    ]

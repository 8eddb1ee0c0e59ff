"""Many threads and processes at one ledger: whoever wins, the books are right and nothing is sent twice."""

import multiprocessing
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, wait
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

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
)

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import money
from nightbatch.adapters.ledger_types import usd_sum
from nightbatch.core.budget import Budget, BudgetKind
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.core.shard import ShardState
from nightbatch.core.window import Window
from nightbatch.errors import BudgetTaken, MustWait, NightbatchError, RunOverlaps, StaleAttempt
from nightbatch.ports import PendingFile

pytest_plugins = ["tests.servers"]

AGAIN = timedelta(minutes=10)
THREADS = 20


@pytest.fixture(params=["postgresql", "sqlite-file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite-file":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    ledger = SqlLedger.open_or_migrate(url)
    yield ledger
    ledger.close()


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Start all works at one instant, each in a thread; give what each returned, or the error of ours it raised."""
    start = threading.Barrier(len(works))

    def go(work: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return work()
        except NightbatchError as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(go, works))


def kinds(results: Sequence[Any]) -> Counter[type]:
    return Counter(type(result) for result in results if isinstance(result, NightbatchError))


def test_twenty_threads_do_not_break_one_budget(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=THREADS).run

    def begin(number: int) -> Any:
        return ledger.begin(intent(ShardRef(run, 0, number), budget_usd=USD("7.5")), now=NOW)

    results = at_once(*(lambda number=number: begin(number) for number in range(THREADS)))

    assert kinds(results) == {BudgetTaken: THREADS - 7}
    assert ledger.spent(run) == (7, 0)
    assert Counter(shard.attempts for shard in ledger.shards(run)) == {1: 7, 0: THREADS - 7}


def begin_some(url: str, run: str, numbers: Sequence[int]) -> list[str]:
    """What one process does: begin some shards, each in a thread."""
    ledger = SqlLedger.open_or_migrate(url)
    results = at_once(
        *(
            lambda number=number: ledger.begin(intent(ShardRef(run, 0, number), budget_usd=USD("7.5")), now=NOW)
            for number in numbers
        )
    )
    ledger.close()
    return [type(result).__name__ for result in results]


def test_three_processes_do_not_break_one_budget_nor_begin_a_shard_twice(url: str, ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=8).run

    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(begin_some, url, run, range(8)) for _ in range(3)]
        results = Counter(name for future in futures for name in future.result())

    assert results["Attempt"] == 7
    assert results["StaleAttempt"] == 7 * 2
    assert results["BudgetTaken"] == 3
    assert ledger.spent(run) == (7, 0)


ACCOUNT_USD, DAY_USD = USD("5"), USD("3.2")


def work_off(url: str, refs: Sequence[ShardRef], seed: int) -> Counter[str]:
    """What one process does: begin shards of all jobs in an order of its own, and let half of them end, until done."""
    ledger, chance, seen = SqlLedger.open_or_migrate(url), random.Random(seed), Counter[str]()
    budgets = (Budget(BudgetKind.JOB_DAY, DAY_USD), Budget(BudgetKind.ACCOUNT_MONTH, ACCOUNT_USD))
    for ref in chance.sample(list(refs), len(refs)) * 2:
        shard = ledger.shard(ref)
        wanted = intent(ref, expected_attempts=shard.attempts, budgets=budgets, reserve_usd=USD("0.7"))
        try:
            attempt = ledger.begin(wanted, now=NOW)
        except NightbatchError as error:
            seen[type(error).__name__] += 1
            continue
        seen["begun"] += 1
        if chance.random() < 0.5:
            ledger.end_attempt(attempt.attempt_id, "refused", reason="", retry_at=None, now=NOW)
            continue
        ledger.note_open(attempt.attempt_id, batch(f"batch-{attempt.attempt_id}"), now=NOW)
        ledger.note_stored(attempt.attempt_id, [], [], now=NOW)
        ledger.note_collected(ref, verdicts_name="v", counts={}, cost=Cost(batch_usd=USD("0.3")), now=NOW)
    ledger.close()
    return seen


def test_processes_of_several_jobs_never_break_the_account_s_nor_a_job_s_budget(url: str, ledger: SqlLedger) -> None:
    """Somebody looks at the books all the while: at no instant do they stand above a budget."""
    runs = [
        sealed_run(ledger, job=f"job-{job}", window=night(day), shards=6).run for job in range(3) for day in range(2)
    ]
    refs = [ShardRef(run, 0, number) for run in runs for number in range(6)]
    looks: list[Counter[str]] = []

    def look() -> None:
        with ledger._database.read() as connection:
            sums = connection.execute(sa.select(money.c.job, usd_sum(money.c.usd)).group_by(money.c.job))
            looks.append(Counter(dict(map(tuple, sums))))

    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(work_off, url, refs, seed) for seed in range(4)]
        while not all(future.done() for future in futures):
            look()
            wait(futures, timeout=0.02)
    look()

    seen = sum((future.result() for future in futures), Counter[str]())
    assert max(max(jobs.values(), default=0) for jobs in looks) <= DAY_USD
    assert max(jobs.total() for jobs in looks) <= ACCOUNT_USD
    # The wall was reached, and all that could be spent below it was.
    assert seen["BudgetTaken"] + seen["BudgetExceeded"] > 0
    assert looks[-1].total() > ACCOUNT_USD - USD("0.7")
    assert sum(ledger.spent(run)[0] for run in runs) == 0


def test_one_of_twenty_begins_a_shard(ledger: SqlLedger) -> None:
    ref = ShardRef(sealed_run(ledger).run, 0, 0)

    results = at_once(*[lambda: ledger.begin(intent(ref), now=NOW)] * THREADS)

    assert kinds(results) == {StaleAttempt: THREADS - 1}
    assert ledger.spent(ref.run) == (1, 0)


@pytest.mark.parametrize("is_known", [False, True])
def test_one_of_many_overlapping_windows_is_opened(ledger: SqlLedger, is_known: bool) -> None:
    if is_known:
        ledger.open_run("job", night(-5), now=NOW - timedelta(days=1))

    def open_run(hour: int) -> Any:
        shift = timedelta(hours=hour)
        return ledger.open_run("job", Window(NIGHT.start + shift, NIGHT.end + shift), now=NOW)

    results = at_once(*(partial(open_run, hour) for hour in range(12)))

    assert kinds(results) == {RunOverlaps: 11}
    winner = ledger.runs()[0]
    assert {result.other_run for result in results if isinstance(result, RunOverlaps)} == {winner.run}


def test_a_window_opened_by_many_is_one_run(ledger: SqlLedger) -> None:
    runs = at_once(*[lambda: ledger.open_run("job", NIGHT, now=NOW)] * 12)
    assert set(map(repr, runs)) == {repr(ledger.run(runs[0].run))}

    ledger.settle(runs[0].run, state="incomplete", books={}, now=NOW)
    again = at_once(*[lambda: ledger.open_run("job", NIGHT, now=NOW)] * 12)

    assert {run.generation for run in again} == {2}


def test_the_first_seal_holds(ledger: SqlLedger) -> None:
    run = ledger.open_run("job", NIGHT, now=NOW).run

    plans = at_once(
        *(lambda shards=shards: ledger.seal(round_plan(run, shards=shards), now=NOW) for shards in range(1, 11))
    )

    assert all(plan == plans[0] for plan in plans)
    assert [shard.plan for shard in ledger.shards(run)] == list(plans[0].shards)


def test_a_pending_file_is_taken_once(ledger: SqlLedger) -> None:
    first = ledger.open_run("job", NIGHT, now=NOW).run
    files = [PendingFile(first, f"{number}.parquet", 1) for number in range(10)]
    for number, file in enumerate(files):
        ledger.seal(round_plan(first, round_=number), leaves=file, now=NOW)
    runs = [ledger.open_run("job", night(day), now=NOW).run for day in range(1, 9)]

    results = at_once(
        *(
            # In both orders, so that two could hold some files each and wait for the other's.
            lambda number=number, run=run: ledger.seal(round_plan(run), pending=files[:: 1 - number % 2 * 2], now=NOW)
            for number, run in enumerate(runs)
        )
    )

    assert kinds(results) == {StaleAttempt: 7}
    assert len([run for run in runs if ledger.sealed(run, 0)]) == 1


def test_a_batch_that_exists_wins_over_its_absence(ledger: SqlLedger) -> None:
    """Whoever is first: a batch that was made is used, and its worst case is reserved."""
    run = sealed_run(ledger, shards=10).run
    attempts = [ledger.begin(intent(ShardRef(run, 0, number)), now=NOW) for number in range(10)]

    def found(attempt_id: int) -> Any:
        return ledger.note_open(attempt_id, batch(f"batch-{attempt_id}"), now=NOW)

    def absent(attempt_id: int) -> Any:
        return ledger.end_attempt(attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)

    ids = [attempt.attempt_id for attempt in attempts]
    results = at_once(
        *(lambda step=step, attempt_id=attempt_id: step(attempt_id) for attempt_id in ids for step in (found, absent))
    )

    assert [result for result in results[::2] if not isinstance(result, bool)] == []
    assert {shard.state for shard in ledger.shards(run)} == {ShardState.OPEN}
    assert ledger.spent(run) == (10, 0)


def test_a_batch_that_turns_up_and_a_new_attempt_exclude_each_other(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=10).run
    refs = [ShardRef(run, 0, number) for number in range(10)]
    ids = [ledger.begin(intent(ref), now=NOW).attempt_id for ref in refs]
    for attempt_id in ids:
        ledger.end_attempt(attempt_id, "absent", reason="not listed", retry_at=None, now=NOW)

    def found(number: int) -> Any:
        return ledger.note_open(ids[number], batch(f"batch-{number}"), now=NOW)

    def again(number: int) -> Any:
        return ledger.begin(intent(refs[number], expected_attempts=1), now=NOW)

    results = at_once(*(lambda step=step, n=n: step(n) for n in range(10) for step in (found, again)))

    for number, shard in enumerate(ledger.shards(run)):
        was_late, was_begun = (not isinstance(it, StaleAttempt) for it in results[number * 2 : number * 2 + 2])
        assert was_late != was_begun
        assert shard.state is (ShardState.OPEN if was_late else ShardState.SUBMITTING)
    assert ledger.spent(run) == (10, 0)


def test_one_of_many_equal_shards_is_sent_to_an_account(ledger: SqlLedger) -> None:
    runs = [sealed_run(ledger, job=f"job-{number}").run for number in range(10)]

    results = at_once(
        *(lambda run=run: ledger.begin(intent(ShardRef(run, 0, 0), distinct_rows=True), now=NOW) for run in runs)
    )

    assert kinds(results) == {MustWait: 9}
    assert sum(sum(ledger.spent(run)) for run in runs) == 1


def test_a_batch_id_has_one_owner(ledger: SqlLedger) -> None:
    runs = [sealed_run(ledger, job=f"job-{number}").run for number in range(10)]
    ids = [ledger.begin(intent(ShardRef(run, 0, 0)), now=NOW).attempt_id for run in runs]

    results = at_once(*(partial(ledger.note_open, attempt_id, batch(), now=NOW) for attempt_id in ids))

    assert kinds(results) == {StaleAttempt: 9}
    states = Counter(ledger.shard(ShardRef(run, 0, 0)).state for run in runs)
    assert states == {ShardState.OPEN: 1, ShardState.SUBMITTING: 9}


def test_a_cost_is_booked_once(ledger: SqlLedger) -> None:
    run = sealed_run(ledger).run
    attempt = opened(ledger, ShardRef(run, 0, 0))
    ledger.note_stored(attempt.attempt_id, [], [], now=NOW)

    def collect() -> None:
        ledger.note_collected(ShardRef(run, 0, 0), verdicts_name="v", counts={}, cost=COST, now=NOW)

    assert at_once(*[collect] * 10) == [None] * 10
    assert ledger.spent(run) == (0, COST.batch_usd)


def test_one_of_many_delivers(ledger: SqlLedger) -> None:
    ledger.record_event("e1", "late", "run", {}, now=NOW)

    first = at_once(*[lambda: ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW)] * THREADS)
    second = at_once(
        *[lambda: ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW + timedelta(minutes=10))] * THREADS
    )
    third = at_once(
        *[lambda: ledger.may_deliver("e1", "mail", again_after=AGAIN, now=NOW + timedelta(days=1))] * THREADS
    )

    assert [sum(claims) for claims in (first, second, third)] == [1, 1, 0]


def test_whole_runs_side_by_side_add_up(ledger: SqlLedger) -> None:
    """All steps of several runs at once: no deadlock, and each run's books are its own."""
    runs = [sealed_run(ledger, job=f"job-{number}", shards=6).run for number in range(6)]

    def go(run: str) -> None:
        for number in range(6):
            collected(ledger, ShardRef(run, 0, number), f"{run}-{number}")
            ledger.note_loaded(ShardRef(run, 0, number), merged=1, now=NOW)
        ledger.settle(run, state="complete", books={}, now=NOW)

    assert at_once(*(lambda run=run: go(run) for run in runs)) == [None] * 6
    assert {ledger.spent(run) for run in runs} == {(0, 6 * COST.batch_usd)}
    assert {run.state for run in ledger.runs()} == {"complete"}

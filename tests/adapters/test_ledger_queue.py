"""Places in a vendor's queue, on every database: shared by all jobs of an account, taken with the intent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.ledger_builders import NOW, USD, batch, intent, sealed_run

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.batch import BatchStatus
from nightbatch.core.ids import ShardRef
from nightbatch.core.queue import Ask, Kind, Limit, QueueRules
from nightbatch.core.shard import ShardState
from nightbatch.errors import BudgetExceeded, MustWait, QueueTooSmall
from nightbatch.ports import Attempt, Intent

pytest_plugins = ["tests.servers"]

SOON = timedelta(seconds=30)
RULES = QueueRules((Limit(Kind.TOKENS, 1_000, "model-a"), Limit(Kind.BATCHES, 20)))
WAIT = timedelta(minutes=5)


@pytest.fixture(params=["postgresql", "sqlite-file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    ledger = SqlLedger.open_or_migrate(url)
    yield ledger
    ledger.close()


def job_with(ledger: SqlLedger, job: str, *, shards: int = 1, tokens: int = 400, **changes: Any) -> list[ShardRef]:
    """Seal a run whose shards hold so many tokens each."""
    run = sealed_run(ledger, job=job, shards=shards, queue_tokens=tokens, **changes).run
    return [ShardRef(run, 0, number) for number in range(shards)]


def asking(ref: ShardRef, *, rules: QueueRules = RULES, priority: int = 0, **changes: Any) -> Intent:
    """Give the intent of a shard that asks for a place."""
    return intent(ref, ask=Ask(rules, priority, SOON, timedelta(minutes=5)), **changes)


def told(ledger: SqlLedger, one: Intent, *, after: timedelta = timedelta(0)) -> MustWait:
    """Let a shard ask in vain, and give what it was told."""
    with pytest.raises(MustWait) as wait:
        ledger.begin(one, now=NOW + after)
    return wait.value


def test_a_shard_waits_in_line_and_is_told_who_is_ahead_and_how_full_the_queue_is(ledger: SqlLedger) -> None:
    first, second = job_with(ledger, "one", shards=2)
    others = job_with(ledger, "two", shards=2)
    ledger.begin(asking(first), now=NOW)
    ledger.begin(asking(others[0]), now=NOW)

    wait = told(ledger, asking(second))
    behind = told(ledger, asking(others[1]), after=SOON)

    full = "in the queue of openai model-a: 800 of 1,000 tokens wait there, and this shard needs 400"
    assert (wait.reason, wait.until) == (f"waits for a place {full}", NOW + SOON)
    assert (behind.reason, behind.until) == (f"1 shard is ahead (one) {full}", NOW + 3.6 * SOON)
    assert ledger.shard(second).state is ShardState.SEALED
    assert ledger.spent(second.run) == (1, 0)  # of the first alone
    assert [(one.ref, one.job, one.tokens, one.reason) for one in ledger.queue()] == [
        (second, "one", 400, wait.reason),
        (others[1], "two", 400, behind.reason),
    ]


def test_another_account_and_another_model_have_queues_of_their_own(ledger: SqlLedger) -> None:
    first, second = job_with(ledger, "one", shards=2, tokens=900)
    (other,) = job_with(ledger, "two", tokens=900, model="model-b")
    ledger.begin(asking(first), now=NOW)

    ledger.begin(asking(other), now=NOW)
    ledger.begin(asking(second, account="org-2"), now=NOW)

    assert ledger.queue() == []


def refused(ledger: SqlLedger, attempt: Attempt) -> None:
    ledger.end_attempt(attempt.attempt_id, "refused", reason="no", retry_at=None, now=NOW)


def proved_absent(ledger: SqlLedger, attempt: Attempt) -> None:
    ledger.note_sending(attempt.attempt_id)
    ledger.end_attempt(attempt.attempt_id, "absent", reason="a complete listing", retry_at=None, now=NOW)


def ended(ledger: SqlLedger, attempt: Attempt) -> None:
    ledger.note_sending(attempt.attempt_id)
    ledger.note_open(attempt.attempt_id, batch(), now=NOW)
    ledger.note_stored(attempt.attempt_id, ["output.jsonl"], ["ab" * 32], now=NOW)


@pytest.mark.parametrize("free", [refused, proved_absent, ended])
def test_a_terminal_state_or_proven_absence_gives_a_place_back(ledger: SqlLedger, free: Any) -> None:
    (first,) = job_with(ledger, "one", tokens=900)
    (second,) = job_with(ledger, "two", tokens=900)
    attempt = ledger.begin(asking(first), now=NOW)
    told(ledger, asking(second))

    free(ledger, attempt)

    assert ledger.begin(asking(second), now=NOW + SOON).number == 1
    assert ledger.queue() == []


def test_nothing_else_gives_a_place_back(ledger: SqlLedger) -> None:
    """Not time, not a run that was settled, not a batch that the vendor does not know for a while."""
    (first,) = job_with(ledger, "one", tokens=900)
    (second,) = job_with(ledger, "two", tokens=900)
    attempt = ledger.begin(asking(first), now=NOW)
    ledger.note_sending(attempt.attempt_id)
    ledger.note_open(attempt.attempt_id, batch(), now=NOW)
    ledger.note_seen(attempt.attempt_id, batch(status=BatchStatus.NOT_FOUND, vendor_status="404"), now=NOW)
    ledger.settle(first.run, state="failed", books={}, now=NOW)

    told(ledger, asking(second), after=timedelta(days=9))


def test_a_higher_priority_goes_first_and_equal_ones_by_share_and_turn(ledger: SqlLedger) -> None:
    holder = ledger.begin(asking(job_with(ledger, "holder", tokens=900)[0]), now=NOW)
    low, high = job_with(ledger, "low", shards=2), job_with(ledger, "high", shards=2)
    fair = job_with(ledger, "fair", shards=2)
    line = [
        *(asking(ref) for ref in low),
        *(asking(ref) for ref in fair),
        *(asking(ref, priority=5) for ref in high),
    ]
    for one in line:
        told(ledger, one)
    refused(ledger, holder)

    # Each goes alone, as if the queue had room for one: the holder's tokens are those of the one before.
    order = []
    while line:
        for one in list(line):
            narrow = replace(one, ask=replace(one.ask or Ask(RULES), rules=QueueRules((Limit(Kind.BATCHES, 1),))))
            try:
                attempt = ledger.begin(narrow, now=NOW + SOON)
            except MustWait:
                continue
            order.append(ledger.run(one.ref.run).job)
            line.remove(one)
            refused(ledger, attempt)

    assert order[:2] == ["high", "high"]
    assert order[2:] in (["low", "fair", "low", "fair"], ["fair", "low", "fair", "low"])


def test_a_waiter_that_asks_no_more_is_passed_over_and_keeps_its_place_when_it_does(ledger: SqlLedger) -> None:
    (first,) = job_with(ledger, "one", tokens=900)
    (dead,) = job_with(ledger, "dead", tokens=900)
    (small,) = job_with(ledger, "small", tokens=50)
    attempt = ledger.begin(asking(first), now=NOW)
    told(ledger, asking(dead))
    assert "1 shard is ahead (dead)" in told(ledger, asking(small), after=9 * SOON).reason

    ledger.begin(asking(small), now=NOW + 10 * SOON)

    told(ledger, asking(dead), after=timedelta(hours=1))
    assert [(one.ref, one.since_utc) for one in ledger.queue()] == [(dead, NOW)]
    refused(ledger, attempt)
    ledger.begin(asking(dead), now=NOW + timedelta(hours=1))


def test_a_process_that_is_busy_with_one_shard_vouches_for_the_others(ledger: SqlLedger) -> None:
    (first,) = job_with(ledger, "one", tokens=900)
    waiting = job_with(ledger, "busy", shards=2, tokens=900)
    (small,) = job_with(ledger, "small", tokens=50)
    ledger.begin(asking(first), now=NOW)
    told(ledger, asking(waiting[0]))

    ledger.stay_in_line(waiting, now=NOW + 5 * SOON)

    assert "1 shard is ahead (busy)" in told(ledger, asking(small), after=14 * SOON).reason
    ledger.begin(asking(small), now=NOW + 15 * SOON)


def test_a_shard_that_is_larger_than_the_queue_is_told_and_does_not_wait_for_ever(ledger: SqlLedger) -> None:
    (large,) = job_with(ledger, "large", tokens=1_001)

    with pytest.raises(QueueTooSmall, match=r"1,001 tokens in the queue of openai model-a, where at most 1,000"):
        ledger.begin(asking(large), now=NOW)

    assert ledger.queue() == []
    ledger.hold(large, "queue_too_small", now=NOW)


def test_a_shard_that_is_held_waits_in_no_line(ledger: SqlLedger) -> None:
    (first,) = job_with(ledger, "one", tokens=900)
    (second,) = job_with(ledger, "two", tokens=900)
    ledger.begin(asking(first), now=NOW)
    told(ledger, asking(second))

    with pytest.raises(BudgetExceeded):
        ledger.begin(asking(second, budget_usd=USD("0.5")), now=NOW)
    ledger.hold(second, "budget", now=NOW)

    assert ledger.queue() == []


def test_batches_begun_within_an_hour_are_limited(ledger: SqlLedger) -> None:
    rules = QueueRules((Limit(Kind.CREATIONS, 2),))
    refs = job_with(ledger, "one", shards=3)
    for ref in refs[:2]:
        refused(ledger, ledger.begin(asking(ref, rules=rules), now=NOW))  # a refused one was a call, too

    wait = told(ledger, asking(refs[2], rules=rules), after=timedelta(minutes=59))

    assert "2 of 2 batches in an hour" in wait.reason
    ledger.begin(asking(refs[2], rules=rules), now=NOW + timedelta(minutes=61))


# --- what refusals teach


UNLIMITED = QueueRules()


def sent(ledger: SqlLedger, ref: ShardRef, batch_id: str, **changes: Any) -> Attempt:
    attempt = ledger.begin(asking(ref, **({"rules": UNLIMITED} | changes)), now=NOW)
    ledger.note_sending(attempt.attempt_id)
    ledger.note_open(attempt.attempt_id, batch(batch_id), now=NOW)
    return attempt


def test_a_refusal_teaches_what_may_wait_and_the_shard_waits_its_turn(ledger: SqlLedger) -> None:
    refs = job_with(ledger, "one", shards=4)
    attempts = [sent(ledger, ref, ref.name) for ref in refs[:3]]

    for _ in range(2):  # a second process that says the same changes nothing
        ledger.end_full(attempts[2].attempt_id, UNLIMITED, reason="full", wait=WAIT, now=NOW)

    shard = ledger.shard(refs[2])
    assert (shard.state, shard.attempts, shard.not_before_utc) == (ShardState.SEALED, 1, None)
    wait = told(ledger, asking(refs[2], rules=UNLIMITED, expected_attempts=1))
    assert "model-a: 800 of 800 tokens, as its last refusal taught, wait there" in wait.reason
    assert "1 shard is ahead" in told(ledger, asking(refs[3], rules=UNLIMITED)).reason
    ledger.note_stored(attempts[0].attempt_id, [], [], now=NOW)
    again = ledger.begin(asking(refs[2], rules=UNLIMITED, expected_attempts=1), now=NOW)
    assert again.number == 2
    told(ledger, asking(refs[3], rules=UNLIMITED), after=timedelta(hours=23))
    ledger.begin(asking(refs[3], rules=UNLIMITED), now=NOW + timedelta(hours=24))  # it has doubled


def test_a_refusal_with_nothing_of_ours_there_closes_the_queue_for_a_while(ledger: SqlLedger) -> None:
    """Somebody else's work fills it; what was learned before measured that, and is forgotten."""
    first, second, third = job_with(ledger, "one", shards=3)
    attempts = [sent(ledger, first, "a"), sent(ledger, second, "b")]
    for attempt in attempts:
        ledger.end_full(attempt.attempt_id, UNLIMITED, reason="full", wait=WAIT, now=NOW)

    assert ledger.shard(second).not_before_utc == NOW + WAIT
    for ref, seen in ((first, 1), (third, 0)):
        wait = told(ledger, asking(ref, rules=UNLIMITED, expected_attempts=seen), after=SOON)
        assert wait.until == NOW + WAIT
        assert wait.reason.startswith("openai model-a says that its queue is full, with nothing of ours in it")
    for ref, seen in ((first, 1), (second, 1), (third, 0)):
        ledger.begin(asking(ref, rules=UNLIMITED, expected_attempts=seen), now=NOW + WAIT)


def test_where_a_vendor_counts_requests_of_all_models_that_is_learned(ledger: SqlLedger) -> None:
    rules = QueueRules((), Kind.ROWS, full_by_model=False)
    (first,), (second,) = job_with(ledger, "one"), job_with(ledger, "two", model="model-b")
    sent(ledger, first, "a", rules=rules)
    ledger.end_full(sent(ledger, second, "b", rules=rules).attempt_id, rules, reason="full", wait=WAIT, now=NOW)

    wait = told(ledger, asking(second, rules=rules, expected_attempts=1))

    assert "in the queue of openai: 100 of 100 requests, as its last refusal taught" in wait.reason


def test_a_learned_limit_only_falls_within_its_day(ledger: SqlLedger) -> None:
    refs = job_with(ledger, "one", shards=6)
    attempts = [sent(ledger, ref, ref.name) for ref in refs]
    for attempt in attempts[:2]:
        ledger.end_full(attempt.attempt_id, UNLIMITED, reason="full", wait=WAIT, now=NOW)

    assert "of 1,600 tokens" in told(ledger, asking(refs[0], rules=UNLIMITED, expected_attempts=1)).reason


# --- races


def test_twenty_threads_never_hold_more_than_the_queue_takes(ledger: SqlLedger) -> None:
    refs = job_with(ledger, "one", shards=20, tokens=300)
    start = threading.Barrier(len(refs))

    def begin(ref: ShardRef) -> bool:
        start.wait()
        try:
            ledger.begin(asking(ref), now=NOW)
        except MustWait:
            return False
        return True

    with ThreadPoolExecutor(len(refs)) as pool:
        went = list(pool.map(begin, refs))

    assert sum(went) == 3
    assert len(ledger.queue()) == 17


def test_who_must_wait_for_a_twin_keeps_its_place_in_line(ledger: SqlLedger) -> None:
    """At a vendor without labels two shards of one size are not sent at once; the second one's turn is not lost."""
    (first,), (second,) = job_with(ledger, "one"), job_with(ledger, "two")
    ledger.begin(asking(first, distinct_rows=True), now=NOW)

    wait = told(ledger, asking(second, distinct_rows=True))

    assert "of 100 rows is being sent" in wait.reason
    assert [(one.ref, one.reason) for one in ledger.queue()] == [(second, wait.reason)]

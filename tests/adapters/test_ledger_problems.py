"""What keeps a shard from going on, and for how long a lost batch was looked for, on both kinds of database."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.adapters.ledger_builders import NOW, batch, intent, opened, sealed_run

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.batch import BatchStatus
from nightbatch.core.ids import ShardRef
from nightbatch.core.shard import ShardState

pytest_plugins = ["tests.servers"]

LATER = NOW + timedelta(minutes=1)


@pytest.fixture(params=["postgresql", "sqlite"])
def ledger(request: pytest.FixtureRequest) -> Iterator[SqlLedger]:
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
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


def test_trouble_with_an_account_is_known_to_all_of_its_run_until_somebody_runs_it_again(
    ledger: SqlLedger, run: str
) -> None:
    first, second, third = (shard.plan.ref for shard in ledger.shards(run))
    ledger.hold(first, "account_trouble", problem="no credit", now=NOW)
    ledger.hold(second, "budget", problem="no money", now=NOW)
    ledger.note_problem(third, "BatchVanished", "gone")

    plan = ledger.shard(first).plan
    assert ledger.account_trouble(run, plan.provider, plan.connection) == "no credit"
    assert ledger.account_trouble(run, plan.provider, "another") == ""
    assert ledger.account_trouble("another/run", plan.provider, plan.connection) == ""

    ledger.resume(run, now=LATER)

    assert ledger.account_trouble(run, plan.provider, plan.connection) == ""
    assert [(shard.state, shard.problem) for shard in ledger.shards(run)] == [
        (ShardState.SEALED, ""),
        (ShardState.HELD, "no money"),
        (ShardState.SEALED, "gone"),
    ]


def test_a_shard_held_with_its_attempt_keeps_the_reason_as_its_problem(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)

    ledger.end_attempt(
        attempt.attempt_id, "refused", reason="no credit", retry_at=None, hold="account_trouble", now=NOW
    )

    shard = ledger.shard(ref)
    assert (shard.problem, shard.held_reason) == ("no credit", "account_trouble")
    assert ledger.account_trouble(ref.run, shard.plan.provider, shard.plan.connection) == "no credit"


def test_a_shard_that_goes_on_has_no_problem_any_more(ledger: SqlLedger, ref: ShardRef) -> None:
    ledger.note_problem(ref, "AccountTrouble", "x" * 600)
    assert len(ledger.shard(ref).problem) == 500

    ledger.begin(intent(ref), now=NOW)

    assert ledger.shard(ref).problem == ""


def test_the_time_that_a_lost_batch_was_looked_for_is_added_up_look_by_look(ledger: SqlLedger, ref: ShardRef) -> None:
    attempt = ledger.begin(intent(ref), now=NOW)
    at = [0, 30, 60, 3_660, 3_600, 3_601.5]

    found = [
        ledger.note_absence(
            attempt.attempt_id, at_most=timedelta(seconds=40), now=NOW + timedelta(seconds=seconds)
        ).total_seconds()
        for seconds in at
    ]

    # A clock that jumps adds no more than one look, and one that goes back takes nothing away.
    assert found == [0, 30, 60, 100, 100, 101.5]


def test_a_404_is_remembered_since_the_first_and_forgotten_with_the_next_sight(
    ledger: SqlLedger, ref: ShardRef
) -> None:
    attempt = opened(ledger, ref)
    gone = replace(batch(), status=BatchStatus.NOT_FOUND)
    for now in (NOW, LATER):
        ledger.note_seen(attempt.attempt_id, replace(gone, batch_id=attempt.batch_id or ""), now=now)
    assert ledger.shard(ref).current.gone_since_utc == NOW  # type: ignore[union-attr]

    ledger.note_seen(attempt.attempt_id, batch(), now=LATER)

    assert ledger.shard(ref).current.gone_since_utc is None  # type: ignore[union-attr]

"""What was billed, as reports and the next estimate see it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from tests.adapters.ledger_builders import COST, NOW, collected, night, opened, sealed_run

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.experience import Experience
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost

pytest_plugins = ["tests.servers"]

DAY = NOW.date()


@pytest.fixture(params=["postgresql", "sqlite-file"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlLedger]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    ledger = SqlLedger.open_or_migrate(url)
    yield ledger
    ledger.close()


def billed(ledger: SqlLedger, number: int, counts: dict[str, int], *, job: str = "job", **plan: object) -> str:
    """Bring a run of one shard to its bill."""
    run = sealed_run(ledger, job=job, window=night(number), **plan).run
    ref = ShardRef(run, 0, 0)
    attempt = opened(ledger, ref, f"batch-{job}-{number}")
    ledger.note_stored(attempt.attempt_id, [], [], now=NOW)
    ledger.note_collected(ref, verdicts_name="v", counts=counts, cost=COST, now=NOW + timedelta(minutes=number))
    return run


def test_whole_answers_teach_and_rows_without_a_bill_do_not(ledger: SqlLedger) -> None:
    assert ledger.experience("job", "openai", "model-a") == Experience()
    billed(ledger, 0, {"good": 98, "change:truncated": 2}, size_bytes=4_000)
    billed(ledger, 1, {"good": 50, "again:expired": 50}, size_bytes=4_000)

    found = ledger.experience("job", "openai", "model-a")

    usage = COST.usage
    assert found == Experience(100, usage.output_tokens, 4_000, usage.input_tokens)
    assert ledger.experience("job", "openai", "another") == Experience()


def test_a_new_job_learns_bytes_a_token_from_others_and_no_length(ledger: SqlLedger) -> None:
    billed(ledger, 0, {"good": 100}, job="old", size_bytes=4_000)

    assert ledger.experience("new", "openai", "model-a") == Experience(0, 0, 4_000, COST.usage.input_tokens)


def test_past_estimates_are_told_beside_their_bills_newest_first(ledger: SqlLedger) -> None:
    runs = [billed(ledger, number, {"good": 100}) for number in range(3)]

    past = ledger.past_estimates("job", limit=2)

    assert {it.run for it in past} <= set(runs)
    assert [(str(it.expected_usd), str(it.worst_usd), it.actual_usd) for it in past] == [
        ("0.100000000", "1.000000001", COST.batch_usd)
    ] * 2


def test_costs_are_told_by_day_job_lane_and_prompt(ledger: SqlLedger) -> None:
    billed(ledger, 0, {"good": 100}, prompt_version="v1")
    billed(ledger, 1, {"good": 100}, prompt_version="v1")
    billed(ledger, 2, {"good": 100}, prompt_version="v2", connection="openai_eu")
    billed(ledger, 0, {"good": 100}, job="other")
    collected(ledger, ShardRef(sealed_run(ledger, job="third").run, 0, 0), "b")

    lines = ledger.costs(job="job")

    assert [(line.day, line.connection, line.mode, line.prompt_version, line.rows) for line in lines] == [
        (DAY, "openai_default", "batch", "v1", 200),
        (DAY, "openai_eu", "batch", "v2", 100),
    ]
    two = COST + COST
    assert lines[0].cost == replace(two, usage=two.usage)
    assert isinstance(lines[1].cost, Cost)
    assert {line.job for line in ledger.costs()} == {"job", "other", "third"}
    assert ledger.costs(since=DAY, until=DAY + timedelta(days=1), job="job") == lines
    assert ledger.costs(until=DAY) == ledger.costs(since=date(2030, 1, 1)) == []

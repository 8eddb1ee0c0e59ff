"""The housekeeping Dag inside Airflow: it closes what dead runs left, and is red only when a person is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from airflow.sdk import DAG

from nightbatch import flow
from nightbatch.adapters.ledger_tables import attempts, rounds, runs, shards
from nightbatch.orchestration.connections import task_ports
from nightbatch.orchestration.housekeeping import housekeeping_dag
from tests.orchestration.night import IMPATIENT, NIGHT, Night, known, window

RECORDS = [(f"k{number}", f"text {number}", "2026-11-20") for number in range(5)]
TIMES = (
    (runs, "started_utc"),
    (runs, "settled_utc"),
    (rounds, "sealed_utc"),
    (shards, "state_utc"),
    (attempts, "intent_utc"),
    (attempts, "last_seen_utc"),
    (attempts, "ended_utc"),
    (attempts, "gone_since_utc"),
)


def dag(**changes: Any) -> DAG:
    return known(housekeeping_dag(default_args=IMPATIENT, **changes))


def age(night: Night, span: timedelta) -> None:
    """Let all that the ledger knows be older than it is."""
    with night.ledger._database.write() as connection:
        for table, name in TIMES:
            connection.execute(
                sa.update(table).where(table.c[name].is_not(None)).values({name: datetime.now(UTC) - span})
            )


def dead_run(night: Night) -> str:
    """Leave a run whose process died when its batches were made."""
    job = night.job()
    ports = task_ports(job)
    plan = flow.prepare(ports, job, window(NIGHT))
    for shard in plan.shards:
        flow.advance(ports, job, shard.ref)
    return plan.run


def test_a_dead_run_is_collected_and_closed_and_its_files_go_after_the_retention(night: Night) -> None:
    night.fill(RECORDS)
    run = dead_run(night)
    ended = night.run(dag(), {})
    assert (ended.state, ended.xcoms["tidy", "return_value"]) == ("success", {"closed": 0, "runs": 0, "files": 0})

    age(night, timedelta(hours=7))
    ended = night.run(dag(), {})

    assert (ended.state, ended.xcoms["tidy", "return_value"]["closed"]) == ("success", 1)
    assert night.ledger.run(run).state == "complete"
    assert len(night.answers()) == 5
    age(night, timedelta(days=31))
    assert night.run(dag(), {"dry_run": True}).xcoms["tidy", "return_value"]["runs"] == 1
    assert any((night.folder / "staging").rglob("*.jsonl"))
    assert night.run(dag(), {}).xcoms["tidy", "return_value"]["runs"] == 1
    assert not any((night.folder / "staging").rglob("*.jsonl"))

    # Clearing the night itself stops with a sentence, and asks nobody.
    again = night.run(night.dag())
    assert (again.state, again.ran) == ("failed", {"prepare", "settle"})
    assert len(night.batches()) == 2


def test_a_batch_that_vanished_makes_it_red(night: Night) -> None:
    night.fill(RECORDS)
    run = dead_run(night)
    with night.ledger._database.write() as connection:
        connection.execute(sa.update(attempts).values(batch_id=attempts.c.batch_id + "-gone"))
    age(night, timedelta(hours=7))
    first = night.run(dag(), {})
    age(night, timedelta(hours=14))
    ended = night.run(dag(), {}) if first.state == "success" else first

    assert ended.state == "failed"
    assert night.ledger.run(run).state == "open"

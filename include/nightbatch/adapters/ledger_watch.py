"""What the watchdog reads: which windows of a job were run, and what was said about it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_tables import jobs, pending, rounds, runs
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.core.gaps import RunSpan
from nightbatch.core.window import Window


class Watching:
    """The methods of the ledger that the watchdog asks; see the port."""

    _database: Database

    def jobs(self) -> list[str]:
        """List the jobs that have a run, sorted."""
        with self._database.read() as connection:
            return list(connection.execute(sa.select(jobs.c.job).order_by(jobs.c.job)).scalars())

    def spans(self, job: str) -> list[RunSpan]:
        """List the windows of a job's runs, and what became of them, oldest start first."""
        with self._database.read() as connection:
            return list_spans(connection, job)


def list_spans(connection: sa.Connection, job: str) -> list[RunSpan]:
    """List the windows of a job's runs and what became of them, oldest start first; small rows, no plan is read."""
    statement = (
        sa.select(
            runs.c.run,
            runs.c.window_start_utc,
            runs.c.window_end_utc,
            runs.c.state,
            runs.c.started_utc,
            rounds.c.facts["limit"].as_integer().label("first_look"),
            *(rounds.c.facts["watermark"][name].as_string().label(name) for name in ("from", "until", "column")),
        )
        .select_from(runs.outerjoin(rounds, sa.and_(rounds.c.run == runs.c.run, rounds.c.round == 0)))
        .where(runs.c.job == job)
        .order_by(runs.c.started_utc, runs.c.run)
    )
    rows = connection.execute(statement).all()
    answered = _answered(connection, job, {row.run: row.state for row in rows})
    return [
        RunSpan(
            Window(row.window_start_utc, row.window_end_utc),
            row.state,
            row.started_utc,
            is_whole=row.first_look is None,
            is_answered=row.run in answered,
            read=_read(row),
            read_by=row.column or "",
        )
        for row in rows
    ]


def _read(row: AnyRow) -> Window | None:
    start, until = row._mapping["from"], row.until
    return Window(datetime.fromisoformat(start), datetime.fromisoformat(until)) if start and until else None


def _answered(connection: sa.Connection, job: str, states: dict[str, str]) -> set[str]:
    """Name the runs whose rows have their answers: also the incomplete ones whose rows others took and answered."""
    takers = defaultdict[str, set[str]](set)
    statement = sa.select(pending.c.run, pending.c.taken_by_run).where(pending.c.job == job)
    for run, taker in connection.execute(statement):
        takers[run].add(taker or "")
    answered = {run for run, state in states.items() if state == "complete"}
    left = [run for run, state in states.items() if state == "incomplete" and takers[run]]
    # A taker may have left rows itself, which a later one took; it was started later, so newest first is enough.
    for run in reversed(left):
        if takers[run] <= answered:
            answered.add(run)
    return answered

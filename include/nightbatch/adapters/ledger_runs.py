"""Runs, sealed rounds and pending files: what is done about them inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, get_type_hints

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import insert_absent
from nightbatch.adapters.ledger_shards import plan_of, plan_values
from nightbatch.adapters.ledger_tables import jobs, pending, rounds, runs, shards
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.core.ids import ShardRef, run_id
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.core.window import Window
from nightbatch.errors import RunOverlaps, StaleAttempt
from nightbatch.ports import PendingFile, RoundPlan, Run

STATES: tuple[str, ...] = get_type_hints(Run)["state"].__args__

_RUN = sa.select(runs, rounds.c.facts.label("plan")).select_from(
    runs.outerjoin(rounds, sa.and_(rounds.c.run == runs.c.run, rounds.c.round == 0))
)
_MAY_BE_TAKEN = (ShardState.COLLECTED, ShardState.LOADED, ShardState.HELD)
"""Shards that will not be sent, or answered, any more: what a later round sends again cannot come back here."""


def open_run(
    connection: sa.Connection,
    job: str,
    window: Window,
    *,
    now: datetime,
    force: bool,
    overlap: timedelta = timedelta(0),
) -> Run:
    """Give the run that holds the window, new or as it was; see the port."""
    if window.start.microsecond or window.end.microsecond:
        # Run names have seconds, so two such windows would be taken for one.
        raise ValueError(f"a run's window begins and ends on whole seconds, not {window.start} to {window.end}")
    insert_absent(connection, jobs, job=job)
    # From here on this is the only process that opens a run of the job.
    connection.execute(sa.select(jobs).where(jobs.c.job == job).with_for_update(key_share=True)).one()
    _refuse_overlap(connection, job, window, overlap)
    same = sa.and_(runs.c.job == job, runs.c.window_start_utc == window.start, runs.c.window_end_utc == window.end)
    # Locked, so that a `begin` under way in the old generation is over before there is a new one.
    statement = sa.select(runs).where(same).order_by(runs.c.generation.desc()).limit(1)
    latest = connection.execute(statement.with_for_update(key_share=True)).first()
    if latest is not None and latest.state != "incomplete" and not (force and latest.state != "open"):
        return run(connection, latest.run)
    generation = 1 if latest is None else latest.generation + 1
    name = run_id(job, window, generation)
    values = {"run": name, "job": job, "generation": generation, "state": "open", "started_utc": now}
    times = {"window_start_utc": window.start, "window_end_utc": window.end}
    connection.execute(sa.insert(runs).values(**values, **times))
    return run(connection, name)


def open_sealed(connection: sa.Connection, plan: RoundPlan, *, job: str, window: Window, now: datetime) -> RoundPlan:
    """Open the next generation of a window with its plan; see the port."""
    opened = open_run(connection, job, window, now=now, force=True)
    if opened.run != plan.run or opened.plan is not None:
        found = f"generation {opened.generation}, {opened.state}"
        raise StaleAttempt(f"{plan.run} round 0", expected="the next generation of a closed window", found=found)
    return seal(connection, plan, takes=(), claims=(), leaves=None, now=now)


def _refuse_overlap(connection: sa.Connection, job: str, window: Window, overlap: timedelta) -> None:
    others = sa.select(runs.c.run, runs.c.started_utc).where(
        runs.c.job == job,
        runs.c.state == "open",
        # What either reads before its own window may be in flight in the other.
        runs.c.window_start_utc < window.end + overlap,
        runs.c.window_end_utc > window.start - overlap,
        sa.or_(runs.c.window_start_utc != window.start, runs.c.window_end_utc != window.end),
    )
    other = connection.execute(others.order_by(runs.c.started_utc, runs.c.run)).first()
    if other is not None:
        raise RunOverlaps(job, other_run=other.run, since=other.started_utc)


def run(connection: sa.Connection, name: str) -> Run:
    """Give a run by name. Raises LookupError."""
    row = connection.execute(_RUN.where(runs.c.run == name)).first()
    if row is None:
        raise LookupError(f"there is no run {name} in this ledger")
    return _run_of(row)


def list_runs(connection: sa.Connection, *, job: str | None, window: Window | None, limit: int) -> list[Run]:
    """List runs, newest start first."""
    statement = _RUN.order_by(runs.c.started_utc.desc(), runs.c.run.desc()).limit(limit)
    if job is not None:
        statement = statement.where(runs.c.job == job)
    if window is not None:
        statement = statement.where(runs.c.window_start_utc == window.start, runs.c.window_end_utc == window.end)
    return [_run_of(row) for row in connection.execute(statement)]


def select_runs(
    connection: sa.Connection, here: sa.ColumnElement[bool], *, order: sa.ColumnElement[Any], limit: int
) -> list[Run]:
    """List the runs that a condition finds."""
    return [_run_of(row) for row in connection.execute(_RUN.where(here).order_by(order).limit(limit))]


def _run_of(row: AnyRow) -> Run:
    return Run(
        run=row.run,
        job=row.job,
        window=Window(row.window_start_utc, row.window_end_utc),
        generation=row.generation,
        state=row.state,
        started_utc=row.started_utc,
        settled_utc=row.settled_utc,
        plan=row.plan,
        books=row.books,
        staging_removed_utc=row.staging_removed_utc,
        cancelled_utc=row.cancelled_utc,
        cancel_drops=bool(row.cancel_drops),
    )


def lock_job(connection: sa.Connection, run: str) -> None:
    """Make this the only transaction that reserves for the job of a run. Raises LookupError."""
    job = connection.execute(sa.select(runs.c.job).where(runs.c.run == run)).scalar()
    if job is None:
        raise LookupError(f"there is no run {run} in this ledger")
    connection.execute(sa.select(jobs).where(jobs.c.job == job).with_for_update(key_share=True)).one()


def lock_run(connection: sa.Connection, name: str) -> AnyRow:
    """Make this the only transaction that changes the run, its rounds or its money. Raises LookupError."""
    row = connection.execute(sa.select(runs).where(runs.c.run == name).with_for_update(key_share=True)).first()
    if row is None:
        raise LookupError(f"there is no run {name} in this ledger")
    return row


def seal(
    connection: sa.Connection,
    plan: RoundPlan,
    *,
    takes: Sequence[ShardRef],
    claims: Sequence[PendingFile],
    leaves: PendingFile | None,
    now: datetime,
) -> RoundPlan:
    """Seal a round with all that belongs to it, or give the one that was sealed before; see the port."""
    found = lock_run(connection, plan.run)
    before = sealed(connection, plan.run, plan.round)
    if before is not None:
        return before
    if plan.round == 0 and found.state != "open":
        raise StaleAttempt(f"{plan.run} round 0", expected="an open run", found=f"a run that is {found.state}")
    if any((shard.ref.run, shard.ref.round) != (plan.run, plan.round) for shard in plan.shards):
        raise ValueError(f"a shard of another round is in the plan of {plan.run} round {plan.round}")
    connection.execute(sa.insert(rounds).values(run=plan.run, round=plan.round, facts=dict(plan.facts), sealed_utc=now))
    if plan.shards:
        # In a cancelled run what is sealed is held at once, by whoever did not know yet.
        held = {"state": ShardState.HELD.value, "held_reason": Reason.CANCELLED.value} if found.cancelled_utc else {}
        connection.execute(sa.insert(shards), [plan_values(shard, now=now) | held for shard in plan.shards])
    for ref in sorted(takes):
        _take(connection, ref, by=plan)
    for file in sorted(claims, key=lambda file: (file.run, file.name)):
        _claim(connection, file, by=plan.run, now=now)
    if leaves is not None:
        _leave(connection, leaves, job=found.job, now=now)
    # Read back, so that the first caller holds what every later one will.
    return sealed(connection, plan.run, plan.round) or plan


def _take(connection: sa.Connection, ref: ShardRef, *, by: RoundPlan) -> None:
    here = sa.and_(shards.c.run == by.run, shards.c.round == ref.round, shards.c.shard == ref.shard)
    is_free = sa.and_(here, shards.c.taken_by_round.is_(None), shards.c.state.in_(_MAY_BE_TAKEN))
    taking = sa.update(shards).where(is_free).values(taken_by_round=by.round).returning(shards.c.shard)
    if ref.run != by.run:
        raise ValueError(f"shard {ref} is not of run {by.run}, so no round of that can take it")
    if connection.execute(taking).first() is not None:
        return
    row = connection.execute(sa.select(shards.c.state, shards.c.taken_by_round).where(here)).first()
    found = "no such shard" if row is None else f"{row.state}, taken by {row.taken_by_round}"
    raise StaleAttempt(str(ref), expected="collected or held, and taken by no round", found=found)


def _claim(connection: sa.Connection, file: PendingFile, *, by: str, now: datetime) -> None:
    here = sa.and_(pending.c.run == file.run, pending.c.name == file.name)
    is_free = sa.and_(here, pending.c.taken_by_run.is_(None))
    taking = sa.update(pending).where(is_free).values(taken_by_run=by, taken_utc=now).returning(pending.c.name)
    if connection.execute(taking).first() is not None:
        return
    taker = connection.execute(sa.select(pending.c.taken_by_run).where(here)).scalar()
    found = "no such file" if taker is None else f"taken by run {taker}"
    raise StaleAttempt(f"pending file {file.name}", expected="a file that no run has taken", found=found)


def _leave(connection: sa.Connection, file: PendingFile, *, job: str, now: datetime) -> None:
    values = {"run": file.run, "name": file.name, "job": job, "rows": file.rows, "left_utc": now}
    if not insert_absent(connection, pending, **values):
        raise StaleAttempt(f"pending file {file.name}", expected="a new file", found="one that was left before")


def sealed(connection: sa.Connection, name: str, round_: int) -> RoundPlan | None:
    """Give a sealed round."""
    here = sa.and_(rounds.c.run == name, rounds.c.round == round_)
    row = connection.execute(sa.select(rounds.c.facts).where(here)).first()
    if row is None:
        return None
    statement = sa.select(shards).where(shards.c.run == name, shards.c.round == round_).order_by(shards.c.shard)
    plans = tuple(plan_of(shard) for shard in connection.execute(statement))
    return RoundPlan(name, round_, plans, row.facts)


def list_pending(connection: sa.Connection, job: str) -> list[PendingFile]:
    """List the pending files of a job that no run has taken, oldest first."""
    statement = sa.select(pending).where(pending.c.job == job, pending.c.taken_by_run.is_(None))
    ordered = statement.order_by(pending.c.left_utc, pending.c.run, pending.c.name)
    return [PendingFile(row.run, row.name, row.rows) for row in connection.execute(ordered)]


def settle(connection: sa.Connection, name: str, *, state: str, books: Mapping[str, Any], now: datetime) -> None:
    """Close a run with its books, or leave it open; what was closed is never opened again."""
    if state not in STATES:
        raise ValueError(f"a run is {', '.join(STATES)}, not {state!r}")
    found = lock_run(connection, name)
    values: dict[str, Any] = {"books": dict(books)}
    # A closed run's window may be another run's by now, and its pending rows too.
    if state != "open":
        # Looked at again, it was closed when it was closed.
        values |= {"state": state, "settled_utc": found.settled_utc if found.state == state else now}
    connection.execute(sa.update(runs).where(runs.c.run == name).values(**values))

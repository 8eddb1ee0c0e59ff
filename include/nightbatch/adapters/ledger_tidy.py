"""What housekeeping notes: files deleted at vendors, and staging folders that are emptied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_runs import lock_run, select_runs
from nightbatch.adapters.ledger_shards import attempt_of
from nightbatch.adapters.ledger_tables import attempts, jobs, pending, queue, rounds, runs, shards
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.ports import Attempt, Run

RUNS_AT_A_TIME = 100

_MOVES = (
    runs.c.started_utc,
    rounds.c.sealed_utc,
    shards.c.state_utc,
    attempts.c.intent_utc,
    attempts.c.last_seen_utc,
    attempts.c.ended_utc,
    queue.c.seen_utc,
)
"""What is written when anything of a run moves."""


class Tidying:
    """The part of the SQL ledger that housekeeping uses."""

    _database: Database

    def attempts(self, run: str) -> list[Attempt]:
        """List every attempt of a run, by shard and number."""
        ordered = sa.select(attempts).where(attempts.c.run == run)
        ordered = ordered.order_by(attempts.c.round, attempts.c.shard, attempts.c.number)
        with self._database.read() as connection:
            return [attempt_of(row._mapping) for row in connection.execute(ordered)]

    def note_files_deleted(self, attempt_id: int, *, now: datetime) -> None:
        """Record that nothing of an attempt is at the vendor any more; the first time counts."""
        is_first = sa.and_(attempts.c.attempt_id == attempt_id, attempts.c.vendor_files_deleted_utc.is_(None))
        with self._database.write() as connection:
            connection.execute(sa.update(attempts).where(is_first).values(vendor_files_deleted_utc=now))

    def runs_with_files(self) -> Iterator[Run]:
        """Stream the runs whose staging folder may hold files, by name."""
        last = ""
        while True:
            here = sa.and_(runs.c.staging_emptied_utc.is_(None), runs.c.run > last)
            with self._database.read() as connection:
                found = select_runs(connection, here, order=runs.c.run, limit=RUNS_AT_A_TIME)
            yield from found
            if not found:
                return
            last = found[-1].run

    def last_moved(self, run: str) -> datetime:
        """Say when anything of a run was last noted. Raises LookupError."""
        latest = [sa.select(sa.func.max(column)).where(column.table.c.run == run) for column in _MOVES]
        with self._database.read() as connection:
            found: list[datetime | None] = [connection.execute(one).scalar() for one in latest]
        moments = [moment for moment in found if moment is not None]
        if not moments:
            raise _no_run(run)
        return max(moments)

    def give_up_files(self, run: str, *, now: datetime) -> bool:
        """Mark a run's files as not to be read any more; False where they may still be needed."""
        with self._database.write() as connection:
            found = connection.execute(sa.select(runs.c.job).where(runs.c.run == run)).first()
            if found is None:
                raise _no_run(run)
            # As for opening a run: nobody opens another generation of the window meanwhile.
            connection.execute(sa.select(jobs).where(jobs.c.job == found.job).with_for_update(key_share=True)).one()
            locked = lock_run(connection, run)
            if locked.staging_removed_utc is not None:
                return True
            if locked.state == "open" or _is_needed(connection, locked):
                return False
            connection.execute(sa.update(runs).where(runs.c.run == run).values(staging_removed_utc=now))
            return True

    def note_emptied(self, run: str, *, now: datetime) -> None:
        """Record that a run's staging folder holds nothing any more; the first time counts."""
        is_first = sa.and_(runs.c.run == run, runs.c.staging_emptied_utc.is_(None))
        with self._database.write() as connection:
            connection.execute(sa.update(runs).where(is_first).values(staging_emptied_utc=now))


def _is_needed(connection: sa.Connection, run: AnyRow) -> bool:
    untaken = sa.select(pending.c.name).where(pending.c.run == run.run, pending.c.taken_by_run.is_(None))
    # A generation under way may have been made of this one's rows.
    successor = sa.select(runs.c.run).where(
        runs.c.job == run.job,
        runs.c.window_start_utc == run.window_start_utc,
        runs.c.window_end_utc == run.window_end_utc,
        runs.c.state == "open",
    )
    return any(connection.execute(one.limit(1)).first() is not None for one in (untaken, successor))


def _no_run(run: str) -> LookupError:
    return LookupError(f"there is no run {run} in this ledger")

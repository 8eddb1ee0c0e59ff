"""What housekeeping notes: files deleted at vendors, and staging folders that are emptied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_runs import lock_run, select_runs
from nightbatch.adapters.ledger_shards import attempt_of
from nightbatch.adapters.ledger_tables import attempts, jobs, pending, queue, rounds, runs, shards
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.ports import Attempt, Run

RUNS_AT_A_TIME, IDS_AT_A_TIME = 100, 500

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

    def owners(self, provider: str, batch_ids: Sequence[str]) -> dict[str, Attempt]:
        """Give the attempts that own these batches, by batch id."""
        found: dict[str, Attempt] = {}
        for start in range(0, len(batch_ids), IDS_AT_A_TIME):
            some = list(batch_ids[start : start + IDS_AT_A_TIME])
            here = sa.select(attempts).where(attempts.c.provider == provider, attempts.c.batch_id.in_(some))
            with self._database.read() as connection:
                found |= {row.batch_id: attempt_of(row._mapping) for row in connection.execute(here)}
        return found

    def run_names(self) -> Iterator[str]:
        """Stream the names of all runs, sorted."""
        last = ""
        while True:
            here = sa.select(runs.c.run).where(runs.c.run > last).order_by(runs.c.run).limit(IDS_AT_A_TIME)
            with self._database.read() as connection:
                found = list(connection.execute(here).scalars())
            yield from found
            if not found:
                return
            last = found[-1]

    def accounts_used(self) -> list[tuple[str, str]]:
        """List every (provider, connection) that a sealed shard goes to, sorted."""
        both = (shards.c.provider, shards.c.connection)
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*both).distinct().order_by(*both))
            return [(row.provider, row.connection) for row in rows]

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

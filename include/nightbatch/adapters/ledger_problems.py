"""What keeps a shard from going on, and for how long a lost batch was looked for."""

from __future__ import annotations

from datetime import datetime, timedelta

import sqlalchemy as sa

from nightbatch.adapters.ledger_attempts import short
from nightbatch.adapters.ledger_gates import gate
from nightbatch.adapters.ledger_runs import lock_run
from nightbatch.adapters.ledger_shards import is_shard
from nightbatch.adapters.ledger_tables import attempts, shards
from nightbatch.core.ids import ShardRef
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason

ACCOUNT_TROUBLE = "AccountTrouble"
"""The name of the error that stops all sending of a run."""


def note_problem(connection: sa.Connection, ref: ShardRef, kind: str, problem: str) -> None:
    """Keep what a person must know; see the port."""
    values = {"problem_kind": kind, "problem": short(problem)}
    connection.execute(sa.update(shards).where(is_shard(ref)).values(**values))


def account_trouble(connection: sa.Connection, run: str, provider: str, conn_id: str) -> str:
    """Give the trouble that a run has with an account; see the port."""
    statement = sa.select(shards.c.problem).where(
        shards.c.run == run,
        shards.c.provider == provider,
        shards.c.connection == conn_id,
        shards.c.problem_kind == ACCOUNT_TROUBLE,
    )
    return str(connection.execute(statement.limit(1)).scalar() or "")


def resume(connection: sa.Connection, run: str, *, now: datetime) -> None:
    """Forget a run's trouble with accounts; see the port."""
    lock_run(connection, run)
    of_run = shards.c.run == run
    canary = gate(connection, run, Reason.CANARY.value)
    is_released = canary is not None and canary.state == "released"
    is_held = sa.and_(
        of_run,
        shards.c.state == ShardState.HELD.value,
        shards.c.held_reason.in_([Reason.ACCOUNT.value, *([Reason.CANARY.value] if is_released else [])]),
        shards.c.taken_by_round.is_(None),
    )
    free = {"state": ShardState.SEALED.value, "state_utc": now, "held_reason": ""}
    connection.execute(sa.update(shards).where(is_held).values(**free))
    is_troubled = sa.and_(of_run, shards.c.problem_kind == ACCOUNT_TROUBLE)
    connection.execute(sa.update(shards).where(is_troubled).values(problem_kind="", problem=""))


def note_absence(connection: sa.Connection, attempt_id: int, *, at_most: timedelta, now: datetime) -> timedelta:
    """Add the time since the last look to how long a batch was looked for in vain; see the port."""
    is_attempt = attempts.c.attempt_id == attempt_id
    looked = (attempts.c.looked_utc, attempts.c.looked_ms)
    row = connection.execute(sa.select(*looked).where(is_attempt).with_for_update()).one()
    since = min(max(now - row.looked_utc, timedelta(0)), at_most) if row.looked_utc is not None else timedelta(0)
    total = row.looked_ms + int(since / timedelta(milliseconds=1))
    connection.execute(sa.update(attempts).where(is_attempt).values(looked_utc=now, looked_ms=total))
    return timedelta(milliseconds=total)

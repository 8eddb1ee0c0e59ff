"""A person's cancel: one commit after which nothing of a run can be sent."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from nightbatch.adapters.ledger_runs import lock_run, run
from nightbatch.adapters.ledger_tables import queue, runs, shards
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import StaleAttempt
from nightbatch.ports import Run


def cancel(connection: sa.Connection, name: str, *, drops: bool, now: datetime) -> Run:
    """Mark a run as cancelled and hold what is not under way; see the port."""
    # `begin` needs this lock too: a shard is begun before this, and cancelled at the vendor, or not at all.
    found = lock_run(connection, name)
    if found.state != "open":
        raise StaleAttempt(name, expected="an open run", found=f"a run that is {found.state}")
    if found.cancelled_utc is None:
        marked = {"cancelled_utc": now, "cancel_drops": drops}
        connection.execute(sa.update(runs).where(runs.c.run == name).values(**marked))
    is_waiting = sa.and_(shards.c.run == name, shards.c.state == ShardState.SEALED.value)
    held = {"state": ShardState.HELD.value, "held_reason": Reason.CANCELLED.value, "state_utc": now}
    connection.execute(sa.update(shards).where(is_waiting).values(**held, not_before_utc=None, waits_for=""))
    # Nobody waits for a turn that never comes.
    connection.execute(sa.delete(queue).where(queue.c.run == name))
    return run(connection, name)

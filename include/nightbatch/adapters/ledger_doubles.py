"""Doubles: batches that were made beside another one for the same shard, and what they cost."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa

from nightbatch.adapters import ledger_money
from nightbatch.adapters.ledger_attempts import change, check_owner, lock, owned_by, short, stale
from nightbatch.adapters.ledger_shards import attempt_of
from nightbatch.adapters.ledger_tables import attempts, money, shards
from nightbatch.adapters.ledger_types import usd_sum
from nightbatch.core.batch import BatchState
from nightbatch.ports import Attempt

_OF_ITS_SHARD = sa.and_(
    shards.c.run == attempts.c.run, shards.c.round == attempts.c.round, shards.c.shard == attempts.c.shard
)
_IS_DOUBLE = sa.or_(
    attempts.c.state == "double",
    # Once its cost is booked it is an ended batch like others, only not the one whose answers the shard has.
    sa.and_(attempts.c.state == "ended", attempts.c.number != sa.func.coalesce(shards.c.current_attempt, 0)),
)


def note_double(connection: sa.Connection, attempt_id: int, state: BatchState, *, now: datetime) -> None:
    """Record a batch of an attempt that was taken for absent, beside which another one stands; see the port."""
    _, attempt = lock(connection, attempt_id)
    if attempt.batch_id == state.batch_id and attempt.state in ("double", "ended"):
        return
    check_owner(connection, attempt, state.batch_id)
    if attempt.state != "absent":
        raise stale(attempt, expected="absent")
    # It exists, so it may be billed; a wall it may break stands no longer before it.
    ledger_money.take_back_release(connection, attempt_id)
    found = {
        "batch_id": state.batch_id,
        "created_utc": state.created_utc or now,
        "last_seen_utc": now,
        "vendor_status": short(state.vendor_status),
        "end_reason": "made too late, beside another batch of its shard",
    }
    try:
        change(connection, attempt, state="double", ended_utc=None, **found)
    except sa.exc.IntegrityError as error:
        raise owned_by(attempt, state.batch_id, owner="another shard, a moment ago") from error


def note_double_ended(connection: sa.Connection, attempt_id: int, *, usd: Decimal, now: datetime) -> None:
    """Book what a double cost, and return its reserve; twice changes nothing."""
    _, attempt = lock(connection, attempt_id)
    if attempt.state == "ended":
        return
    if attempt.state != "double":
        raise stale(attempt, expected="double")
    change(connection, attempt, state="ended", ended_utc=now)
    ledger_money.book_actual(connection, attempt, usd, now=now)


def doubles(connection: sa.Connection, run: str) -> list[tuple[Attempt, Decimal]]:
    """List the doubles of a run, and what each was billed so far."""
    actual = (
        sa.select(usd_sum(money.c.usd))
        .where(money.c.attempt_id == attempts.c.attempt_id, money.c.kind == ledger_money.ACTUAL)
        .scalar_subquery()
    )
    statement = (
        sa.select(attempts, actual.label("actual_usd"))
        .join(shards, _OF_ITS_SHARD)
        .where(attempts.c.run == run, _IS_DOUBLE)
        .order_by(attempts.c.attempt_id)
    )
    return [(attempt_of(row._mapping), row.actual_usd) for row in connection.execute(statement)]

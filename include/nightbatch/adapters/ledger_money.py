"""Money: reserves, releases and actual costs, as signed entries whose sum is what a run may still come to."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa

from nightbatch.adapters.ledger_tables import attempts, money, runs, shards
from nightbatch.adapters.ledger_types import AnyRow, usd_sum
from nightbatch.errors import BudgetExceeded

RESERVE, RELEASE, ACTUAL = "reserve", "release", "actual"


def spent(connection: sa.Connection, run: str) -> tuple[Decimal, Decimal]:
    """Give (reserved, actual) USD of a run: what may still be billed, and what was."""
    statement = sa.select(money.c.kind, usd_sum(money.c.usd)).where(money.c.run == run).group_by(money.c.kind)
    sums: dict[str, Decimal] = {row[0]: row[1] for row in connection.execute(statement)}
    zero = Decimal(0)
    return sums.get(RESERVE, zero) + sums.get(RELEASE, zero), sums.get(ACTUAL, zero)


def check_budget(connection: sa.Connection, run: str, *, needed_usd: Decimal, budget_usd: Decimal) -> None:
    """Raise BudgetExceeded where a reserve would not fit. The run is locked, so nobody reserves in between."""
    left = budget_usd - sum(spent(connection, run))
    if needed_usd > left:
        raise BudgetExceeded(needed_usd=needed_usd, left_usd=left, budget_usd=budget_usd)


def reserve(connection: sa.Connection, attempt_id: int, usd: Decimal, *, now: datetime) -> None:
    """Set the worst case of a new attempt aside."""
    _book(connection, attempt_id, RESERVE, usd, day_of=now, now=now)


def release(connection: sa.Connection, attempt: AnyRow, *, now: datetime) -> None:
    """Return an attempt's reserve."""
    _book(connection, attempt.attempt_id, RELEASE, -attempt.reserved_usd, day_of=attempt.intent_utc, now=now)


def take_back_release(connection: sa.Connection, attempt_id: int) -> None:
    """Reserve again what was returned: the batch exists after all."""
    entry = sa.and_(money.c.attempt_id == attempt_id, money.c.kind == RELEASE)
    connection.execute(sa.delete(money).where(entry))


def book_actual(connection: sa.Connection, attempt: AnyRow, usd: Decimal, *, now: datetime) -> None:
    """Replace an attempt's reserve by what was billed."""
    _book(connection, attempt.attempt_id, ACTUAL, usd, day_of=attempt.intent_utc, now=now)
    release(connection, attempt, now=now)


def _book(
    connection: sa.Connection, attempt_id: int, kind: str, usd: Decimal, *, day_of: datetime, now: datetime
) -> None:
    """Write an entry. All entries of an attempt bear the UTC day of its intent, so that a day's sum adds up."""
    origin = (
        sa.select(attempts.c.run, runs.c.job, attempts.c.provider, attempts.c.account, shards.c.model)
        .join(runs, runs.c.run == attempts.c.run)
        .join(
            shards,
            sa.and_(
                shards.c.run == attempts.c.run,
                shards.c.round == attempts.c.round,
                shards.c.shard == attempts.c.shard,
            ),
        )
        .where(attempts.c.attempt_id == attempt_id)
    )
    values = dict(connection.execute(origin).one()._mapping)
    values |= {"attempt_id": attempt_id, "kind": kind, "usd": usd}
    values |= {"day": day_of.astimezone(UTC).date(), "booked_utc": now}
    connection.execute(sa.insert(money).values(**values))

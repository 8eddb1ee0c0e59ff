"""Money: reserves, releases and actual costs, as signed entries whose sum is what a run may still come to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

import sqlalchemy as sa

from nightbatch.adapters.ledger_tables import attempts, money, runs, shards
from nightbatch.adapters.ledger_types import AnyRow, usd_sum
from nightbatch.core.budget import Budget, BudgetKind, Fit, fit, use
from nightbatch.errors import BudgetExceeded, BudgetTaken
from nightbatch.ports import Intent

RESERVE, RELEASE, ACTUAL = "reserve", "release", "actual"

PAUSE = timedelta(minutes=5)
"""How long, at most, a shard leaves a budget alone that others have reserved: each look starts a task in Airflow."""
RETURNS_WITHIN = timedelta(hours=48)
"""
How old an attempt may be whose reserve is waited for.

Vendors end batches within 24 hours. What has not been collected a day later belongs to a run that nobody looks
after, and a shard that waited for it would wait for ever.
"""


def spent(connection: sa.Connection, run: str) -> tuple[Decimal, Decimal]:
    """Give (reserved, actual) USD of a run: what may still be billed, and what was."""
    return _sums(connection, money.c.run == run)


def _sums(connection: sa.Connection, which: sa.ColumnElement[bool]) -> tuple[Decimal, Decimal]:
    """Add up what is reserved and what was billed: one statement, so that a cost is never between the two."""
    statement = sa.select(money.c.kind, usd_sum(money.c.usd)).where(which).group_by(money.c.kind)
    sums: dict[str, Decimal] = {row[0]: row[1] for row in connection.execute(statement)}
    zero = Decimal(0)
    return sums.get(RESERVE, zero) + sums.get(RELEASE, zero), sums.get(ACTUAL, zero)


def counts_a_job(budgets: Sequence[Budget]) -> bool:
    """Say whether budgets count charges of a whole job, so that no other shard of it may reserve in between."""
    return any(budget.kind in (BudgetKind.JOB_DAY, BudgetKind.JOB_MONTH) for budget in budgets)


def check_budgets(connection: sa.Connection, intent: Intent, *, job: str, needed_usd: Decimal, now: datetime) -> None:
    """
    Raise BudgetExceeded where a reserve fits a budget never, else BudgetTaken where one must wait for others'.

    Account, job and run are locked as far as the budgets count them, so nobody reserves in between. Reserves and
    costs may fall meanwhile; they only grow by a batch that turns up late, which is a debt already made.
    """
    waits_for = ""
    for budget in intent.budgets:
        which = _counted(budget, intent, job)
        reserved_usd, spent_usd = _sums(connection, which)
        lasting_usd, returning_usd = spent_usd, reserved_usd
        if needed_usd > budget.usd - spent_usd - reserved_usd:
            stuck_usd, _ = _sums(connection, sa.and_(which, _is_stuck(now)))
            lasting_usd, returning_usd = spent_usd + stuck_usd, reserved_usd - stuck_usd
        said = use(budget, intent.day, spent_usd=spent_usd, reserved_usd=reserved_usd, needed_usd=needed_usd)
        match fit(budget.usd, needed_usd, lasting_usd=lasting_usd, returning_usd=returning_usd):
            case Fit.NEVER:
                days = budget.days(intent.day)
                new_on = days[1] if days else None
                raise BudgetExceeded(budget.key, use=said, budget_usd=budget.usd, needed_usd=needed_usd, new_on=new_on)
            case Fit.LATER:
                waits_for = waits_for or said
    if waits_for:
        raise BudgetTaken(f"{waits_for}: waits for what other shards give back", until=now + PAUSE)


def _counted(budget: Budget, intent: Intent, job: str) -> sa.ColumnElement[bool]:
    """Write the condition of the charges that a budget counts."""
    days = budget.days(intent.day)
    if days is None:
        return money.c.run.in_((intent.ref.run, *budget.runs))
    if budget.kind is BudgetKind.ACCOUNT_MONTH:
        whose = sa.and_(money.c.provider == intent.provider, money.c.account == intent.account)
    else:
        whose = money.c.job == job
    return sa.and_(whose, money.c.day >= days[0], money.c.day < days[1])


def _is_stuck(now: datetime) -> sa.ColumnElement[bool]:
    old = sa.select(attempts.c.attempt_id).where(attempts.c.intent_utc < now - RETURNS_WITHIN)
    return money.c.attempt_id.in_(old)


def reserve(connection: sa.Connection, attempt_id: int, usd: Decimal, *, day: date, now: datetime) -> None:
    """Set the worst case of a new attempt aside; all its entries belong to this day."""
    _book(connection, attempt_id, RESERVE, usd, day=day, now=now)


def release(connection: sa.Connection, attempt: AnyRow, *, now: datetime) -> None:
    """Return an attempt's reserve."""
    day = _day_of(connection, attempt.attempt_id)
    _book(connection, attempt.attempt_id, RELEASE, -attempt.reserved_usd, day=day, now=now)


def _day_of(connection: sa.Connection, attempt_id: int) -> date:
    statement = sa.select(money.c.day).where(money.c.attempt_id == attempt_id, money.c.kind == RESERVE)
    day: date = connection.execute(statement).scalar_one()
    return day


def take_back_release(connection: sa.Connection, attempt_id: int) -> None:
    """Reserve again what was returned: the batch exists after all."""
    entry = sa.and_(money.c.attempt_id == attempt_id, money.c.kind == RELEASE)
    connection.execute(sa.delete(money).where(entry))


def book_actual(connection: sa.Connection, attempt: AnyRow, usd: Decimal, *, now: datetime) -> None:
    """Replace an attempt's reserve by what was billed."""
    _book(connection, attempt.attempt_id, ACTUAL, usd, day=_day_of(connection, attempt.attempt_id), now=now)
    release(connection, attempt, now=now)


def _book(connection: sa.Connection, attempt_id: int, kind: str, usd: Decimal, *, day: date, now: datetime) -> None:
    """Write an entry. All entries of an attempt bear the day of its reserve, so that a day's sum adds up."""
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
    values |= {"day": day, "booked_utc": now}
    connection.execute(sa.insert(money).values(**values))

"""A budget: the most that what is spent and what is reserved may come to, in a run, a day or a month."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum

DAY = timedelta(days=1)


class BudgetKind(StrEnum):
    """Whose charges a budget counts, and of which days."""

    RUN = "run"
    JOB_DAY = "job_day"
    JOB_MONTH = "job_month"
    ACCOUNT_MONTH = "account_month"


KEYS = {
    BudgetKind.RUN: "budget_usd",
    BudgetKind.JOB_DAY: "budget_day_usd",
    BudgetKind.JOB_MONTH: "budget_month_usd",
    BudgetKind.ACCOUNT_MONTH: "the account's budget_month_usd",
}
"""What people call them: the keys of a job file, and that of a connection's extra."""


@dataclass(frozen=True)
class Budget:
    """One budget that a reserve must fit."""

    kind: BudgetKind
    usd: Decimal
    runs: tuple[str, ...] = ()
    """Of a run's budget: the earlier generations that it goes on from, which share it."""

    @property
    def key(self) -> str:
        """Name it as people do."""
        return KEYS[self.kind]

    def days(self, day: date) -> tuple[date, date] | None:
        """Give the first day of the period that a day belongs to, and the first after it; None for a run's budget."""
        match self.kind:
            case BudgetKind.RUN:
                return None
            case BudgetKind.JOB_DAY:
                return day, day + DAY
        first = day.replace(day=1)
        return first, (first + 31 * DAY).replace(day=1)

    def period(self, day: date) -> str:
        """Say in words which period a day belongs to."""
        match self.kind:
            case BudgetKind.RUN:
                return "in this run" + (" and those it goes on from" if self.runs else "")
            case BudgetKind.JOB_DAY:
                return f"on {day}"
        return f"in {day:%Y-%m}"


def use(budget: Budget, day: date, *, spent_usd: Decimal, reserved_usd: Decimal, needed_usd: Decimal) -> str:
    """Say in one sentence how a budget stands, and what is asked of it."""
    return (
        f"{budget.key} is {budget.usd:.4f} USD; {budget.period(day)} {spent_usd:.4f} are spent and {reserved_usd:.4f} "
        f"reserved, and {needed_usd:.4f} are needed at worst"
    )


class Fit(StrEnum):
    """Whether a reserve may be made."""

    NOW = "now"
    LATER = "later"
    """Once reserves of others have returned."""
    NEVER = "never"
    """Not in this period, even if every reserve that can return does."""


def fit(budget_usd: Decimal, needed_usd: Decimal, *, lasting_usd: Decimal, returning_usd: Decimal) -> Fit:
    """
    Say whether a reserve fits a budget.

    `lasting_usd` is what was billed, and what is reserved for good; `returning_usd` what is reserved by batches
    that will end.
    """
    if needed_usd <= budget_usd - lasting_usd - returning_usd:
        return Fit.NOW
    return Fit.LATER if needed_usd <= budget_usd - lasting_usd else Fit.NEVER

"""Before step 4: which budgets a shard must fit, how much is reserved for it, and to which day that belongs."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from nightbatch.core.budget import Budget, BudgetKind
from nightbatch.core.shard import ShardPlan
from nightbatch.job import Job
from nightbatch.ports import Ports, Provider, Run

from .lanes import account_price

SHARES = "shares_budget_with"
"""The fact of a sealed plan that names the earlier generations whose charges its run's budget counts too."""


def sharing(earlier: Run | None) -> list[str]:
    """Name the generations that a run which goes on from `earlier` shares its budget with; none for a new plan."""
    return [*_shared(earlier.plan), earlier.run] if earlier is not None else []


def _shared(plan: Any) -> list[str]:
    return list((plan or {}).get(SHARES, ()))


def budgets_of(job: Job, run: Run, provider: Provider) -> tuple[Budget, ...]:
    """Give every budget that a charge of a run must fit, the narrowest first; `job` is the one sealed with the run."""
    shared = tuple(_shared(run.plan))
    amounts = (
        (BudgetKind.RUN, job.budget_usd),
        (BudgetKind.JOB_DAY, job.budget_day_usd),
        (BudgetKind.JOB_MONTH, job.budget_month_usd),
        (BudgetKind.ACCOUNT_MONTH, provider.budget_month_usd),
    )
    return tuple(
        Budget(kind, usd, shared if kind is BudgetKind.RUN else ()) for kind, usd in amounts if usd is not None
    )


def day_of(job: Job, now: datetime) -> date:
    """Give the day that a charge reserved now belongs to: today in the job's time zone."""
    return now.astimezone(ZoneInfo(job.timezone)).date()


def worst_case(ports: Ports, job: Job, plan: ShardPlan) -> Decimal:
    """
    Give what a shard can cost at most: at the price it was sealed with, or at today's where that is dearer.

    Raises JobInvalid where a budget is to be kept, and today's price or the cap on output is not known.
    """
    price = account_price(ports, job, plan.choice)
    if price.batch is None:
        return plan.worst_usd
    today = price.batch.worst_usd(input_tokens=plan.input_tokens_bound, output_tokens=plan.output_tokens_cap)
    return max(plan.worst_usd, today)

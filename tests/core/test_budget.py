"""Budgets: which days a period holds, and whether a reserve fits now, later or never."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.budget import KEYS, Budget, BudgetKind, Fit, fit

usd = st.integers(0, 10**6).map(lambda cents: Decimal(cents) / 100)
days = st.dates(date(2020, 1, 1), date(2040, 12, 31))


@given(days)
def test_each_day_is_in_one_month_and_months_follow_each_other(day: date) -> None:
    first, following = Budget(BudgetKind.JOB_MONTH, Decimal(1)).days(day) or pytest.fail("a month has days")

    assert first <= day < following
    assert (first.day, following.day) == (1, 1)
    assert (first.year, first.month) == (day.year, day.month)
    assert (following - timedelta(days=1)).month == day.month


@given(days)
def test_a_day_is_one_day_and_a_run_has_none(day: date) -> None:
    assert Budget(BudgetKind.JOB_DAY, Decimal(1)).days(day) == (day, day + timedelta(days=1))
    assert Budget(BudgetKind.RUN, Decimal(1)).days(day) is None


@given(budget=usd, needed=usd, lasting=usd, returning=usd)
def test_a_reserve_fits_now_later_or_never(budget: Decimal, needed: Decimal, lasting: Decimal, returning: Decimal):
    found = fit(budget, needed, lasting_usd=lasting, returning_usd=returning)

    assert (found is Fit.NOW) == (lasting + returning + needed <= budget)
    assert (found is Fit.NEVER) == (lasting + needed > budget)


def test_every_kind_has_the_name_that_people_write() -> None:
    assert set(KEYS) == set(BudgetKind)
    assert Budget(BudgetKind.JOB_DAY, Decimal(1)).period(date(2026, 11, 26)) == "on 2026-11-26"
    assert Budget(BudgetKind.ACCOUNT_MONTH, Decimal(1)).period(date(2026, 11, 26)) == "in 2026-11"

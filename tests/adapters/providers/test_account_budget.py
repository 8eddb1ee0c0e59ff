"""The account's budget: an amount in the connection's extra, or a sentence that says what to write."""

from decimal import Decimal

import pytest

from nightbatch.adapters.providers.account_budget import month_budget
from nightbatch.adapters.registry import PROVIDERS, open_provider
from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection


@pytest.mark.parametrize(("written", "usd"), [(500, "500"), (0.1, "0.1"), ("12.50", "12.50"), (None, None)])
def test_an_amount_is_read_as_it_is_written(written: object, usd: str | None) -> None:
    found = month_budget(Connection("c", "openai", extra={"budget_month_usd": written}))

    assert found == (Decimal(usd) if usd else None)


@pytest.mark.parametrize("written", [0, -1, "much", True, [], "NaN", "Infinity"])
def test_what_is_no_amount_is_told_and_never_taken_for_no_budget(written: object) -> None:
    with pytest.raises(ConnectionInvalid, match="budget_month_usd in its extra is no amount above 0"):
        month_budget(Connection("c", "openai", extra={"budget_month_usd": written}))


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_says_what_its_connection_says(name: str) -> None:
    connections = (Connection("c", name, password="k", extra=extra) for extra in ({}, {"budget_month_usd": 500}))

    found = [open_provider(name, one, request_timeout_s=1).budget_month_usd for one in connections]

    assert found == [None, 500]

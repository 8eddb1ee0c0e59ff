"""A listing is walked far enough that "it is not there" is certain, or it is an error."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.providers.listing import listed
from nightbatch.errors import ProviderBusy

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Item:
    id: str
    created_utc: datetime


def items(*minutes: int) -> list[Item]:
    return [Item(str(number), NOON + timedelta(minutes=minute)) for number, minute in enumerate(minutes)]


def pages(batches: list[Item], size: int, asked: list[str | None]):
    def read_page(after: str | None) -> tuple[list[Item], bool]:
        asked.append(after)
        start = 0 if after is None else next(i for i, b in enumerate(batches) if b.id == after) + 1
        return batches[start : start + size], start + size < len(batches)

    return read_page


@given(minutes=st.lists(st.integers(-30, 30), max_size=30), size=st.integers(1, 7))
def test_everything_since_then_is_seen_once_in_any_order(minutes, size):
    batches = items(*minutes)

    seen = list(listed(pages(batches, size, []), oldest=NOON, provider="v"))

    assert len({batch.id for batch in seen}) == len(seen)
    if minutes == sorted(minutes, reverse=True):
        assert {batch.id for batch in seen} >= {batch.id for batch in batches if batch.created_utc >= NOON}


def test_a_newest_first_listing_is_read_only_as_far_as_needed():
    asked: list[str | None] = []

    list(listed(pages(items(9, 8, -1, -2, -3, -4), 3, asked), oldest=NOON, provider="v"))

    assert asked == [None]


def test_a_listing_in_another_order_is_read_to_its_end():
    """A compatible server that lists oldest first must not hide the newest."""
    seen = list(listed(pages(items(-9, -8, -7, 1), 2, []), oldest=NOON, provider="v"))

    assert [batch.id for batch in seen] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("page", [[], items(5)])
def test_a_listing_without_an_end_is_an_error(page):
    with pytest.raises(ProviderBusy):
        list(listed(lambda after: (page, True), oldest=NOON, provider="v"))

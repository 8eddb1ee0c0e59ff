"""A listing is walked as far as it is cheaper than to ask for each batch, and never further."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from nightbatch.adapters.clock import FixedClock
from nightbatch.adapters.memory_vendor import MemoryProvider, MemoryVendor
from nightbatch.core.batch import BatchStatus
from nightbatch.core.ids import Label
from nightbatch.steps.look import PAGE_ROWS, look_by_list
from tests.memory_stack import NIGHT

LABEL = Label("0" * 32, "0" * 12, 0, 0, 1, "0" * 64)
LINE = b'{"custom_id":"a","body":{"system":"","user":"hello"}}'


class Account:
    """An account whose listing counts what is read of it."""

    def __init__(self) -> None:
        self.clock = FixedClock(NIGHT.end)
        self.vendor = MemoryVendor(self.clock)
        self.provider = MemoryProvider(self.vendor, ends_at_once=False)
        self.read = 0
        listing = self.provider.listing

        def counted(since: datetime, *, page_rows: int | None = None):
            assert page_rows == PAGE_ROWS
            for batch in listing(since):
                self.read += 1
                yield batch

        self.provider.listing = counted  # type: ignore[method-assign]

    def make(self, count: int) -> dict[str, datetime]:
        """Make so many batches; gives when each was made."""
        return {self.vendor.create([LINE], LABEL).batch_id: self.clock.now() for _ in range(count)}

    @property
    def pages(self) -> int:
        return -(-self.read // PAGE_ROWS)


@pytest.fixture
def account() -> Account:
    return Account()


def test_all_that_are_wanted_are_found_and_nothing_is_read_after_the_last(account: Account) -> None:
    account.make(50)
    wanted = account.make(40)
    ended = next(iter(wanted))
    account.vendor.end(ended)

    found = look_by_list(account.provider, wanted)

    assert found == {batch_id: account.provider.poll(batch_id) for batch_id in wanted}
    assert (found[ended].status, account.read) == (BatchStatus.ENDED, 40)


def test_a_thousand_are_found_though_only_a_tenth_is_due(account: Account) -> None:
    """Each page holds ten of them, which pays for it."""
    made = account.make(1_000)
    wanted = dict(list(made.items())[::10])

    assert look_by_list(account.provider, wanted).keys() == wanted.keys()
    assert account.pages == 10


def test_behind_the_batches_of_strangers_a_walk_ends_after_a_few_pages_in_vain(account: Account) -> None:
    wanted = account.make(64)
    account.make(3_000)

    assert look_by_list(account.provider, wanted) == {}
    assert account.pages == 1 + 64 // 16

    few = dict(list(wanted.items())[:4])
    account.read = 0
    assert look_by_list(account.provider, few) == {}
    assert account.read == PAGE_ROWS


def test_what_is_found_before_the_walk_ends_is_given(account: Account) -> None:
    old = account.make(8)
    account.make(1_000)
    new = account.make(8)

    assert look_by_list(account.provider, {**old, **new}).keys() == new.keys()


def test_a_batch_that_is_not_listed_is_left_out_and_ends_the_walk_at_its_age(account: Account) -> None:
    """Nothing is known of it: what is absent from a listing may be there."""
    account.make(150)
    account.clock.set(NIGHT.end + timedelta(hours=6))
    wanted = account.make(5)

    found = look_by_list(account.provider, {**wanted, "batch_unheard_of": account.clock.now()})

    assert (found.keys(), account.read) == (wanted.keys(), 6)

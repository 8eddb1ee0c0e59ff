"""The world misbehaving, clock by clock: a jump delays or hastens at most one look, and pays nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nightbatch import flow
from nightbatch.adapters.clock import SystemClock
from nightbatch.adapters.providers.calls import check_clock
from nightbatch.errors import ProviderBusy
from tests.faults.conftest import Cell
from tests.faults.inside import WINDOW, open_inside
from tests.faults.world import PutUp, both_vendors, put_up

__all__ = ["put_up"]

JUMPS = pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(hours=-3)], ids=["forwards", "backwards"])


class Jumping(SystemClock):
    """The machine's clock, that jumps at the first sleep at which something is so, and stays there."""

    def __init__(self, jump: timedelta) -> None:
        self.jump, self.is_time = jump, bool
        self.offset = timedelta(0)
        self.slept_s: list[float] = []

    def when(self, is_time: Callable[[], bool]) -> None:
        """Say when to jump."""
        self.is_time = is_time

    def now(self) -> datetime:
        """Give what this clock thinks."""
        return super().now() + self.offset

    def sleep(self, seconds: float) -> None:
        """Wait, and jump if it is time."""
        self.slept_s.append(seconds)
        super().sleep(min(seconds, 1.0))
        if not self.offset and self.is_time():
            self.offset = self.jump


@both_vendors
@JUMPS
def test_a_clock_that_jumps_while_a_lost_batch_is_looked_for_pays_nothing_twice(
    cell: Cell, put_up: PutUp, vendor: str, jump: timedelta
) -> None:
    """The batch is in no listing yet as the clock jumps: whoever believed the clock would send it again."""
    clock = Jumping(jump)
    with (
        put_up(vendor, "create_reset_after_success=1, list_lag_seconds=3") as desk,
        open_inside(desk, clock=clock, NIGHTBATCH_LISTING_LAG_S="6") as (ports, job),
    ):
        clock.when(lambda: bool(desk.ask_ledger("select 1 from nb_attempts where state = 'sending' and looked_ms > 0")))
        books = flow.run(ports, job, WINDOW)
        desk.record(cell)

        assert clock.offset == jump
        assert (books.state, desk.answers()) == ("complete", desk.records)
        assert (cell.batches, cell.billed) == (1, 4)


@both_vendors
@JUMPS
def test_a_clock_that_jumps_while_a_batch_is_under_way_changes_nothing(
    cell: Cell, put_up: PutUp, vendor: str, jump: timedelta
) -> None:
    clock = Jumping(jump)
    with (
        put_up(vendor, "http_404=1, on=retrieve_batch", batch_seconds=1) as desk,
        open_inside(desk, clock=clock) as (ports, job),
    ):
        clock.when(lambda: bool(desk.ask_ledger("select 1 from nb_attempts where state = 'open'")))
        books = flow.run(ports, job, WINDOW)
        desk.record(cell)

        assert clock.offset == jump
        assert (books.state, desk.answers(), books.seconds >= 0) == ("complete", desk.records, True)
        assert (cell.batches, cell.billed) == (1, 4)
        assert all(0 <= seconds <= 30 for seconds in clock.slept_s)


@pytest.mark.parametrize("apart", [timedelta(hours=1), timedelta(minutes=-6)])
def test_a_machine_whose_clock_is_wrong_sends_nothing_until_it_is_set(cell: Cell, apart: timedelta) -> None:
    cell.record(expected=None, loaded=None)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    vendors = {"date": format_datetime(now - apart, usegmt=True)}

    with pytest.raises(ProviderBusy, match="ahead of" if apart > timedelta(0) else "behind"):
        check_clock("openai", vendors, now=now)
    check_clock("openai", vendors, now=now - apart + timedelta(minutes=4))
    check_clock("openai", {"date": "some day"}, now=now)
    check_clock("openai", {}, now=now)

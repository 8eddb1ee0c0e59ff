"""The world misbehaving, clock by clock: a jump delays or hastens at most one look, and pays nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nightbatch import flow
from nightbatch.adapters.clock import SystemClock
from nightbatch.adapters.providers.calls import check_clock
from nightbatch.demo.services.slack import SlackSink
from nightbatch.errors import ProviderBusy
from tests.faults.conftest import Cell
from tests.faults.inside import WINDOW, open_inside
from tests.faults.world import PutUp, both_vendors, put_up

__all__ = ["put_up"]

JUMPS = pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(hours=-3)], ids=["forwards", "backwards"])


class Jumping(SystemClock):
    """The machine's clock, that jumps at the first sleep at which something is so, and stays there, or comes back."""

    def __init__(self, jump: timedelta) -> None:
        self.jump, self.is_time, self.is_over = jump, bool, bool
        self.offset, self.has_jumped = timedelta(0), False
        self.slept_s: list[float] = []

    def when(self, is_time: Callable[[], bool], *, back: Callable[[], bool] = bool) -> None:
        """Say when to jump, and when to be right again."""
        self.is_time, self.is_over = is_time, back

    def now(self) -> datetime:
        """Give what this clock thinks."""
        return super().now() + self.offset

    def sleep(self, seconds: float) -> None:
        """Wait, and jump if it is time."""
        self.slept_s.append(seconds)
        super().sleep(min(seconds, 1.0))
        if not self.has_jumped and self.is_time():
            self.offset, self.has_jumped = self.jump, True
        elif self.offset and self.is_over():
            self.offset = timedelta(0)


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


def kinds(slack: SlackSink) -> list[str]:
    """Give the headlines that people have read so far, without what they are about."""
    return [str(message.payload["text"]).split(":")[0] for message in slack.messages()]


MISSED = "Deadline (SLA) missed"
STUCK = [("openai", "validating"), ("openai", "in_progress"), ("anthropic", "in_progress")]


@pytest.mark.parametrize(("vendor", "state"), STUCK)
def test_a_batch_that_hangs_past_the_vendors_own_time_is_told_once_and_a_cancel_in_the_console_frees_its_rows(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str, state: str
) -> None:
    """Two days pass in a moment; the batch is still there, so nobody sends its rows again before it has ended."""
    clock = Jumping(timedelta(days=2))
    told = "notify: {slack_connection: slack, on: [late]}"
    with put_up(vendor, f"stuck={state}, stuck_batch=1", job=told) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        seen = list[int]()

        def cancel_when_told() -> bool:
            seen.append(len(desk.batches))
            if len(seen) == 4 and slack_sink.messages():
                desk.cancel(desk.batches[0]["id"])
            return len(seen) >= 4

        with open_inside(desk, clock=clock) as (ports, job):
            clock.when(lambda: len(desk.batches) == 1, back=cancel_when_told)
            books = flow.run(ports, job, WINDOW)
        desk.record(cell)

        assert kinds(slack_sink) == ["Batch overdue at the vendor"]
        assert seen == [1, 1, 1, 1]
        assert (books.state, desk.answers(), dict(books.sent_again)) == ("complete", desk.records, {"cancelled": 4})
        assert (cell.batches, cell.billed) == (2, 4)


@both_vendors
def test_a_clock_that_jumps_over_the_deadline_and_back_says_late_once_and_then_reports_a_whole_night(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str
) -> None:
    clock = Jumping(timedelta(days=2))
    due_in = datetime.now(UTC) + timedelta(days=1) - WINDOW.end
    job_lines = (
        f"deadline: {{after: {round(due_in.total_seconds() / 3600)}h}}\n"
        "notify: {slack_connection: slack, on: [at_risk, late, report]}"
    )
    with put_up(vendor, batch_seconds=4, job=job_lines) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        with open_inside(desk, clock=clock) as (ports, job):
            is_open = "select 1 from nb_attempts where state = 'open'"
            clock.when(
                lambda: bool(desk.ask_ledger(is_open)), back=lambda: "Deadline (SLA) missed" in kinds(slack_sink)
            )
            books = flow.run(ports, job, WINDOW)
        desk.record(cell)

        assert clock.has_jumped
        assert [kind for kind in kinds(slack_sink) if "overdue" not in kind] == [MISSED, "It is over", "Run report"]
        assert (books.state, desk.answers()) == ("complete", desk.records)
        assert (cell.batches, cell.billed) == (1, 4)


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

"""A watermark: whatever is run, skipped, run again or out of order, no record that came within the grace is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.gaps import RunSpan, fresh_until
from nightbatch.core.watermark import unread_from
from nightbatch.core.window import Window

DAY = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
NIGHT = 24 * HOUR


def night(number: int, nights: int = 1) -> Window:
    return Window(DAY + number * NIGHT, DAY + (number + nights) * NIGHT)


def ran(number: int, *, read: Window | None = None, nights: int = 1, **changes: object) -> RunSpan:
    window = night(number, nights)
    values = {"state": "complete", "started_utc": window.end, "read": read or window, "read_by": "at", **changes}
    return RunSpan(window, **values)  # type: ignore[arg-type]  # a test's own words


def unread(number: int, *runs: RunSpan, since: datetime | None = None) -> datetime:
    return unread_from(night(number), runs, column="at", since=since)


def test_a_run_reads_from_where_the_one_before_ended() -> None:
    assert unread(1, ran(0)) == night(1).start
    assert unread(3, ran(0)) == night(1).start
    assert unread(5, ran(0), ran(3, read=night(1, nights=3))) == night(4).start


def test_the_first_run_reads_its_own_window_or_from_the_start_that_the_job_says() -> None:
    assert unread(4) == night(4).start
    assert unread(4, since=DAY) == DAY
    assert unread(4, since=night(9).start) == night(4).start


def test_a_run_of_an_earlier_window_reads_that_and_leaves_the_watermark_where_it_is() -> None:
    backfilled = (ran(4), ran(1, started_utc=night(6).end))

    assert unread(1, ran(4)) == night(1).start
    assert unread(5, *backfilled) == night(5).start


def test_a_window_that_is_planned_anew_reads_all_that_it_read_before() -> None:
    assert unread(3, ran(0), ran(3, read=night(1, nights=3)), ran(4)) == night(1).start


def test_what_was_not_read_by_this_column_or_not_to_its_end_is_unread() -> None:
    """A first look, a run without a plan, one of another column, and one that began before its window was over."""
    noon = night(1).start + 12 * HOUR

    assert unread(2, ran(0), ran(1, is_whole=False)) == night(1).start
    assert unread(2, ran(0), RunSpan(night(1), "failed", DAY)) == night(1).start
    assert unread(2, ran(0), ran(1, read_by="changed_at")) == night(1).start
    assert unread(2, ran(0), ran(1, read=Window(night(1).start, noon))) == noon


def test_time_that_a_run_read_before_its_window_is_no_gap() -> None:
    assert ran(3, read=night(1, nights=3)).covers == night(1, nights=3)
    assert RunSpan(night(3), "complete", DAY).covers == night(3)


starts = st.tuples(st.integers(0, 9), st.integers(1, 3), st.integers(-30, 60))
rows = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 40)), min_size=1, max_size=30)
"""Near which window's end, how many hours before it, and how many hours it is seen late."""


@given(st.lists(starts, min_size=1, max_size=9), st.integers(0, 40), rows)
def test_no_record_that_came_within_the_grace_is_missed(starts, grace_hours, rows) -> None:
    """Windows of any length in any order, some begun before they were over; records as late as the grace allows."""
    grace, now = grace_hours * HOUR, DAY
    runs: list[RunSpan] = []
    looks: list[tuple[Window, datetime]] = []
    for number, nights, late in starts:
        window = night(number, nights)
        now = max(now + HOUR, window.end + late * HOUR)
        start = unread_from(window, runs, column="at", since=None)
        looks.append((Window(start - grace, window.end), now))
        until = min(window.end, now)
        read = Window(start, until) if start < until else None
        runs.append(RunSpan(window, "complete", now, read=read, read_by="at" if read else ""))
    read_first = [run.read for run in runs if run.read is not None][:1]
    if not read_first:
        return
    begin, end = read_first[0].start, max(window.end for window, _ in looks)
    next_reads = unread_from(Window(end, end + NIGHT), runs, column="at", since=None) - grace

    for number, hours, lateness in rows:
        at = looks[number % len(looks)][0].end - hours * HOUR
        seen = at + min(lateness * HOUR, grace)
        is_found = any(window.start <= at < window.end and seen <= looked for window, looked in looks)
        if begin <= at < next_reads:
            assert is_found, f"{at}, seen {seen}, is read by none"


def test_answers_reach_no_further_than_what_was_read() -> None:
    """A run that began at noon knows nothing of the afternoon, until the next one has read it."""
    noon = night(1).start + 12 * HOUR
    early = ran(1, read=Window(night(1).start, noon), started_utc=noon, is_answered=True)

    assert fresh_until([ran(0, is_answered=True), early]) == noon
    whole = ran(2, read=Window(noon, night(2).end), is_answered=True)
    assert fresh_until([ran(0, is_answered=True), early, whole]) == night(2).end

"""Deadlines: one for each window, also on days that have 23 or 25 hours, and news of them once."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.deadline import DeadlineRule, Lateness, lateness
from nightbatch.core.window import Window

ZONES = ["Europe/Berlin", "America/New_York"]
DUE = datetime(2026, 11, 22, 7, tzinfo=UTC)


def local_days(zone: str, year: int) -> Iterator[Window]:
    """Cut a year into local days."""
    info = ZoneInfo(zone)
    day = date(year, 1, 1)
    while day.year == year:
        start = datetime.combine(day, time(0), tzinfo=info)
        day += timedelta(days=1)
        yield Window(start, datetime.combine(day, time(0), tzinfo=info))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("at", [time(0, 30), time(7), time(12, 15), time(23, 59)])
def test_over_a_year_each_local_day_has_one_deadline_at_that_local_time(zone: str, at: time) -> None:
    rule = DeadlineRule(at=at, timezone=zone)
    windows = list(local_days(zone, 2026))

    dues = [rule.due(window.end) for window in windows]

    assert [due.astimezone(ZoneInfo(zone)).time() for due in dues] == [at] * 365
    assert [due.astimezone(ZoneInfo(zone)).date() for due in dues] == [
        window.end.astimezone(ZoneInfo(zone)).date() for window in windows
    ]
    assert all(window.end < due < window.end + timedelta(hours=25) for window, due in zip(windows, dues, strict=True))
    assert sorted(set(dues)) == dues


@pytest.mark.parametrize("zone", ZONES)
def test_over_a_year_a_time_that_the_clock_skips_still_comes_once_a_day(zone: str) -> None:
    """On the day that loses this hour the deadline is an hour later on the wall, and no day is without one."""
    rule = DeadlineRule(at=time(2, 30), timezone=zone)

    dues = [rule.due(window.end) for window in local_days(zone, 2026)]

    walls = [due.astimezone(ZoneInfo(zone)).time() for due in dues]
    assert walls.count(time(2, 30)) == 364
    assert walls.count(time(3, 30)) == 1
    assert sorted(set(dues)) == dues


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hours", [1, 6, 30])
def test_over_a_year_a_span_is_real_time_whatever_the_clocks_do(zone: str, hours: int) -> None:
    rule = DeadlineRule(after=timedelta(hours=hours), timezone=zone)

    for window in local_days(zone, 2026):
        assert rule.due(window.end) - window.end == timedelta(hours=hours)


def test_a_window_that_ends_at_the_deadline_is_due_a_day_later() -> None:
    rule = DeadlineRule(at=time(7), timezone="UTC")

    assert rule.due(datetime(2026, 11, 22, 7, tzinfo=UTC)) == datetime(2026, 11, 23, 7, tzinfo=UTC)


def test_a_rule_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`after` or `at`"):
        DeadlineRule().due(DUE)


offsets = st.integers(-(10**6), 10**6).map(lambda seconds: DUE + timedelta(seconds=seconds))
warnings = st.integers(0, 10**5).map(lambda seconds: timedelta(seconds=seconds))


@given(offsets, offsets, warnings)
def test_a_run_that_started_too_late_pages_nobody(now: datetime, started: datetime, warn_before: timedelta) -> None:
    stands = lateness(now=now, due=DUE, warn_before=warn_before, started=started)

    # A start in the future was noted by a clock that has been put back since.
    assert min(started, now) < DUE or stands is Lateness.ON_TIME


def test_people_hear_of_a_deadline_also_when_the_clock_was_ahead_as_the_run_began() -> None:
    started = DUE + timedelta(days=1)

    stands = lateness(now=DUE - timedelta(minutes=5), due=DUE, warn_before=timedelta(hours=1), started=started)

    assert stands is Lateness.AT_RISK


@given(offsets, offsets, warnings)
def test_lateness_only_grows(one: datetime, other: datetime, warn_before: timedelta) -> None:
    started = DUE - timedelta(days=30)
    order = [Lateness.ON_TIME, Lateness.AT_RISK, Lateness.MISSED]

    earlier, later = (
        order.index(lateness(now=now, due=DUE, warn_before=warn_before, started=started))
        for now in sorted((one, other))
    )

    assert earlier <= later


@pytest.mark.parametrize(
    ("minutes", "stands"),
    [
        (-91, Lateness.ON_TIME),
        (-90, Lateness.AT_RISK),
        (-1, Lateness.AT_RISK),
        (0, Lateness.MISSED),
        (1, Lateness.MISSED),
    ],
)
def test_people_hear_of_a_deadline_before_it_and_when_it_is_missed(minutes: int, stands: Lateness) -> None:
    now, started = DUE + timedelta(minutes=minutes), DUE - timedelta(hours=7)

    assert lateness(now=now, due=DUE, warn_before=timedelta(minutes=90), started=started) is stands


def test_without_a_warning_nothing_is_at_risk() -> None:
    now, started = DUE - timedelta(seconds=1), DUE - timedelta(hours=7)

    assert lateness(now=now, due=DUE, warn_before=timedelta(0), started=started) is Lateness.ON_TIME

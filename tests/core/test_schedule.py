"""Schedules: ticks and windows without a gap or an overlap, also where clocks change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from nightbatch.core.schedule import Schedule
from nightbatch.core.window import Window


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_windows_lie_between_ticks_and_only_those_that_are_over_are_given() -> None:
    schedule = Schedule("0 2 * * *", "UTC")

    found = list(schedule.windows(at("2026-11-20T02:00"), at("2026-11-22T12:00")))

    assert found == [
        Window(at("2026-11-20T02:00"), at("2026-11-21T02:00")),
        Window(at("2026-11-21T02:00"), at("2026-11-22T02:00")),
    ]
    assert list(schedule.windows(at("2026-11-20T02:01"), at("2026-11-22T02:00"))) == found[1:]
    assert list(schedule.windows(at("2026-11-22T02:00"), at("2026-11-23T01:59"))) == []


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28T12:00", 23), ("2026-10-24T12:00", 25), ("2026-06-01T12:00", 24)]
)
def test_a_day_of_a_clock_change_is_an_hour_shorter_or_longer(day: str, hours: int) -> None:
    berlin = Schedule("0 5 * * *", "Europe/Berlin")

    (window,) = list(berlin.windows(at(day) - timedelta(hours=12), at(day) + timedelta(days=1)))

    assert window.end - window.start == timedelta(hours=hours)


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 * * * *", "*/20 1-3 * * *", "0 6 * * 1-5", "15 */4 * * *"])
@pytest.mark.parametrize(
    ("zone", "changes"),
    [("UTC", "2026-01-01"), ("Europe/Berlin", "2026-10-25"), ("America/New_York", "2026-03-08"),
     ("Australia/Lord_Howe", "2026-04-05")],
)  # fmt: skip
def test_windows_follow_each_other_over_a_change_of_clocks(cron: str, zone: str, changes: str) -> None:
    """Also from the middle of one, and the same ones whatever they are counted from."""
    day = at(changes)
    found = list(Schedule(cron, zone).windows(day - timedelta(days=5, minutes=7), day + timedelta(days=5)))

    assert len(found) >= 5
    assert all(one.end == next_.start for one, next_ in pairwise(found))
    middle = found[len(found) // 2]
    again = Schedule(cron, zone).windows(middle.start - timedelta(minutes=1), day + timedelta(days=5))
    assert list(again) == found[len(found) // 2 :]

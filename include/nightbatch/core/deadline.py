"""A deadline: when answers stop being useful, and when people should hear of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


class Lateness(StrEnum):
    """How a run stands to its deadline."""

    ON_TIME = "on time"
    AT_RISK = "at risk"
    MISSED = "missed"


@dataclass(frozen=True)
class DeadlineRule:
    """A deadline as a job states it: a span after the window's end, or the next local time of day after it."""

    after: timedelta | None = None
    at: time | None = None
    timezone: str = "UTC"
    warn_before: timedelta = timedelta(0)

    def due(self, window_end: datetime) -> datetime:
        """Give the instant, in UTC, for a window that ends at `window_end`."""
        if self.after is not None:
            return window_end.astimezone(UTC) + self.after
        if self.at is None:
            raise ValueError("a deadline needs `after` or `at`")
        zone = ZoneInfo(self.timezone)
        local = window_end.astimezone(zone)
        today = _later_pass(local.date(), self.at, zone)
        return today if today > window_end.astimezone(UTC) else _later_pass(local.date() + DAY, self.at, zone)


def _later_pass(day: date, at: time, zone: ZoneInfo) -> datetime:
    """
    Give a local time of day as an instant in UTC; on the nights of a clock change the later of its two readings.

    A time that stands twice in autumn is meant the second time, and one that is skipped in spring comes an hour
    later by the wall clock: nobody is paged early.
    """
    local = datetime.combine(day, at, tzinfo=zone)
    return max(local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))


def lateness(*, now: datetime, due: datetime, warn_before: timedelta, started: datetime) -> Lateness:
    """
    Say how an unfinished run stands.

    A run that was started after its deadline (a backfill) is nobody's emergency: it is on time. One that was started
    in the future was started by a clock that has been put back since, and counts as started now.
    """
    if min(started, now) >= due:
        return Lateness.ON_TIME
    if now >= due:
        return Lateness.MISSED
    if warn_before and now >= due - warn_before:
        return Lateness.AT_RISK
    return Lateness.ON_TIME

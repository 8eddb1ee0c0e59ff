"""A deadline: when answers stop being useful, and when people should hear of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo


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
            return (window_end + self.after).astimezone(UTC)
        if self.at is None:
            raise ValueError("a deadline needs `after` or `at`")
        zone = ZoneInfo(self.timezone)
        local = window_end.astimezone(zone)
        due = datetime.combine(local.date(), self.at, tzinfo=zone)
        if due <= local:
            due = datetime.combine(local.date() + timedelta(days=1), self.at, tzinfo=zone)
        return due.astimezone(UTC)


def lateness(*, now: datetime, due: datetime, warn_before: timedelta, started: datetime) -> Lateness:
    """
    Say how an unfinished run stands.

    A run that was started after its deadline (a backfill) is nobody's emergency: it is on time.
    """
    if started >= due:
        return Lateness.ON_TIME
    if now >= due:
        return Lateness.MISSED
    if warn_before and now >= due - warn_before:
        return Lateness.AT_RISK
    return Lateness.ON_TIME

"""Clocks: the machine's time, and a time that a test or a try-out sets."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The machine's clock; the one place where the library reads it."""

    def now(self) -> datetime:
        """Give the time, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Wait; zero and less return at once."""
        if seconds > 0:
            time.sleep(seconds)


class FixedClock:
    """A clock that stands still until it is told to move; sleeping moves it, and takes no time."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = _utc(now)
        self.slept_s: list[float] = []
        """Every wait so far, in seconds, in order."""

    def now(self) -> datetime:
        """Give the time that was set, in UTC."""
        return self._now

    def set(self, now: datetime) -> None:
        """Move to an instant, forwards or backwards."""
        self._now = _utc(now)

    def advance(self, step: timedelta) -> None:
        """Move by a span."""
        self._now += step

    def sleep(self, seconds: float) -> None:
        """Move forward by the wait, and note it."""
        self.slept_s.append(seconds)
        if seconds > 0:
            self.advance(timedelta(seconds=seconds))


def _utc(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise ValueError("a clock needs a time with a zone")
    return now.astimezone(UTC)

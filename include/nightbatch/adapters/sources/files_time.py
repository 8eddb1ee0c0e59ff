"""Which records belong to a window, by a column of their own."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from nightbatch.core.window import Window


class ZoneUnknown(ValueError):
    """A time carries no zone, and nobody said in which one it is meant: that is true of all of them."""


class TimeFilter:
    """
    Says whether a record's time is inside a window: `start <= time < end`.

    The value is a datetime or ISO 8601 text. One without a zone is read in `timezone`; a date alone is its midnight.
    """

    def __init__(self, column: str, window: Window, timezone: str | None) -> None:
        self.column = column
        self.window = window
        self._zone = ZoneInfo(timezone) if timezone else None

    def contains(self, value: Any) -> bool:
        """Say whether a time is inside. Raises as `instant` does."""
        return self.window.start <= self.instant(value) < self.window.end

    def excludes(self, least: Any, most: Any) -> bool:
        """Say whether all times from `least` to `most` are outside; False where that is not certain."""
        if not isinstance(least, datetime) or not isinstance(most, datetime):
            return False  # texts and dates sort in ways of their own
        if least.tzinfo is None or most.tzinfo is None:
            return False
        return most < self.window.start or least >= self.window.end

    def instant(self, value: Any) -> datetime:
        """Read a value as an aware time. Raises ValueError, as a sentence, for a value that names no instant."""
        time = value
        if isinstance(value, str):
            try:
                time = datetime.fromisoformat(value.strip())
            except ValueError:
                raise ValueError(f"column {self.column} holds a text that is no ISO 8601 time") from None
        elif type(value) is date:
            time = datetime(value.year, value.month, value.day)  # noqa: DTZ001 -- the zone is set below
        if not isinstance(time, datetime):
            found = "no value" if value is None else f"a value of type {type(value).__name__}"
            raise ValueError(f"column {self.column} holds {found}, so the record belongs to no window")
        if time.tzinfo is not None:
            return time
        if self._zone is None:
            raise ZoneUnknown(f"column {self.column} holds a time without a zone")
        return time.replace(tzinfo=self._zone)

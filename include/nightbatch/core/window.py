"""A window: the half-open span of time, in UTC, that a run is about."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_KEY_FORMAT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, order=True)
class Window:
    """Records with `start <= time < end` belong to it. Both ends are aware and in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window needs times with a zone")
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))
        if self.start.microsecond or self.end.microsecond:
            raise ValueError("a window begins and ends on whole seconds, since runs are named after it")
        if self.start >= self.end:
            raise ValueError(f"a window must end after it starts, not {self.start} to {self.end}")

    @property
    def key(self) -> str:
        """Name the window so that it sorts by time and fits into a path: `20261121T000000Z-20261122T000000Z`."""
        return f"{self.start:{_KEY_FORMAT}}-{self.end:{_KEY_FORMAT}}"

    @classmethod
    def from_key(cls, key: str) -> Window:
        """Read what `key` wrote."""
        start, end = (datetime.strptime(part, _KEY_FORMAT).replace(tzinfo=UTC) for part in key.split("-"))
        return cls(start, end)

    def earlier_by(self, span: timedelta) -> Window:
        """Give the window that starts so much earlier and ends at the same instant."""
        return Window(self.start - span, self.end)

    def overlaps(self, other: Window) -> bool:
        """Say whether any instant belongs to both."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"


ANY = Window(datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 2, tzinfo=UTC))
"""For a source that is not asked for the records of a window."""

"""The time, which steps are handed and never ask for themselves."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time, handed in so that tests own it."""

    def now(self) -> datetime:
        """Give the time, aware, in UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""

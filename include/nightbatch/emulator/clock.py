"""The one place of the emulator that reads the wall clock."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

DAY_S = 24 * 60 * 60


def now_s() -> float:
    """Return seconds since 1970, UTC."""
    return time.time()


def rfc3339(seconds: float) -> str:
    """Write a time as Anthropic does, with microseconds and a zone."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def happens_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, but not longer than some seconds; say whether it came."""
    if seconds <= 0:
        return event.is_set()
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def ticking_s() -> float:
    """Return seconds on a clock that only measures durations."""
    return time.perf_counter()

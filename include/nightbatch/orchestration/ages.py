"""What a triggerer tells a monitor of the batches that it watches: the age of the oldest one, and failed looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache

from nightbatch.core.metrics import BATCH_AGE, POLL_ERRORS

from .telemetry import AirflowTelemetry, trigger_telemetry

Lane = tuple[tuple[str, str], ...]

_watched: defaultdict[Lane, dict[str, datetime]] = defaultdict(dict)
"""Lane -> its batches, and when each was made: all that wait in this triggerer, which runs in one thread."""


@cache
def _telemetry() -> AirflowTelemetry:
    return trigger_telemetry()


@contextmanager
def watching(batch_id: str, labels: Mapping[str, str], created: datetime) -> Iterator[Callable[[datetime], None]]:
    """
    Watch a batch, and give what tells the age of the oldest one of its lane at each look.

    When it is over the next oldest is told, or 0: a gauge keeps its last figure for ever.
    """
    lane, seen = tuple(labels.items()), created
    _watched[lane][batch_id] = created

    def tell(now: datetime) -> None:
        nonlocal seen
        seen = now
        if lane:
            oldest = min(_watched[lane].values(), default=now)
            _telemetry().emit(BATCH_AGE, max(0.0, (now - oldest).total_seconds()), labels)

    try:
        yield tell
    finally:
        _watched[lane].pop(batch_id, None)
        tell(seen)
        if not _watched[lane]:
            del _watched[lane]


def tell_failed_look(labels: Mapping[str, str], error: Exception) -> None:
    """Tell that a batch could not be looked at."""
    if labels:
        _telemetry().emit(POLL_ERRORS, 1, {**labels, "error": type(error).__name__})

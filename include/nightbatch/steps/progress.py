"""What whoever watches a run is told while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a watcher is told while a run goes on."""

    phase: str
    done: int
    total: int | None = None
    note: str = ""


Watch = Callable[[Progress], None]


def nobody(_: Progress) -> None:
    """Watch nothing."""

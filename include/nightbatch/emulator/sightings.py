"""Remembers what each workspace has asked and been billed for, so that a row sent again can fare better."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

SHOWN = 100
"""How many repeated questions the admin surface lists."""


@dataclass(slots=True)
class Sight:
    """One question of one workspace.

    Attributes:
        seen: How often it has been executed, however that ended.
        billed: How often it has been answered and billed, usable or not.
        good: How often it has been given a usable answer.
        cap: The largest cap on output tokens that was too small for it.
    """

    seen: int = 0
    billed: int = 0
    good: int = 0
    cap: int = 0


class Sightings:
    """All questions of all workspaces, by hash: some 200 bytes each. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sights: dict[bytes, Sight] = {}

    def see(self, key: bytes) -> tuple[int, int]:
        """Count one more sight of a question; return how often it was seen before, and its cap then."""
        with self._lock:
            sight = self._sights.setdefault(key, Sight())
            sight.seen += 1
            return sight.seen - 1, sight.cap

    def truncated(self, key: bytes, cap: int) -> None:
        """Remember that a cap on output tokens was too small."""
        with self._lock:
            sight = self._sights[key]
            sight.cap = max(sight.cap, cap)

    def bill(self, key: bytes, *, good: bool) -> None:
        """Count an answer that costs money."""
        with self._lock:
            sight = self._sights[key]
            sight.billed += 1
            sight.good += good

    def summary(self) -> dict[str, Any]:
        """Return totals, and the questions that were paid for more than once."""
        with self._lock:
            sights = list(self._sights.items())
        totals: Counter[str] = Counter(questions=len(sights))
        for _, sight in sights:
            totals.update(seen=sight.seen, billed=sight.billed, good=sight.good)
            totals.update(billed_twice=sight.billed > 1, good_twice=sight.good > 1)
        names = ("questions", "seen", "billed", "good", "billed_twice", "good_twice")
        repeated = [(key, sight) for key, sight in sights if sight.billed > 1][:SHOWN]
        listed = [{"question": key.hex(), "billed": sight.billed, "good": sight.good} for key, sight in repeated]
        return {**{name: int(totals[name]) for name in names}, "repeated": listed}

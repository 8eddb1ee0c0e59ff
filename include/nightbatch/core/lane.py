"""A lane: one model, reached through one connection, in one mode, with its limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How answers are asked for."""

    BATCH = "batch"
    REALTIME = "realtime"


@dataclass(frozen=True)
class Lane:
    """Where a shard is sent."""

    provider: str
    model: str
    connection: str
    mode: Mode = Mode.BATCH

    def __str__(self) -> str:
        return f"{self.provider}:{self.model} by {self.connection} ({self.mode})"

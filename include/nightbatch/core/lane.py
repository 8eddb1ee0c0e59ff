"""The mode of a lane: how answers are asked for."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """How answers are asked for."""

    BATCH = "batch"
    REALTIME = "realtime"

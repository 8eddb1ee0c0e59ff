"""Where figures and spans go."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Protocol

from nightbatch.core.metrics import Metric


class Telemetry(Protocol):
    """Where figures and spans go. Nothing waits for it, and nothing fails because of it."""

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Tell one figure; seconds for a timer."""

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Mapping[str, str | int | float]) -> None:
        """Tell what is over, as a span; part of what is being done now."""

    def doing(self, name: str, attributes: Mapping[str, str | int | float]) -> AbstractContextManager[None]:
        """Open a span around what is being done; an error that leaves it is named in it by its class alone."""


class NoTelemetry:
    """Tells nobody: the default, which costs nothing."""

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Pass over a figure."""

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Mapping[str, str | int | float]) -> None:
        """Pass over a span."""

    def doing(self, name: str, attributes: Mapping[str, str | int | float]) -> AbstractContextManager[None]:
        """Do it without a span."""
        return nullcontext()

"""Telemetry in memory: for tests, and to read what the port means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from nightbatch.core.metrics import Metric


class MemoryTelemetry:
    """Figures and spans in lists."""

    def __init__(self) -> None:
        self.figures: list[tuple[str, float, dict[str, str]]] = []
        self.spans: list[tuple[str, datetime, datetime, dict[str, str | int | float]]] = []
        self.steps: list[str] = []

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Keep a figure, by the name that a receiver without labels would know it by."""
        self.figures.append((metric.name, value, metric.told(labels)))

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Mapping[str, str | int | float]) -> None:
        """Keep a span."""
        self.spans.append((name, start, end, dict(attributes)))

    @contextmanager
    def doing(self, name: str, attributes: Mapping[str, str | int | float]) -> Iterator[None]:
        """Keep a step's name."""
        self.steps.append(name)
        yield

    def sums(self, metric: Metric, *by: str) -> dict[tuple[str, ...], float]:
        """Add a counter up, by some of its labels."""
        found: dict[tuple[str, ...], float] = {}
        for name, value, labels in self.figures:
            if name == metric.name:
                key = tuple(labels[label] for label in by)
                found[key] = found.get(key, 0) + value
        return found

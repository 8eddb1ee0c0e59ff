"""Figures by Airflow's own stats (StatsD, Datadog or OpenTelemetry, as Airflow is set up), spans by its tracer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.configuration import conf

from nightbatch.adapters.telemetry import OtelSpans, told_alone
from nightbatch.core.metrics import Kind, Metric


class AirflowTelemetry(OtelSpans):
    """
    What a task or a trigger tells a monitor.

    `stats` is `airflow.sdk.observability.stats` in a task and `airflow.observability.stats` in the triggerer: two
    copies of one module, of which Airflow sets up the one that belongs to the process.
    """

    def __init__(self, stats: Any) -> None:
        super().__init__()
        self._stats, self._has_tags = stats, has_tags()

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Tell a figure, with tags, or in a longer name where the receiver knows no tags."""
        with told_alone(metric.name):
            name, tags = (metric.name, metric.told(labels)) if self._has_tags else (metric.dotted(labels), None)
            match metric.kind:
                case Kind.COUNTER:
                    self._stats.incr(name, value, tags=tags)
                case Kind.TIMER:
                    self._stats.timing(name, timedelta(seconds=value), tags=tags)
                case Kind.GAUGE:
                    self._stats.gauge(name, value, tags=tags)


def has_tags() -> bool:
    """Say whether Airflow's receiver knows tags; for plain StatsD Airflow leaves them out."""
    section = "metrics"
    if conf.getboolean(section, "statsd_datadog_enabled", fallback=False):
        return True
    if conf.getboolean(section, "statsd_on", fallback=False):
        return conf.getboolean(section, "statsd_influxdb_enabled", fallback=False)
    return True


def task_telemetry() -> AirflowTelemetry:
    """Give what a task tells a monitor by."""
    from airflow.sdk.observability import stats

    return AirflowTelemetry(stats)


def trigger_telemetry() -> AirflowTelemetry:
    """Give what a trigger tells a monitor by; Airflow sets up the Task SDK's copy in no triggerer."""
    from airflow.observability import stats

    return AirflowTelemetry(stats)

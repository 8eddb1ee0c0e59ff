"""Figures and spans by OpenTelemetry's API; who receives them is set up by the environment, or by Airflow."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from nightbatch import __version__
from nightbatch.core.metrics import Kind, Metric
from nightbatch.logs import logger
from nightbatch.ports import NoTelemetry, Telemetry

log = logger(__name__)

Attributes = Mapping[str, str | int | float]

ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
"""The standard variables of which one asks for telemetry."""
BUCKETS_S = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 64_800, 86_400, 108_000)
"""Bounds of the histograms of timers, seconds: from a queue's first look to a batch's last hour."""


class OtelSpans:
    """Spans of the tracer that the process has; none where nobody set one up."""

    def __init__(self) -> None:
        from opentelemetry import trace

        self._tracer = trace.get_tracer("nightbatch", __version__)

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Attributes) -> None:
        """Tell what is over, with the times that it had."""
        from opentelemetry.trace import SpanKind

        with told_alone(name):
            span = self._tracer.start_span(
                name, kind=SpanKind.CLIENT, attributes=dict(attributes), start_time=_nanoseconds(start)
            )
            span.end(_nanoseconds(end))

    @contextmanager
    def doing(self, name: str, attributes: Attributes) -> Iterator[None]:
        """Open a span; an error's text stays out of it, since it may quote what a vendor or a database said."""
        from opentelemetry.trace import Status, StatusCode

        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise


class OtelTelemetry(OtelSpans):
    """Figures by OpenTelemetry too: for the command line, which has no Airflow that would count them."""

    def __init__(self) -> None:
        from opentelemetry import metrics

        super().__init__()
        self._meter = metrics.get_meter("nightbatch", __version__)
        self._tell: dict[str, Callable[..., None]] = {}

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter, record in a histogram of seconds, or set a gauge."""
        with told_alone(metric.name):
            if metric.name not in self._tell:
                self._tell[metric.name] = self._instrument(metric)
            self._tell[metric.name](value, metric.told(labels))

    def _instrument(self, metric: Metric) -> Callable[..., None]:
        match metric.kind:
            case Kind.COUNTER:
                return self._meter.create_counter(metric.name, description=metric.says).add
            case Kind.GAUGE:
                return self._meter.create_gauge(metric.name, description=metric.says).set
        return self._meter.create_histogram(
            metric.name, unit="s", description=metric.says, explicit_bucket_boundaries_advisory=BUCKETS_S
        ).record


@contextmanager
def told_alone(what: str) -> Iterator[None]:
    """Let no receiver, and no client of one, break what is told of: log it, and go on."""
    try:
        yield
    except Exception:
        log.exception("telemetry: %s is not told", what)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000


# --- the command line -----------------------------------------------------------------------------------------


def telemetry_of(environ: Mapping[str, str]) -> Telemetry:
    """
    Give what tells a monitor, as the standard `OTEL_*` variables say; nobody is told without an endpoint.

    Whoever set up OpenTelemetry before (`opentelemetry-instrument`) is left as it is.
    """
    wanted = [name for name in ENDPOINTS if environ.get(name)]
    if not wanted or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTelemetry()
    if importlib.util.find_spec("opentelemetry") is None or not _is_installed():
        log.warning("%s is set, and nobody is told: pip install 'nightbatch[otel]'", wanted[0])
        return NoTelemetry()
    _set_up(environ)
    return OtelTelemetry()


def _is_installed() -> bool:
    try:
        return all(
            importlib.util.find_spec(name) is not None
            for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
        )
    except ModuleNotFoundError:
        return False


def _set_up(environ: Mapping[str, str]) -> None:
    """Send over HTTP; resource, sampler, headers and intervals are read from the environment by the SDK itself."""
    from opentelemetry import metrics, trace

    def is_wanted(signal: str, provider: Any, sdk: str) -> bool:
        is_off = environ.get(f"OTEL_{signal}_EXPORTER", "otlp") == "none"
        has_place = any(environ.get(name) for name in (ENDPOINTS[0], f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
        return has_place and not is_off and not type(provider).__module__.startswith(sdk)

    if is_wanted("TRACES", trace.get_tracer_provider(), "opentelemetry.sdk"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        tracers = TracerProvider()
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
    if is_wanted("METRICS", metrics.get_meter_provider(), "opentelemetry.sdk"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))

"""Real receivers on loopback: StatsD on a UDP socket, OpenTelemetry's protocol and OpenLineage's events over HTTP."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

Labels = frozenset[tuple[str, str]]
_LINE = re.compile(r"(?P<name>[^:,]+)(?P<tags>(,[^:]+)?):(?P<value>[^|]+)\|(?P<kind>c|g|ms)(\|.*)?")


@dataclass
class Statsd:
    """What came in: counters are added up, timers kept, gauges as they were last."""

    port: int
    lines: list[str] = field(default_factory=list)

    def counters(self) -> dict[tuple[str, Labels], float]:
        """Add counters up, by name and tags."""
        sums: dict[tuple[str, Labels], float] = defaultdict(float)
        for name, labels, value in self._all("c"):
            sums[name, labels] += value
        return dict(sums)

    def timers(self) -> dict[str, list[float]]:
        """Give what timers told, by name; milliseconds."""
        found: dict[str, list[float]] = defaultdict(list)
        for name, _, value in self._all("ms"):
            found[name].append(value)
        return dict(found)

    def gauges(self) -> dict[str, list[float]]:
        """Give what gauges told, by name, in order."""
        found: dict[str, list[float]] = defaultdict(list)
        for name, _, value in self._all("g"):
            found[name].append(value)
        return dict(found)

    def _all(self, kind: str) -> Iterator[tuple[str, Labels, float]]:
        for line in list(self.lines):
            found = _LINE.fullmatch(line)
            assert found is not None, f"no StatsD: {line!r}"
            if found["kind"] == kind:
                pairs = [pair.split("=", 1) for pair in found["tags"].split(",") if pair]
                yield found["name"], frozenset((key, value) for key, value in pairs), float(found["value"])


@contextmanager
def statsd_receiver() -> Iterator[Statsd]:
    """Listen on a UDP socket. What was sent before the block ends has arrived when it has ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        server.bind(("127.0.0.1", 0))
        statsd = Statsd(server.getsockname()[1])

        def listen() -> None:
            while (packet := server.recv(65_535)) != b"end":
                statsd.lines += packet.decode().splitlines()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield statsd
        finally:
            # Loopback keeps the order, so all that was sent before is read by then.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"end", server.getsockname())
            thread.join(timeout=10)


@dataclass
class Otlp:
    """What came in, decoded."""

    endpoint: str
    bodies: list[bytes] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)

    def sums(self) -> dict[tuple[str, Labels], float]:
        """Give the last value of each counter, by name and attributes."""
        return {
            (metric.name, _labels(point)): point.as_double or point.as_int
            for metric in self.metrics
            for point in metric.sum.data_points
        }

    def histograms(self) -> dict[str, Any]:
        """Give the last point of each histogram, by name."""
        return {
            metric.name: point
            for metric in self.metrics
            for kind in (metric.histogram, metric.exponential_histogram)
            for point in kind.data_points
        }

    def gauges(self) -> dict[str, float]:
        """Give the last value of each gauge, by name."""
        return {
            metric.name: point.as_double or point.as_int
            for metric in self.metrics
            for point in metric.gauge.data_points
        }


def _labels(point: Any) -> Labels:
    return frozenset((pair.key, pair.value.string_value) for pair in point.attributes)


def attributes(span: Any) -> dict[str, Any]:
    """Give the attributes of a span."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@contextmanager
def otlp_receiver() -> Iterator[Otlp]:
    """Listen for OpenTelemetry's protocol over HTTP."""
    otlp = Otlp("")

    def take(path: str, body: bytes) -> tuple[str, bytes]:
        otlp.bodies.append(body)
        if path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    otlp.metrics.extend(scope.metrics)
            return "application/x-protobuf", ExportMetricsServiceResponse().SerializeToString()
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                otlp.spans.extend(scope.spans)
        return "application/x-protobuf", ExportTraceServiceResponse().SerializeToString()

    with _http_receiver(take) as otlp.endpoint:
        yield otlp


@contextmanager
def lineage_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Listen for OpenLineage's events; gives the address and the list that they come into."""
    events: list[dict[str, Any]] = []

    def take(path: str, body: bytes) -> tuple[str, bytes]:
        assert path == "/api/v1/lineage"
        events.append(json.loads(body))
        return "application/json", b"{}"

    with _http_receiver(take) as address:
        yield address, events


@contextmanager
def _http_receiver(take: Callable[[str, bytes], tuple[str, bytes]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind, reply = take(self.path, gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)

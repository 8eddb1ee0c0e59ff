"""What Airflow tells real receivers of a night: figures by its own stats, and lineage by OpenLineage's listener."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.listeners.listener import get_listener_manager as core_listener_manager
from airflow.observability import stats as trigger_stats
from airflow.observability.metrics import stats_utils as trigger_utils
from airflow.providers.openlineage import conf as lineage_conf
from airflow.providers.openlineage.plugins.listener import OpenLineageListener
from airflow.sdk.listener import get_listener_manager
from airflow.sdk.observability import stats as task_stats
from airflow.sdk.observability.metrics import stats_utils as task_utils
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA as DELTA

from nightbatch.core import metrics
from nightbatch.core.metrics import METRICS
from nightbatch.errors import ProviderBusy
from nightbatch.orchestration import ages
from nightbatch.orchestration.telemetry import task_telemetry
from tests.orchestration.night import Night
from tests.receivers import Statsd, lineage_receiver, otlp_receiver, statsd_receiver

RECORDS = [(f"k{n}", f"text {n}", "2026-11-20") for n in range(4)]
LANE = {"job_name": "night", "provider": "openai", "model": "gpt-5-mini", "lane": "vendor/batch"}


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Let tasks and triggers of this process tell a receiver, set up as Airflow does it in its own processes."""

    def told(port: int, *, tags: bool) -> None:
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "127.0.0.1")
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_PORT", str(port))
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", str(tags))
        _set_up()

    ages._telemetry.cache_clear()
    yield told
    ages._telemetry.cache_clear()
    monkeypatch.undo()
    _set_up()


def _set_up() -> None:
    task_stats.initialize(factory=task_utils.get_stats_factory(), export_legacy_names=True)
    trigger_stats.initialize(factory=trigger_utils.get_stats_factory(), export_legacy_names=True)


def ours(received: Statsd) -> list[str]:
    return [line for line in received.lines if "nightbatch" in line]


def test_a_night_tells_statsd_what_the_ledger_says(night: Night, statsd: Callable[..., Any]) -> None:
    night.fill(RECORDS)

    with statsd_receiver() as received:
        statsd(received.port, tags=True)
        ended = night.run(night.dag())

    (books,) = ended.asset_events
    counters = received.counters()
    lane = frozenset(LANE.items())
    assert counters["airflow.nightbatch.batches", lane] == books["batches"] == 2
    assert counters["airflow.nightbatch.rows_loaded", lane] == books["merged"] == 4
    assert counters["airflow.nightbatch.verdicts", lane | {("kind", "good"), ("reason", "none")}] == books["good"]
    assert counters["airflow.nightbatch.tokens", lane | {("what", "input")}] == books["input_tokens"]
    assert counters["airflow.nightbatch.cost_usd", lane] == pytest.approx(float(books["cost_usd"]), abs=1e-12)
    assert counters["airflow.nightbatch.records", frozenset({("job_name", "night"), ("what", "pulled")})] == 4
    assert counters["airflow.nightbatch.runs", frozenset({("job_name", "night"), ("state", "complete")})] == 1
    timers, gauges = received.timers(), received.gauges()
    assert len(timers["airflow.nightbatch.batch_turnaround"]) == len(timers["airflow.nightbatch.queue_wait"]) == 2
    assert timers["airflow.nightbatch.run_duration"] == [pytest.approx(books["seconds"] * 1000, abs=0.01)]
    assert gauges["airflow.nightbatch.batch_age"][-1] == 0
    told = {line.split(":")[0].split(",")[0].removeprefix("airflow.") for line in ours(received)}
    assert told <= {metric.name for metric in METRICS}
    assert not [line for line in received.lines if "text 1" in line]


def test_plain_statsd_has_the_labels_in_the_name(statsd: Callable[..., Any]) -> None:
    with statsd_receiver() as received:
        statsd(received.port, tags=False)
        telemetry = task_telemetry()
        telemetry.emit(metrics.COST, 0.25, {**LANE, "model": "ft:gpt-5.4/my org,x=1"})
        telemetry.emit(metrics.QUEUE_WAIT, 1.5, LANE)
        telemetry.emit(metrics.BATCH_AGE, 7, LANE)
        telemetry.emit(metrics.RUNS, 1, {"job_name": "night"})

    assert ours(received) == [
        "airflow.nightbatch.cost_usd.night.openai.ft_gpt-5_4_my_org_x_1.vendor_batch:0.25|c",
        "airflow.nightbatch.queue_wait.night.openai.gpt-5-mini.vendor_batch:1500.000000|ms",
        "airflow.nightbatch.batch_age.night.openai.gpt-5-mini.vendor_batch:7|g",
        "airflow.nightbatch.runs.night.none:1|c",
    ]


def test_a_triggerer_tells_the_age_of_its_oldest_batch_and_looks_that_fail(statsd: Callable[..., Any]) -> None:
    now = datetime(2026, 11, 21, 2, tzinfo=UTC)

    with statsd_receiver() as received:
        statsd(received.port, tags=True)
        with ages.watching("old", LANE, now - timedelta(hours=2)) as tell_old:
            with ages.watching("new", LANE, now - timedelta(hours=1)) as tell_new:
                tell_new(now)
                ages.tell_failed_look(LANE, ProviderBusy("openai", "polling", cause="503"))
            tell_old(now + timedelta(minutes=1))

    assert received.gauges() == {"airflow.nightbatch.batch_age": [7200, 7200, 7260, 0]}
    error = frozenset({**LANE, "error": "ProviderBusy"}.items())
    assert received.counters() == {("airflow.nightbatch.poll_errors", error): 1}


TASK = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils

from nightbatch.core import metrics
from nightbatch.orchestration.telemetry import task_telemetry

stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
telemetry, lane = task_telemetry(), {"job_name": "night", "provider": "openai", "model": "m", "lane": "c/batch"}
for usd in (0.25, 0.5):
    telemetry.emit(metrics.COST, usd, lane)
telemetry.emit(metrics.TURNAROUND, 90, lane)
telemetry.emit(metrics.BATCH_AGE, 7.5, lane)
"""
"""What a task does of it: Airflow sets its stats up, and they are sent when the process ends."""


def test_airflows_opentelemetry_sends_what_a_task_adds_and_the_whole_distribution() -> None:
    with otlp_receiver() as otlp:
        told = {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        }
        subprocess.run([sys.executable, "-c", TASK], env={**os.environ, **told}, timeout=60, check=True)

    lane = frozenset({"job_name": "night", "provider": "openai", "model": "m", "lane": "c/batch"}.items())
    assert otlp.sums() == {("airflow.nightbatch.cost_usd", lane): 0.75}
    assert {metric.sum.aggregation_temporality for metric in otlp.metrics if metric.HasField("sum")} == {DELTA}
    assert otlp.histograms()["airflow.nightbatch.batch_turnaround"].sum == 90_000
    assert otlp.gauges() == {"airflow.nightbatch.batch_age": 7.5}


# --- lineage --------------------------------------------------------------------------------------------------


@pytest.fixture
def lineage(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Give the events that OpenLineage's provider emits, with its own listener in Airflow's listener manager."""
    # Plugins are loaded once a process: loaded while a receiver is set, OpenLineage's would listen to all later tests
    # too, in a pool of processes that outlives them.
    manager = get_listener_manager()
    assert not core_listener_manager().has_listeners
    with lineage_receiver() as (address, events):
        transport = f'{{"type": "http", "url": "{address}"}}'
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", transport)
        # A test that is forked takes its servers and threads along; in a task it is the default to fork.
        monkeypatch.setenv("AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD", "True")
        _forget_settings()
        listener = OpenLineageListener()
        manager.add_listener(listener)
        yield events
        manager.pm.unregister(listener)
    monkeypatch.undo()
    _forget_settings()


def _forget_settings() -> None:
    for value in vars(lineage_conf).values():
        if hasattr(value, "cache_clear"):
            value.cache_clear()


def test_openlineage_sees_the_source_and_the_sink(night: Night, lineage: list[dict[str, Any]]) -> None:
    night.fill(RECORDS[:2])

    night.run(night.dag())

    host = night.warehouse.rpartition("@")[2].partition("/")[0]
    database = night.warehouse.rpartition("/")[2].partition("?")[0]
    source, sink = (
        (f"postgres://{host}", f"{database}.public.records"),
        (f"postgres://{host}", f"{database}.public.answers"),
    )
    complete = {event["job"]["name"]: event for event in lineage if event["eventType"] == "COMPLETE"}
    seen = {name: (_named(event["inputs"]), _named(event["outputs"])) for name, event in complete.items()}
    assert seen["night.prepare"] == ([source], [])
    assert seen["night.round_0.batch"] == ([source], [sink])
    assert seen["night.settle"] == ([source], [sink])
    assert "text 1" not in str(lineage)


def _named(datasets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(dataset["namespace"], dataset["name"]) for dataset in datasets]

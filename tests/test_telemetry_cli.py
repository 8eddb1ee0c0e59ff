"""The command line tells a real receiver of OpenTelemetry's protocol what the standard variables ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nightbatch.adapters import telemetry
from nightbatch.adapters.telemetry import OtelTelemetry, telemetry_of
from nightbatch.core import metrics
from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, running
from nightbatch.ports import NoTelemetry
from tests.receivers import attributes, otlp_receiver

JOB = """
name: tickets
source: {files: records.jsonl, key: id}
prompt: {system: "secret question", user: "{{ text }}"}
models: [{provider: openai, model: gpt-5-mini, connection: vendor, max_output_tokens: 100}]
sink: {files: answers/}
shard: {max_rows: 3}
"""


def test_a_run_tells_its_books_and_its_batches_and_nothing_that_records_say(tmp_path: Path) -> None:
    (tmp_path / "tickets.yaml").write_text(JOB)
    records = [{"id": f"k{number}", "text": f"private words {number}"} for number in range(5)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))

    with running(EmulatorSettings(batch_seconds=1)) as vendor, otlp_receiver() as otlp:
        connection = {"conn_type": "openai", "host": f"{vendor}/v1", "password": DEFAULT_KEY}
        books = run_here(
            tmp_path,
            AIRFLOW_CONN_VENDOR=json.dumps(connection),
            OTEL_EXPORTER_OTLP_ENDPOINT=otlp.endpoint,
            OTEL_SERVICE_NAME="nights",
        )

    lane = {"job_name": "tickets", "provider": "openai", "model": "gpt-5-mini", "lane": "vendor/batch"}
    sums = otlp.sums()
    assert books["state"] == "complete"
    assert sums["nightbatch.rows_loaded", frozenset(lane.items())] == books["merged"] == 5
    assert sums["nightbatch.batches", frozenset(lane.items())] == books["batches"] == 2
    assert sums["nightbatch.cost_usd", frozenset(lane.items())] == pytest.approx(float(books["cost_usd"]), abs=1e-12)
    tokens = {dict(labels)["what"]: total for (name, labels), total in sums.items() if name == "nightbatch.tokens"}
    assert (tokens["input"], tokens["output"]) == (books["input_tokens"], books["output_tokens"])
    assert {name for name, _ in sums} | set(otlp.histograms()) | set(otlp.gauges()) <= {
        it.name for it in metrics.METRICS
    }
    turnaround = otlp.histograms()["nightbatch.batch_turnaround"]
    assert (turnaround.count, turnaround.explicit_bounds[-1]) == (2, 108_000)
    assert otlp.gauges()["nightbatch.batch_age"] == 0
    batches = [attributes(span) for span in otlp.spans if span.name == "chat gpt-5-mini"]
    assert sum(batch["gen_ai.usage.input_tokens"] for batch in batches) == books["input_tokens"]
    assert {batch["gen_ai.provider.name"] for batch in batches} == {"openai"}
    steps = {span.name for span in otlp.spans} - {"chat gpt-5-mini"}
    assert steps == {f"nightbatch.{name}" for name in STEPS}
    everything = b"".join(otlp.bodies)
    assert b"nights" in everything
    assert not [word for word in (b"private words", b"secret question", DEFAULT_KEY.encode()) if word in everything]


STEPS = ("prepare", "submit", "collect", "validate", "load", "retry", "settle")


def run_here(folder: Path, **environ: str) -> dict[str, Any]:
    """Carry out `nightbatch run` as a process of its own, which flushes when it ends."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("NIGHTBATCH", "AIRFLOW", "OTEL"))
    }
    waits = {"NIGHTBATCH_POLL_FROM_S": "0.2", "NIGHTBATCH_POLL_TO_S": "0.5"}
    done = subprocess.run(
        [sys.executable, "-m", "nightbatch.cli", "run", "tickets.yaml", "--json"],
        cwd=folder,
        env={**inherited, **waits, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    books: dict[str, Any] = json.loads(done.stdout)
    return books


# --- who is told ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "nights"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_nobody_is_told_unless_the_variables_name_a_receiver(environ: dict[str, str]) -> None:
    assert isinstance(telemetry_of(environ), NoTelemetry)


def test_a_receiver_without_the_packages_is_a_warning_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "_is_installed", lambda: False)

    assert isinstance(telemetry_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}), NoTelemetry)
    assert "pip install 'nightbatch[otel]'" in caplog.text


def test_a_receiver_that_breaks_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telling = OtelTelemetry()

    def broken(*_: object) -> None:
        raise OSError("no room in the buffer")

    monkeypatch.setattr(telling, "_instrument", lambda metric: broken)
    telling.emit(metrics.RUNS, 1, {"job_name": "tickets"})

    assert "nightbatch.runs is not told" in caplog.text

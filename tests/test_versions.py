"""
Two versions of the library, one minor apart, work on one run: real processes, one ledger, one vendor.

The newer one is this library copied, with a higher version, a key of the job file that this one does not know, and
facts of its own in the plan.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nightbatch import __version__
from nightbatch.cli import app
from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, running

LIBRARY = Path(__file__).parents[1] / "include" / "nightbatch"

JOB = """
name: tickets
source: {files: records.jsonl, key: id}
prompt: {user: "{{ text }}"}
models: [{provider: openai, model: gpt-5-mini, connection: vendor, max_output_tokens: 100}]
sink: {files: answers/, format: jsonl}
rounds: 1
"""

STEP = """
import os, sys
from datetime import UTC, datetime
from nightbatch import __version__, flow
from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.window import Window
from nightbatch.errors import NightbatchError
from nightbatch.job_file import load_job

assert __version__ == sys.argv[2], __version__
job = load_job("tickets.yaml")
ports = open_ports(job, settings_from(os.environ), from_environment(os.environ))
window = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
try:
    if sys.argv[1] == "prepare":
        flow.prepare(ports, job, window)
    else:
        run = flow.find_run(ports, job, window)
        sealed = flow.sealed_job(ports, run.run)
        if sys.argv[1] == "batch":
            for shard in ports.ledger.shards(run.run):
                flow.advance(ports, sealed, shard.plan.ref)
        else:
            flow.run(ports, job, window)
except NightbatchError as error:
    print(type(error).__name__, error)
"""


@dataclass(frozen=True)
class Desk:
    """A folder with a job and its records, and the two versions."""

    folder: Path
    environment: dict[str, str]

    def step(self, name: str, version: str) -> str:
        """Take one step of the run in a process of one version; gives what it says."""
        path = {"0.1.0": LIBRARY.parent, "0.2.0": self.folder / "newer"}[version]
        done = subprocess.run(
            [sys.executable, "-c", STEP, name, version],
            cwd=self.folder,
            env={**os.environ, **self.environment, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def answered(self) -> list[str]:
        """List the keys in the sink."""
        lines = [line for file in (self.folder / "answers").rglob("*.jsonl") for line in file.read_text().splitlines()]
        return sorted(json.loads(line)["id"] for line in lines)


def newer_library(folder: Path) -> None:
    """Write the library as its next minor version may be."""
    shutil.copytree(LIBRARY, folder / "nightbatch", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    changes = {
        "__init__.py": ('__version__ = "0.1.0"', '__version__ = "0.2.0"'),
        "job.py": (
            "    min_rows: Annotated",
            '    tomorrow: dict[str, str] | None = None\n    """New."""\n    min_rows: Annotated',
        ),
        "steps/planning.py": ('        "goes_on":', '        "told_by_tomorrow": [1, 2],\n        "goes_on":'),
    }
    for name, (old, new) in changes.items():
        file = folder / "nightbatch" / name
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} no longer says {old!r}"
        file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newer")
    newer_library(folder)
    return folder


@pytest.fixture
def desk(tmp_path: Path, newer: Path) -> Iterator[Desk]:
    (tmp_path / "newer").symlink_to(newer)
    (tmp_path / "tickets.yaml").write_text(JOB)
    records = [{"id": f"k{number}", "text": f"text {number}"} for number in range(4)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    with running(EmulatorSettings(batch_seconds=0.1)) as vendor:
        connection = {"conn_type": "openai", "host": f"{vendor}/v1", "password": DEFAULT_KEY}
        yield Desk(
            tmp_path,
            {
                "AIRFLOW_CONN_VENDOR": json.dumps(connection),
                "NIGHTBATCH_HOME": str(tmp_path / "home"),
                "NIGHTBATCH_POLL_FROM_S": "0.1",
                "NIGHTBATCH_POLL_TO_S": "0.2",
            },
        )


def test_the_command_line_says_its_version() -> None:
    said = CliRunner().invoke(app, ["--version"])

    assert (said.exit_code, said.stdout) == (0, f"nightbatch {__version__}\n")


def test_what_a_newer_version_planned_an_older_one_sends_and_the_newer_one_collects(desk: Desk) -> None:
    assert [desk.step("prepare", "0.2.0"), desk.step("batch", "0.1.0"), desk.step("collect", "0.2.0")] == ["", "", ""]

    assert desk.answered() == ["k0", "k1", "k2", "k3"]


def test_what_an_older_version_planned_and_sent_a_newer_one_collects(desk: Desk) -> None:
    assert [desk.step("prepare", "0.1.0"), desk.step("collect", "0.2.0")] == ["", ""]

    assert desk.answered() == ["k0", "k1", "k2", "k3"]


def test_what_the_older_version_does_not_understand_waits_for_the_newer_one(desk: Desk) -> None:
    """A key of the newer version is set: the older one says so, sends nothing, and loses nothing."""
    (desk.folder / "tickets.yaml").write_text(f"{JOB}tomorrow: {{label: strict}}\n")
    assert desk.step("prepare", "0.2.0") == ""
    (desk.folder / "tickets.yaml").write_text(JOB)

    said = desk.step("batch", "0.1.0")

    assert said.startswith("PlanUnreadable run tickets/")
    assert "does not understand tomorrow" in said
    assert desk.answered() == []
    assert desk.step("collect", "0.2.0") == ""
    assert desk.answered() == ["k0", "k1", "k2", "k3"]

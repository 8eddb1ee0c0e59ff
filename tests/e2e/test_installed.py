"""nightbatch in an Airflow that was there before: a wheel in an environment of its own, and no file copied."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, running

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")

DAG_FILE = """\
from nightbatch.airflow_dags import dags_from
globals().update(dags_from({folder!r}))
"""

JOB = """\
name: ticket_mood
source: {{files: {folder}/tickets.csv, key: id}}
prompt: {{user: "How does this sound? {{{{ body }}}}"}}
models: [{{provider: openai, model: gpt-5-mini, connection: vendor, max_output_tokens: 100}}]
sink: {{files: {folder}/answers/, format: jsonl}}
rounds: 0
notify: {{on: [failed]}}
"""


NIGHT = {"window_start": "2026-11-20T00:00:00Z", "window_end": "2026-11-21T00:00:00Z"}


@dataclass(frozen=True)
class Installed:
    """An Airflow of its own, with nightbatch installed beside it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Run a command of this environment; gives what it prints."""
        program = self.folder / "venv" / "bin" / command[0]
        done = subprocess.run(
            [program, *command[1:]],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout


def install(folder: Path) -> None:
    """Build the wheel, and install it with Airflow as a stranger does; held to the versions that are cached."""
    subprocess.run([UV, "build", "-q", "--wheel", "--out-dir", folder / "dist", ROOT], check=True)
    export = ["export", "-q", "--frozen", "--all-extras", "--no-hashes", "--no-emit-project"]
    subprocess.run([UV, *export, "--output-file", folder / "locked.txt"], cwd=ROOT, check=True)
    [wheel] = (folder / "dist").glob("*.whl")
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder / "venv"], check=True)
    wanted = [f"apache-airflow=={version('apache-airflow')}", f"{wheel}[postgres,s3,openai,anthropic]"]
    held = ["--python", folder / "venv", "--constraints", folder / "locked.txt"]
    subprocess.run([UV, "pip", "install", "-q", *held, *wanted], check=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel in a clean environment, a job file in a folder somewhere, and a vendor on loopback."""
    folder = tmp_path_factory.mktemp("installed")
    install(folder)
    jobs = folder / "elsewhere"
    for each in (folder / "dags", folder / "home", jobs):
        each.mkdir()
    (folder / "dags" / "everything.py").write_text(DAG_FILE.format(folder=str(jobs)))
    (jobs / "mood.yaml").write_text(JOB.format(folder=jobs))
    with (jobs / "tickets.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "body"), ("a", "All well"), ("b", "It broke"), ("c", "Where is it?")])
    ours = ("AIRFLOW", "_AIRFLOW", "NIGHTBATCH", "PYTHON", "VIRTUAL_ENV")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with running(EmulatorSettings(batch_seconds=0.2)) as vendor:
        yield Installed(
            folder,
            {
                **inherited,
                "PATH": f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "AIRFLOW_HOME": str(folder / "home"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
                "AIRFLOW_CONN_VENDOR": json.dumps(
                    {"conn_type": "openai", "host": f"{vendor}/v1", "password": DEFAULT_KEY}
                ),
                "NIGHTBATCH_HOME": str(folder / "nightbatch"),
            },
        )


def test_the_wheel_leaves_the_demo_out(installed: Installed) -> None:
    """It starts servers that strangers do not have, in this project's folders."""
    [wheel] = (installed.folder / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert "nightbatch/airflow_dags.py" in names
    assert [name for name in names if name.startswith("nightbatch/demo")] == []


def test_an_installed_wheel_runs_a_job_from_any_folder(installed: Installed) -> None:
    installed.run("airflow", "db", "migrate")

    [provider] = [
        row
        for row in json.loads(installed.run("airflow", "providers", "list", "-o", "json"))
        if row["package_name"] == "nightbatch"
    ]
    assert provider["version"] == version("nightbatch")
    [plugin] = [
        row for row in json.loads(installed.run("airflow", "plugins", "-o", "json")) if row["name"] == "nightbatch"
    ]
    assert plugin["source"].startswith(f"nightbatch=={version('nightbatch')}")

    installed.run("airflow", "dags", "test", "ticket_mood", "--conf", json.dumps(NIGHT))

    answers = [
        json.loads(line)
        for file in (installed.folder / "elsewhere" / "answers").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    assert sorted(row["id"] for row in answers) == ["a", "b", "c"]

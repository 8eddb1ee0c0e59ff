"""One installation for many tests: the demo's services and Airflow, with job files and vendors of the tests' own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from nightbatch.core.window import Window
from nightbatch.demo.installation import KEY, PROJECT, Installation, start_emulator
from nightbatch.demo.services.airflow_api import AirflowApi
from nightbatch.demo.services.stack import Stack
from nightbatch.demo.services.waiting import monotonic_s, wait_until
from tests.receivers import Otlp, Statsd

LONG_S = 420.0
"""How long anything may take that takes a minute on two cores with nothing else to do."""

DAYS = [datetime(2025, 3, day, tzinfo=UTC) for day in range(10, 15)]
"""The nights of these tests: long past, so that every deadline of theirs is an old one."""
WINDOW = Window(DAYS[0], DAYS[0] + timedelta(days=1))

DAG_FILE = """
from pathlib import Path

from airflow.sdk import dag, task
from nightbatch.orchestration.dag import build_dags

globals().update(build_dags(Path(__file__).parent / "jobs"))


@dag(schedule=None)
def another():
    @task
    def hello():
        return "hello"

    hello()


another()
"""

TABLE = """
create table night_reviews as
select sentence_id, text, timestamptz '2025-03-10 00:00Z' + (review_id % 5) * interval '1 day'
  + review_id * interval '1 minute' as reviewed_at
from (select distinct on (text) * from product_reviews order by text, sentence_id) unlike
"""

QUERY = """
select sentence_id, text from night_reviews
where reviewed_at >= :window_start and reviewed_at < :window_end
order by sentence_id
"""

ANSWER = json.loads((PROJECT / "include/prompts/review_sentiment.schema.json").read_text())
ANSWER_COLUMNS = (
    "sentence_id, sentiment, confidence, reason, nb_answer, nb_model, nb_round, nb_duplicate_of, nb_input_tokens, "
    "nb_output_tokens, nb_cost_usd, nb_window_start, nb_window_end"
)
"""What two runs must agree on: all but the names of run and job, the fingerprint and the custom_id."""


def job(name: str, **changes: Any) -> dict[str, Any]:
    """Describe a job that asks the vendor of its own name, and tells people only of what goes wrong."""
    return {
        "name": name,
        "source": {"query": QUERY, "connection": "warehouse", "key": "sentence_id"},
        "prompt": {"system": "Rate the sentiment.", "user": "{{ text }}"},
        "answer": {"schema": ANSWER},
        "models": [
            {"provider": "openai", "model": "gpt-5-mini", "connection": f"openai_{name}", "max_output_tokens": 300}
        ],
        "sink": {"table": name, "connection": "warehouse"},
        "rounds": 1,
        "max_dead_share": 0.1,
        "notify": {"mail": ["night@example.com"], "slack_connection": "slack_alerts", "on": ["late", "failed"]},
        **changes,
    }


def write_dags(folder: Path, jobs: list[dict[str, Any]]) -> Path:
    """Write a folder of Dags: one for each job, and one that has nothing to do with us."""
    (folder / "jobs").mkdir(parents=True)
    for values in jobs:
        (folder / "jobs" / f"{values['name']}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "all.py").write_text(DAG_FILE)
    return folder


@dataclass(frozen=True)
class Vendor:
    """An emulated OpenAI of one job's own: its batches are the job's, and its faults nobody else's."""

    job: str
    address: str

    def state(self) -> dict[str, Any]:
        """Tell what has happened so far."""
        return self._call("GET", "/emulator/state")

    def batch_ids(self) -> list[str]:
        """List the ids of all batches ever made, sorted."""
        return sorted(batch["id"] for batch in self.state()["batches"])

    def asked(self) -> dict[str, int]:
        """Count questions: asked, billed, answered well, and each of these more than once."""
        rows = dict(self.state()["rows"])
        rows.pop("repeated")
        return rows

    def work(self) -> list[tuple[Any, ...]]:
        """Tell what it did, without the names it gave."""
        names = ("rows", "billed_rows", "good_rows", "input_tokens", "output_tokens")
        return sorted(tuple(batch[name] for name in names) for batch in self.state()["batches"])

    def change_faults(self, **faults: Any) -> None:
        """Put other values of these faults in force."""
        self._call("PATCH", "/emulator/faults", json=faults)

    def connection(self) -> dict[str, Any]:
        """Give the connection as Airflow has it."""
        return {"conn_type": "openai", "host": f"{self.address}/v1", "password": KEY}

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        response = httpx.request(method, f"{self.address}{path}", headers=headers, trust_env=False, **request)
        return dict(response.raise_for_status().json())


@dataclass
class Stand:
    """The installation, and how these tests look at it."""

    stack: Stack
    installation: Installation
    vendors: dict[str, Vendor] = field(default_factory=dict)
    statsd: Statsd = field(default_factory=lambda: Statsd(0))
    otlp: Otlp = field(default_factory=lambda: Otlp(""))
    """Who is told of figures and spans, where Airflow is set up to tell."""

    @property
    def api(self) -> AirflowApi:
        """Airflow's REST API."""
        return self.installation.airflow.api

    def vendor(self, job: str, *, batch_seconds: float = 2.0, **faults: Any) -> Vendor:
        """Start the vendor of a job, and tell Airflow of it, as a person would in the UI."""
        named = {name: str(value) for name, value in faults.items()}
        server = start_emulator(self.stack, f"vendor-{job}", faults=named, batch_seconds=batch_seconds)
        self.vendors[job] = vendor = Vendor(job, server.address)
        body = {"connection_id": f"openai_{job}", **vendor.connection()}
        self.api.call("POST", "/connections", body=body)
        self.api.unpause(job)
        return vendor

    def make_table(self) -> None:
        """Make the table of past nights."""
        with psycopg.connect(self.installation.warehouse_url) as connection:
            connection.execute(TABLE)

    def start(self, job: str, *, window: Window = WINDOW, **conf: Any) -> str:
        """Trigger a manual run of a window; gives Airflow's run id."""
        named = {"window_start": window.start.isoformat(), "window_end": window.end.isoformat()}
        return str(self.api.trigger(job, conf={**named, **conf})["dag_run_id"])

    def end(self, job: str, run_id: str, *, timeout_s: float = LONG_S) -> str:
        """Wait for the end of a run; gives its state."""
        return str(self.api.wait_for_run(job, run_id, timeout_s=timeout_s)["state"])

    def clear(self, job: str, run_id: str, *, only_failed: bool = False) -> str:
        """Clear a run and wait for its new end; gives its state."""
        self.api.clear_run(job, run_id, only_failed=only_failed)
        return self.end(job, run_id)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the warehouse."""
        with psycopg.connect(self.installation.warehouse_url) as connection:
            return connection.execute(query, values).fetchall()

    def ledger(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the ledger."""
        with psycopg.connect(self.installation.environment["NIGHTBATCH_LEDGER_URL"]) as connection:
            return connection.execute(query, values).fetchall()

    def keys(self, window: Window = WINDOW) -> list[str]:
        """List what a window's query gives."""
        query = "select sentence_id from night_reviews where reviewed_at >= %s and reviewed_at < %s order by 1"
        return [key for (key,) in self.rows(query, window.start, window.end)]

    def loaded(self, job: str) -> list[str]:
        """List the keys that a job's sink holds."""
        return [key for (key,) in self.rows(f"select sentence_id from {job} order by 1")]

    def sink_hash(self, job: str, columns: str = ANSWER_COLUMNS) -> str:
        """Hash a job's answers, sorted by key."""
        rows = self.rows(f"select {columns} from {job} order by sentence_id")
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def buried(self, job: str) -> list[tuple[Any, ...]]:
        """List the dead letters of a job."""
        return self.rows(f"select sentence_id, nb_reason, nb_round, nb_cost_usd from {job}_dead_letters order by 1")

    def cost(self, job: str) -> Any:
        """Tell what a job was billed, in all of its runs."""
        return self.ledger("select sum(usd) from nb_money where job = %s and kind = 'actual'", job)[0][0]

    def shards(self, job: str) -> dict[str, int]:
        """Count a job's shards by state."""
        query = "select s.state, count(*) from nb_shards s join nb_runs r using (run) where r.job = %s group by 1"
        return {str(state): int(count) for state, count in self.ledger(query, job)}

    def known_batches(self, job: str) -> list[str]:
        """List the batch ids that the ledger knows of a job, sorted."""
        query = (
            "select batch_id from nb_attempts a join nb_runs r using (run) where r.job = %s and batch_id is not null"
        )
        return sorted(batch_id for (batch_id,) in self.ledger(query, job))

    def until_shards(self, job: str, *, timeout_s: float = LONG_S, **states: int) -> float:
        """Wait until a job has so many shards in these states; gives the seconds."""
        began = monotonic_s()

        def reached() -> bool:
            found = self.shards(job)
            return all(found.get(state, 0) == count for state, count in states.items())

        wait_until(reached, what=f"shards of {job} to be {states}", timeout_s=timeout_s, every_s=0.3)
        return monotonic_s() - began

    def until_waiting(self, job: str, run_id: str, task_id: str, count: int, *, timeout_s: float = LONG_S) -> float:
        """Wait until so many mapped tasks are deferred, so hold no worker; gives the seconds."""
        began = monotonic_s()

        def waiting() -> bool:
            found = self.api.mapped_instances(job, run_id, task_id)
            return [each["state"] for each in found] == ["deferred"] * count

        wait_until(waiting, what=f"{count} × {task_id} of {job} to be deferred", timeout_s=timeout_s, every_s=0.5)
        return monotonic_s() - began

    def told(self, job: str, *, day: str = "") -> tuple[list[str], list[str]]:
        """List what people heard about a job's windows, or those that begin so: a mail's subject, a text in Slack."""
        about = re.compile(rf"\b{job}/{day}\d")
        mails = [mail.subject for mail in self.installation.mail.mails() if about.search(mail.text)]
        sent = self.installation.slack.messages()
        texts = [message.text for message in sent if about.search(json.dumps(message.payload))]
        return mails, texts

    def command_line(self, job: str, *arguments: str, window: Window = WINDOW) -> subprocess.Popen[str]:
        """Start `nightbatch run` for a job's file, with the environment that Airflow's tasks have."""
        file = self.installation.airflow.settings.dags_folder / "jobs" / f"{job}.yaml"
        span = ["--from", window.start.isoformat(), "--to", window.end.isoformat()]
        connection = {f"AIRFLOW_CONN_OPENAI_{job.upper()}": json.dumps(self.vendors[job].connection())}
        return subprocess.Popen(
            [sys.executable, "-m", "nightbatch.cli", "run", str(file), *span, "--json", *arguments],
            env={**_inherited(), **self.installation.environment, **connection},
            stdout=subprocess.PIPE,
            text=True,
        )


def _inherited() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "NIGHTBATCH"))}

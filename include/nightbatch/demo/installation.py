"""The demo's installation: every service on loopback, the emulator as the vendor, and Airflow on top."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.registry import open_ledger, settings_from
from nightbatch.demo import reviews
from nightbatch.demo.services.airflow import AirflowServer
from nightbatch.demo.services.airflow_settings import AirflowSettings
from nightbatch.demo.services.airflow_supervisor import PRELOAD
from nightbatch.demo.services.celery import CeleryWorker, celery_settings
from nightbatch.demo.services.http_command import HttpCommand
from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.postgres import PostgresServer
from nightbatch.demo.services.postgres import airflow_connection as postgres_connection
from nightbatch.demo.services.s3 import S3Server
from nightbatch.demo.services.slack import SlackSink
from nightbatch.demo.services.stack import METADATA_DATABASE, Stack
from nightbatch.ports import Connections, Ledger

PROJECT = Path(__file__).parents[3]
BUCKET, STAGING = "reviews", "nightbatch-staging"
KEY = "demo-key"

FAULTS = {
    "permanent": "0.004",
    "transient": "0.01",
    "expired": "0.01",
    "truncated": "0.01",
    "off_schema": "0.01",
    "not_json": "0.004",
    "missing": "0.002",
    "duplicate": "0.003",
    "shuffle": "1",
    # The fourth shard of the OpenAI job comes late, so that its deadline is missed and people are told.
    "late_match": "r0-s003",
    "late_seconds": "40",
}
"""What the emulator is told to get wrong: see docs/emulator.md."""


PRELOADED = ("openai", "anthropic", "alembic.command", "boto3", "duckdb", "obstore", "psycopg", "pyarrow.parquet")
"""What tasks import: 0.7 CPU seconds a task, which its process gets for nothing from one that has it loaded."""


@dataclass(frozen=True)
class Installation:
    """What the demo started, and how to look at it."""

    airflow: AirflowServer
    postgres: PostgresServer
    s3: S3Server
    mail: MailSink
    slack: SlackSink
    warehouse_url: str
    environment: Mapping[str, str]
    is_real: bool
    workers: tuple[CeleryWorker, ...] = ()
    """Where tasks run with CeleryExecutor; none with LocalExecutor, whose tasks run beside the scheduler."""

    @property
    def connections(self) -> Connections:
        """Look the demo's own connections up."""
        return from_environment(self.environment)

    def ledger(self) -> Ledger:
        """Open the demo's ledger."""
        return open_ledger(settings_from(self.environment))


def install(
    stack: Stack,
    *,
    is_real: bool,
    faults: Mapping[str, str] | None = None,
    batch_seconds: float = 6.0,
    dags_folder: Path = PROJECT / "dags",
    extra: Mapping[str, str] | None = None,
    workers: int = 0,
    tell: Callable[[str], None] = lambda _: None,
) -> Installation:
    """
    Start everything and load the data; about 25 s on two cores.

    Ledger, warehouse, buckets, Airflow's own database, mails and messages are made anew, so that each demo begins
    with the first night, and no run of an earlier one goes on in it. With `is_real` the vendors are the real ones,
    with the keys of the environment, and money is spent. `extra` are more variables for Airflow and its tasks, which
    win over ours. With `workers`, Redis and so many Celery workers run the tasks, each in a working folder of its own.
    """
    postgres, s3, mail, slack = stack.start_stores_and_sinks()
    postgres.drop_database(METADATA_DATABASE)
    mail.clear()
    slack.clear()
    warehouse, ledger = (_new_database(postgres, name) for name in ("warehouse", "nightbatch"))
    connections = {
        "warehouse": postgres_connection(warehouse),
        "aws_default": s3.airflow_connection(),
        "smtp_default": mail.airflow_connection(),
        "slack_alerts": slack.airflow_connection(),
        **(_real_vendors() if is_real else _emulator(stack, FAULTS if faults is None else faults, batch_seconds)),
    }
    environment = {
        "NIGHTBATCH_LEDGER_URL": ledger,
        "NIGHTBATCH_STAGING_URI": f"s3://{STAGING}/runs",
        "NIGHTBATCH_STAGING_CONNECTION": "aws_default",
        # The demo is about one night; nobody is told that the others had no run.
        "NIGHTBATCH_MISSING_AFTER_S": str(10 * 365 * 86_400),
        **({} if is_real else {"NIGHTBATCH_POLL_FROM_S": "2", "NIGHTBATCH_POLL_TO_S": "5"}),
        **(extra or {}),
    }
    variables = {f"AIRFLOW_CONN_{name.upper()}": value for name, value in connections.items()}
    for name in (BUCKET, STAGING):
        _empty_bucket(s3.create_bucket(name), variables)
    tell("data: loading 3,708 review sentences")
    reviews.load_warehouse(warehouse)
    reviews.load_bucket(ObjectStore(f"s3://{BUCKET}/incoming", from_environment(variables)("aws_default")))
    open_ledger(settings_from(environment))
    if workers:
        metadata = postgres.create_database(METADATA_DATABASE)
        environment |= celery_settings(stack.start_redis(), metadata)
    airflow = stack.start_airflow(
        postgres,
        dags_folder=dags_folder,
        plugins_folder=PROJECT / "plugins",
        connections=connections,
        settings=lambda chosen: _with(chosen, environment),
    )
    at_work = tuple(stack.start_workers(airflow, workers))
    return Installation(airflow, postgres, s3, mail, slack, warehouse, {**environment, **variables}, is_real, at_work)


def _with(chosen: AirflowSettings, environment: Mapping[str, str]) -> AirflowSettings:
    return replace(chosen, extra={**chosen.extra, **environment, PRELOAD: ",".join(PRELOADED)})


def _new_database(postgres: PostgresServer, name: str) -> str:
    postgres.drop_database(name)
    return postgres.create_database(name)


def _empty_bucket(name: str, variables: Mapping[str, str]) -> None:
    store = ObjectStore(f"s3://{name}", from_environment(variables)("aws_default"))
    for file in list(store.names("")):
        store.delete(file)


def _emulator(stack: Stack, faults: Mapping[str, str], batch_seconds: float) -> dict[str, str]:
    shutil.rmtree(stack.folder / "emulator" / "data", ignore_errors=True)
    address = start_emulator(stack, "emulator", faults=faults, batch_seconds=batch_seconds).address
    return {
        "openai_default": json.dumps({"conn_type": "openai", "host": f"{address}/v1", "password": KEY}),
        "anthropic_default": json.dumps({"conn_type": "anthropic", "host": address, "password": KEY}),
    }


def start_emulator(stack: Stack, name: str, *, faults: Mapping[str, str], batch_seconds: float) -> HttpCommand:
    """Start an emulated vendor, whose one key is `KEY`."""
    options = ["--key", KEY, "--batch-seconds", str(batch_seconds), "--data-dir", str(stack.folder / name / "data")]
    if faults:
        options += ["--faults", ",".join(f"{fault}={value}" for fault, value in faults.items())]
    return stack.start_http_command(
        name,
        lambda port: [
            *(sys.executable, "-m", "nightbatch.cli", "emulator", "serve"),
            *("--port", str(port), "--exit-with-parent", *options),
        ],
        ready_path="/emulator/health",
    )


def _real_vendors() -> dict[str, str]:
    keys = {"openai": os.environ.get("OPENAI_API_KEY", ""), "anthropic": os.environ.get("ANTHROPIC_API_KEY", "")}
    missing = [f"{vendor.upper()}_API_KEY" for vendor, key in keys.items() if not key]
    if missing:
        raise SystemExit(f"The real vendors need {' and '.join(missing)} in .env, and money is spent with them.")
    return {f"{vendor}_default": json.dumps({"conn_type": vendor, "password": key}) for vendor, key in keys.items()}

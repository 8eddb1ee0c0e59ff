"""An Airflow with an empty database, and one night's installation under it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.postgres import airflow_connection
from nightbatch.demo.services.slack import SlackSink
from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, Faults, running
from nightbatch.orchestration import trigger
from tests.servers import PostgresForTests, mail_sink, postgres_server, slack_sink

__all__ = ["mail_sink", "postgres_server", "slack_sink"]

FAST = {
    "NIGHTBATCH_POLL_FROM_S": "0.1",
    "NIGHTBATCH_POLL_TO_S": "0.5",
    "NIGHTBATCH_QUEUE_WAIT_S": "0.2",
}


@pytest.fixture(scope="session")
def airflow() -> None:
    """Airflow's own tables, in a new database."""
    from airflow.utils.db import initdb

    Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).mkdir(exist_ok=True)
    initdb()


@pytest.fixture
def make_night(
    airflow: None,
    postgres_server: PostgresForTests,
    mail_sink: MailSink,
    slack_sink: SlackSink,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """Set an installation up; takes faults by name, the emulator's settings, and the ledger's kind."""

    from tests.orchestration.night import Night, forget_runs

    forget_runs()
    with ExitStack() as stack:

        def make(*, ledger: str = "sqlite", faults: str = "", **settings: Any) -> Night:
            settings = {"batch_seconds": 0.3, "faults": Faults.parse(faults), **settings}
            vendor = stack.enter_context(running(EmulatorSettings(**settings)))
            warehouse = postgres_server.new_database()
            ledgers = {"sqlite": f"sqlite:///{tmp_path / 'ledger.sqlite'}", "postgres": postgres_server.new_database()}
            env = {
                **FAST,
                "NIGHTBATCH_LEDGER_URL": ledgers[ledger],
                "NIGHTBATCH_STAGING_URI": str(tmp_path / "staging"),
                "AIRFLOW_CONN_WAREHOUSE": airflow_connection(warehouse),
                "AIRFLOW_CONN_VENDOR": json.dumps(
                    {"conn_type": "openai", "host": f"{vendor}/v1", "password": DEFAULT_KEY}
                ),
                "AIRFLOW_CONN_SMTP_DEFAULT": mail_sink.airflow_connection(),
                "AIRFLOW_CONN_SLACK_ALERTS": slack_sink.airflow_connection(),
            }
            for name, value in env.items():
                monkeypatch.setenv(name, value)
            return Night(tmp_path, warehouse, vendor, env)

        monkeypatch.setattr(trigger, "FIRST_LOOK_S", 0.05)
        yield make


@pytest.fixture
def night(make_night: Callable[..., Any]) -> Any:
    """An installation without faults, its ledger in SQLite."""
    return make_night()

"""One nightbatch under Airflow on this machine: warehouse, staging folder, ledger, an emulated vendor, and alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import psycopg
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.models import DagRun, TaskInstance
from airflow.models.asset import AssetEvent
from airflow.models.taskinstance import clear_task_instances
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.definitions.dag import _run_task
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import delete, select

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.registry import open_ledger, settings_from
from nightbatch.core.window import Window
from nightbatch.emulator import DEFAULT_KEY
from nightbatch.job import Job
from nightbatch.orchestration.dag import build_dag
from nightbatch.orchestration.windows import instant
from nightbatch.ports import Run

NIGHT = {"window_start": "2026-11-20T00:00:00+00:00", "window_end": "2026-11-21T00:00:00+00:00"}
"""The window of most tests, as the trigger form says it."""
NEXT_NIGHT = {"window_start": "2026-11-21T00:00:00+00:00", "window_end": "2026-11-22T00:00:00+00:00"}
WEEK = {"window_start": "2026-11-16T00:00:00+00:00", "window_end": "2026-11-23T00:00:00+00:00"}
"""Overlaps both nights."""

QUERY = "select id, body from records where changed_at >= :window_start and changed_at < :window_end order by id"
IMPATIENT = {"owner": "tests", "retries": 2, "retry_delay": timedelta(0)}
"""As many tries as it takes to see whether a task is tried again, without the pauses in between."""


@dataclass(frozen=True)
class Ended:
    """How a Dag run ended, read back from Airflow's own tables."""

    dag: DAG
    run_id: str

    @cached_property
    def state(self) -> str:
        """`success` or `failed`."""
        with create_session() as session:
            return str(session.scalar(select(DagRun.state).where(*self._here(DagRun))))

    @cached_property
    def tasks(self) -> dict[str, str]:
        """Task -> state; mapped instances are `round_0.batch[1]`. Skipped and unexpanded tasks stand here too."""
        with create_session() as session:
            found = session.scalars(select(TaskInstance).where(*self._here(TaskInstance))).all()
            return {_name(ti): str(ti.state) for ti in sorted(found, key=lambda ti: (ti.task_id, ti.map_index))}

    @property
    def ran(self) -> set[str]:
        """The tasks that began and did not leave themselves out."""
        return {name for name, state in self.tasks.items() if state in ("success", "failed")}

    @cached_property
    def tries(self) -> dict[str, int]:
        """Task -> how often it was begun; deferring and resuming is one try."""
        with create_session() as session:
            found = session.scalars(select(TaskInstance).where(*self._here(TaskInstance))).all()
            return {_name(ti): ti.try_number for ti in found}

    @cached_property
    def xcoms(self) -> dict[tuple[str, str], Any]:
        """(task, key) -> value."""
        with create_session() as session:
            found = session.scalars(select(XComModel).where(*self._here(XComModel))).all()
            return {(_name(row), row.key): XComModel.deserialize_value(row) for row in found}

    @cached_property
    def asset_events(self) -> list[dict[str, Any]]:
        """What every asset event of this run carries as extra."""
        with create_session() as session:
            mine = (AssetEvent.source_dag_id == self.dag.dag_id, AssetEvent.source_run_id == self.run_id)
            return [dict(event.extra) for event in session.scalars(select(AssetEvent).where(*mine))]

    def _here(self, table: Any) -> tuple[Any, Any]:
        return table.dag_id == self.dag.dag_id, table.run_id == self.run_id


def _name(row: Any) -> str:
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


@dataclass
class Night:
    """An installation; every connection reaches its parts through `AIRFLOW_CONN_*` variables."""

    folder: Path
    warehouse: str
    """libpq URL."""
    vendor: str
    """Address of the emulator."""
    env: Mapping[str, str]

    def fill(self, records: Sequence[tuple[str, str, str]]) -> None:
        """Put records (id, body, day) into the warehouse, over what has these ids."""
        with psycopg.connect(self.warehouse, autocommit=True) as connection:
            connection.execute(
                "create table if not exists records (id text primary key, body text, changed_at timestamptz)"
            )
            with connection.cursor() as cursor:
                cursor.executemany(
                    "insert into records values (%s, %s, %s) on conflict (id) do update"
                    " set body = excluded.body, changed_at = excluded.changed_at",
                    [(key, body, f"{day}T12:00:00+00:00") for key, body, day in records],
                )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL in the warehouse; gives its rows, if it has any."""
        with psycopg.connect(self.warehouse, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def answers(self, table: str = "answers") -> dict[str, str]:
        """Give what the sink holds: key -> answer; nothing where the table was never made."""
        if self.sql(f"select to_regclass('{table}')") == [(None,)]:
            return {}
        return dict(self.sql(f"select id, answer from {table}"))

    def dead(self, table: str = "answers_dead_letters") -> dict[str, str]:
        """Give the dead letters: key -> reason."""
        return dict(self.sql(f"select id, nb_reason from {table}"))

    def job(self, **changes: Any) -> Job:
        """Make a small job; `changes` replace its keys."""
        values: dict[str, Any] = {
            "name": "night",
            "source": {"query": QUERY, "connection": "warehouse", "key": "id"},
            "prompt": {"user": "{{ body }}"},
            "models": [{"provider": "openai", "model": "gpt-5-mini", "connection": "vendor", "max_output_tokens": 100}],
            "sink": {"table": "answers", "connection": "warehouse"},
            "rounds": 1,
            "shard": {"max_rows": 3},
            "max_dead_share": 1.0,
            "schedule": "0 0 * * *",
        }
        return Job.model_validate({**values, **changes})

    # --- Airflow ---------------------------------------------------------------------------------------------

    def dag(self, **changes: Any) -> DAG:
        """Make a job's Dag and let Airflow know it."""
        dag = build_dag(self.job(**changes), default_args=IMPATIENT)
        # Airflow 3.3.2's own `dag.test()` breaks at the end of a run with a deadline.
        dag.deadline = None
        return known(dag)

    def test(self, dag: DAG, conf: Mapping[str, Any] = NIGHT, **how: Any) -> Ended:
        """Run a Dag with `dag.test()`, which runs triggers in line."""
        how.setdefault("logical_date", None)
        run = dag.test(run_conf=dict(conf), **how)
        return Ended(dag, run.run_id)

    def run(self, dag: DAG, conf: Mapping[str, Any] = NIGHT) -> Ended:
        """Run a Dag without the pauses of `dag.test()`, which also forgets earlier runs without a logical date."""
        return Ended(dag, drive(dag, new_run(dag, DagRunType.MANUAL, None, conf)))

    def backfill(self, dag: DAG, start: datetime, end: datetime) -> Ended:
        """Run one interval as a backfill does."""
        return Ended(dag, drive(dag, new_run(dag, DagRunType.BACKFILL_JOB, (start, end))))

    def clear(self, ended: Ended, *tasks: str) -> Ended:
        """Clear tasks of a run (all, without names), as a person does in the UI, and let it go on."""
        with create_session() as session:
            here = (TaskInstance.dag_id == ended.dag.dag_id, TaskInstance.run_id == ended.run_id)
            found = session.scalars(select(TaskInstance).where(*here)).all()
            chosen = [ti for ti in found if not tasks or _name(ti) in tasks or ti.task_id in tasks]
            clear_task_instances(chosen, session)
        return Ended(ended.dag, drive(ended.dag, ended.run_id))

    # --- the books -------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> SqlLedger:
        """The ledger that the tasks use."""
        ledger = open_ledger(settings_from(self.env))
        assert isinstance(ledger, SqlLedger)
        return ledger

    def runs(self, job: str = "night") -> list[Run]:
        """List a job's runs in the ledger, oldest first."""
        return sorted(self.ledger.runs(job=job), key=lambda run: (run.started_utc, run.run))

    def faults(self, **faults: Any) -> None:
        """Put these faults, and no others, in force at the vendor."""
        self._admin("PUT", "faults", json=faults)

    def vendor_state(self) -> dict[str, Any]:
        """Give what the vendor saw: batches, newest first, requests by operation, rows."""
        state: dict[str, Any] = self._admin("GET", "state")
        return state

    def batches(self) -> list[dict[str, Any]]:
        """Give the vendor's batches, oldest first."""
        return sorted(self.vendor_state()["batches"], key=lambda batch: batch["number"])

    def _admin(self, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {DEFAULT_KEY}"}
        reply = httpx.request(method, f"{self.vendor}/emulator/{path}", headers=headers, timeout=30, **more)
        return reply.raise_for_status().json()


def forget_runs() -> None:
    """Empty Airflow's history, so that runs of the same date can be made again."""
    with create_session() as session:
        for run in session.scalars(select(DagRun)):
            session.delete(run)
        session.execute(delete(AssetEvent))


def known(dag: DAG) -> DAG:
    """Write a Dag to Airflow's tables, as the Dag processor does."""
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)
        session.commit()
        errors: dict[tuple[str, str], str] = {}
        dags = [LazyDeserializedDAG.from_dag(dag)]
        update_dag_parsing_results_in_db("dags-folder", None, dags, errors, None, set(), session)
        assert errors == {}
    return dag


def new_run(
    dag: DAG,
    kind: DagRunType,
    interval: tuple[datetime, datetime] | None,
    conf: Mapping[str, Any] | None = None,
) -> str:
    """Make a run of an interval, or without one, and give its id; nothing of it has run."""
    start, end = interval or (None, datetime.now(UTC))
    with create_session() as session:
        run = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).create_dagrun(
            run_id=DagRun.generate_run_id(run_type=kind, logical_date=start, run_after=end),
            logical_date=start,
            data_interval=interval,
            run_after=end,
            conf=dict(conf or {}),
            run_type=kind,
            state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.TEST,
            session=session,
        )
        return str(run.run_id)


def drive(dag: DAG, run_id: str) -> str:
    """Let a run go on to its end: the loop of `dag.test()`, which itself only begins new runs."""
    scheduler_dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
    with create_session() as session:
        here = (DagRun.dag_id == dag.dag_id, DagRun.run_id == run_id)
        run = session.scalars(select(DagRun).where(*here)).one()
        run.dag = scheduler_dag
        run.state = DagRunState.RUNNING
        session.commit()
        while run.state == DagRunState.RUNNING:
            session.expire_all()
            ready, _ = run.update_state(session=session)
            for ti in ready:
                ti.try_number += 1
                ti.state = TaskInstanceState.SCHEDULED
            session.commit()
            for ti in sorted(ready, key=_name):
                _run_task(ti=ti, task=dag.task_dict[ti.task_id], run_triggerer=True)
    return run_id


def window(conf: Mapping[str, str]) -> Window:
    """Give the window that a trigger form names."""
    return Window(instant(conf["window_start"]), instant(conf["window_end"]))


def utc(*parts: int) -> datetime:
    """Make an instant."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]

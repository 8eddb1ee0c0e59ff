"""The housekeeping Dag: once a day it does what `nightbatch tidy` does, and is red only when a person is needed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable, Param
from airflow.sdk.exceptions import AirflowFailException

from .connections import airflow_connection, settings
from .dag import FIRST_NIGHT, RETRIES
from .failures import airflow_failures

if TYPE_CHECKING:
    from nightbatch.ports import Run

SCHEDULE = "0 12 * * *"
"""At noon UTC, when most nights are over."""

DOC = """### nightbatch_housekeeping

Once a day, over all jobs of this ledger:

- **dead runs**: open runs that no Dag run works on, and of which nothing has moved for six hours, are collected, loaded
  and closed. Nothing is sent; rows that were never sent are pending, and go with the job's next run.
- **files at vendors** that could not be deleted when their shard was loaded are deleted.
- **files between the steps** of runs that ended longer ago than their job's `retention` are removed, unless something
  still needs them.

**Red?** The last line of the log names each run that a person must look at, and why. Clearing the task costs nothing.
Trigger it with **Dry run** to see what it would do.
"""


class HousekeepingOperator(BaseOperator):
    """Tidies up after all jobs of the ledger."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Do it, say in the log what was done, and fail where a person is needed."""
        from nightbatch.housekeeping import housekeep, open_house

        from .telemetry import task_telemetry

        dry_run = bool(context["params"].get("dry_run"))
        with airflow_failures():
            is_live, telemetry = _Live(context["ti"]), task_telemetry()
            house = open_house(settings(), airflow_connection, telemetry=telemetry, is_live=is_live, dry_run=dry_run)
            swept = housekeep(house)
        self.log.info(
            "%s: dead runs closed %s; dead runs that wait %s; attempts whose files at the vendor are deleted %d; "
            "files removed %s of %d runs, %s bytes; files kept of runs that are %s",
            "dry run" if dry_run else "done",
            swept.closed or "none",
            swept.waiting or "none",
            swept.discarded,
            f"{swept.files:,}",
            len(swept.removed),
            f"{swept.size_bytes:,}",
            dict(swept.kept) or "none",
        )
        if swept.problems:
            said = "; ".join(f"{run}: {problem}" for run, problem in swept.problems.items())
            raise AirflowFailException(f"{len(swept.problems)} runs need a person. All else is done. {said}")
        return {"closed": len(swept.closed), "runs": len(swept.removed), "files": swept.files}


class _Live:
    """Asks Airflow whether a job's Dag has a run under way."""

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    def __call__(self, run: Run) -> bool:
        return bool(self._ti.get_dr_count(dag_id=run.job, states=["running", "queued"]))


def housekeeping_dag(**overrides: Any) -> DAG:
    """Make the Dag; `overrides` go to Airflow's `DAG` as they are. No network or database is touched."""
    values: dict[str, Any] = {
        "dag_id": "nightbatch_housekeeping",
        "description": "Closes what dead runs left open, and removes files past their retention",
        "schedule": CronTriggerTimetable(SCHEDULE, timezone="UTC"),
        "start_date": FIRST_NIGHT,
        "catchup": False,
        "max_active_runs": 1,
        "default_args": {"owner": "nightbatch", **RETRIES},
        "dagrun_timeout": timedelta(hours=12),
        "tags": ["nightbatch"],
        "params": {
            "dry_run": Param(False, type="boolean", title="Dry run", description="Say what would be done; do nothing.")
        },
        "doc_md": DOC,
    }
    with DAG(**{**values, **overrides}) as dag:
        HousekeepingOperator(task_id="tidy", doc_md="Dead runs, files at vendors, files past their retention.")
    return dag

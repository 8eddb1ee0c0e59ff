"""The watchdog Dag: every hour it looks for windows without a run and answers that are too old, and tells people."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowFailException, AirflowRuntimeError

from nightbatch.core.window import Window

from .connections import airflow_connection, settings
from .dag import FIRST_NIGHT, RETRIES
from .failures import airflow_failures

SCHEDULE = "20 * * * *"
"""Every hour, away from the full hour at which most jobs begin."""

DOC = """### nightbatch_watchdog

Every hour, over all jobs with a schedule, whether their Dag is paused, fails to import, or is gone:

- **windows without a run**: an hour after a window's end there is neither a run of it nor one under way.
- **old answers**, of jobs that say how old they may be (`freshness`).

People are told once when that begins and once when it is over; jobs that tell the same people share a message.

**Red?** Something new was found, and no channel took the message: jobs without `notify`, or a mail server that is down.
The log says what. It cannot see its own scheduler stand still: let a cron outside Airflow run
`nightbatch status --exit-code --tell` (docs/runbook.md).
"""


class WatchdogOperator(BaseOperator):
    """Looks after all jobs of a folder and of the ledger."""

    def __init__(self, *, jobs: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.jobs = jobs

    def execute(self, context: Any) -> dict[str, Any]:
        """Say in the log how each job stands, and tell people of what is new."""
        from nightbatch.patrol import patrol
        from nightbatch.steps.absence import fresh_words, gap_words
        from nightbatch.steps.telemetry import tell_standing
        from nightbatch.watchdog import open_watch

        from .telemetry import task_telemetry

        with airflow_failures():
            watch = open_watch(settings(), airflow_connection, scheduler=AirflowScheduler(context["ti"]))
            told = patrol(watch, Path(self.jobs))
        tell_standing(task_telemetry(), told.sightings, now=watch.now)
        for one in told.sightings:
            gaps = f"no run of {gap_words(one.gaps)}: {one.why}" if one.gaps else "each due window has a run"
            self.log.info("job %s: %s; oldest answer %s", one.job.name, gaps, fresh_words(one, watch.now))
        if told.unheard:
            said = "; ".join(message.title for message in told.unheard)
            raise AirflowFailException(f"nobody was told: {said}. Add `notify` to the jobs, or mend its connections.")
        return {"missing": sum(one.windows for one in told.sightings), "told": len(told.messages)}


class AirflowScheduler:
    """Asks Airflow, through the task that looks, what became of a window."""

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    def is_under_way(self, job: str, window: Window) -> bool:
        """Say whether a Dag run of this window is queued or running."""
        return self._count(job, window, "queued", "running") > 0

    def why(self, job: str, window: Window) -> str:
        """Say why a window has no run."""
        from airflow.sdk.api.client import ServerResponseError  # a task has it anyway; parsing can do without

        try:
            dag = self._ti.get_dag(job)
        except (AirflowRuntimeError, ServerResponseError) as error:
            # Whatever keeps Airflow from answering must not keep people from hearing of the window.
            if _status(error) == HTTPStatus.NOT_FOUND:
                return "Airflow has no Dag of this name: its file fails to import, or the job is gone"
            return "Airflow could not be asked why"
        if dag.is_paused:
            return "its Dag is paused"
        if self._count(job, window, "failed"):
            return "its Dag run failed before it had a plan"
        if self._count(job, window, "success"):
            return "its Dag run was marked as done without a run"
        return "Airflow made no Dag run of it: the scheduler was down, or the Dag was paused when its time came"

    def _count(self, job: str, window: Window, *states: str) -> int:
        return int(self._ti.get_dr_count(dag_id=job, logical_dates=[window.start], states=list(states)))


def _status(error: Exception) -> int:
    """Give the status of a reply of Airflow's API; a task hears of it in other words than `dag.test()`."""
    if isinstance(error, AirflowRuntimeError):
        return int((error.error.detail or {}).get("status_code", 0))
    return int(getattr(getattr(error, "response", None), "status_code", 0))


def watchdog_dag(jobs: Path, **overrides: Any) -> DAG:
    """Make the Dag that watches a folder of jobs; `overrides` go to Airflow's `DAG`. No database is touched."""
    values: dict[str, Any] = {
        "dag_id": "nightbatch_watchdog",
        "description": "Tells people of windows that have no run, and of answers that are too old",
        "schedule": CronTriggerTimetable(SCHEDULE, timezone="UTC"),
        "start_date": FIRST_NIGHT,
        "catchup": False,
        "max_active_runs": 1,
        "default_args": {"owner": "nightbatch", **RETRIES},
        "dagrun_timeout": timedelta(minutes=50),
        # It only reads, and a net that somebody has to switch on is not there when it is needed.
        "is_paused_upon_creation": False,
        "tags": ["nightbatch"],
        "doc_md": DOC,
    }
    with DAG(**{**values, **overrides}) as dag:
        WatchdogOperator(task_id="look", jobs=str(jobs), doc_md="Windows without a run, and answers that are too old.")
    return dag

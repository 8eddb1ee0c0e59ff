"""The Dag factory: one job, one Dag, the same steps in the same order as `flow.run`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, TaskGroup, TriggerRule

from nightbatch.errors import JobInvalid
from nightbatch.job import FileSinkSpec, Job
from nightbatch.job_file import load_jobs

from .deadlines import alerts
from .parts import PartOperator, PartsOperator, SortOperator
from .tasks import (
    BatchSensor,
    InvalidJobOperator,
    PrepareOperator,
    RetryOperator,
    SettleOperator,
)
from .windows import params

RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
}
"""A retry only looks again: what was paid is not paid twice."""

FIRST_NIGHT = datetime(2024, 1, 1, tzinfo=UTC)
"""Backfills may reach back this far."""


def build_dag(job: Job, **overrides: Any) -> DAG:
    """
    Make a job's Dag; `overrides` go to Airflow's `DAG` as they are.

    No SDK is imported, no network or database is touched: this runs at every parse.
    """
    settings: dict[str, Any] = {
        "dag_id": job.name,
        "description": job.description,
        "schedule": CronDataIntervalTimetable(job.schedule, timezone=job.timezone) if job.schedule else None,
        # A backfill by hand may reach back before `start`; Airflow itself must not.
        "start_date": (job.start_utc if job.catch_up == "run" else None) or FIRST_NIGHT,
        "catchup": job.catch_up == "run",
        "max_active_runs": 4,
        "default_args": {"owner": job.owner, **RETRIES},
        "tags": ["nightbatch", *job.tags],
        "params": params(has_schedule=bool(job.schedule)),
        "doc_md": doc(job),
        "deadline": alerts(job) or None,
        "render_template_as_native_obj": True,
    }
    with DAG(**{**settings, **overrides}) as dag:
        _tasks(job)
    return dag


def _tasks(job: Job) -> None:
    before: Any = _prepare(job)
    retries = []
    for number in range(job.rounds + 1):
        with TaskGroup(f"round_{number}", tooltip=_round_words(number)):
            batch = BatchSensor.partial(
                task_id="batch",
                job=job,
                map_index_template="{{ shard_name }}",
                doc_md="One shard: submit, wait (no worker held), collect, validate, load. Clearing never pays twice.",
            ).expand(shard=before.output)
            retry = RetryOperator(
                task_id="retry",
                job=job,
                number=number,
                # One shard that fails must not stop the others; a round without shards must not run on.
                trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
                doc_md="Give every row that is not good its fate: next round, dead letter, or pending.",
            )
            batch >> retry
        retries.append(retry)
        before = retry
    settle = SettleOperator(
        task_id="settle",
        job=job,
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[outlet(job)],
        doc_md="Add everything up, tell people, and fail if anything is pending, failed or does not add up.",
    )
    retries >> settle


def _prepare(job: Job) -> Any:
    words = "Pull the window's records, render, pack, seal."
    if job.source.parts == 1:
        return PrepareOperator(task_id="prepare", job=job, doc_md=words)
    parts = PartsOperator(task_id="parts", job=job, doc_md="Cut the source into parts. Clear it to read all anew.")
    read = PartOperator.partial(
        task_id="read",
        job=job,
        map_index_template="{{ part_name }}",
        doc_md="One part: pull, render, pack. Cleared, it gives what it gave; what was not read is read.",
    ).expand(part=parts.output)
    # Without parts, or with nothing to pack anew, what is mapped over them is skipped, and `prepare` does what is left.
    rule = TriggerRule.NONE_FAILED
    sort = SortOperator(
        task_id="sort", job=job, trigger_rule=rule, doc_md="Find what is unchanged, a duplicate, or has another's key."
    )
    mend = PartOperator.partial(
        task_id="mend",
        job=job,
        map_index_template="{{ part_name }}",
        doc_md="Pack shards anew from which something fell out. Cleared, it gives what it gave.",
    ).expand(part=sort.output)
    prepare = PrepareOperator(task_id="prepare", job=job, trigger_rule=rule, doc_md="Put the parts together, and seal.")
    read >> sort
    mend >> prepare
    return prepare


def _round_words(number: int) -> str:
    return "All requests of the window" if number == 0 else f"Retry round {number}: the failures of round {number - 1}"


def outlet(job: Job) -> Asset:
    """Give the asset that a complete run updates: the sink."""
    if isinstance(job.sink, FileSinkSpec):
        uri = job.sink.files if "://" in job.sink.files else f"file://{job.sink.files}"
    else:
        uri = f"nightbatch://{job.sink.connection}/{job.sink.table}"
    return Asset(name=f"{job.name}_answers", uri=uri, group="nightbatch")


def doc(job: Job) -> str:
    """Write the Dag's page in the UI: what it does, and what to do when it is red."""
    models = ", then ".join(f"`{model.model}` ({model.provider})" for model in job.models)
    amounts = ((job.budget_usd, "a run"), (job.budget_day_usd, "a day"), (job.budget_month_usd, "a month"))
    budget = ", ".join(f"{amount} USD {span}" for amount, span in amounts if amount is not None) or "none"
    return f"""### {job.name}

{job.description or "A nightbatch job."}

| | |
| --- | --- |
| Models | {models} |
| Budget | {budget} |
| Retry rounds | {job.rounds} |
| Prompt version | `{job.prompt_version}` |

`prepare` seals what is sent. Each square of `round_N.batch` is one shard; *deferred* (violet, a clock) means that it
waits at the vendor and holds no worker, *skipped* (pink) that the round had nothing to send. `retry` sends failed rows
again. `settle` adds up and gives the run its colour.

**Red?** Open the log of the red task: its last line says what happened and what to do. Clearing a task, with
*downstream*, goes on from where it stood; it never pays twice and never cancels a batch. To pay for a window again on
purpose, trigger it with **Force**.
"""


def build_dags(folder: Path) -> dict[str, DAG]:
    """
    Make a Dag of every job file in a folder.

    A file that is no good becomes a Dag too, which says what is wrong: the others must not vanish with it, and
    nobody looks for a Dag that is not there.
    """
    jobs, problems = load_jobs(folder)
    dags = {job.name: build_dag(job) for job in jobs}
    for problem in problems:
        broken = _broken_dag(problem)
        dags.setdefault(broken.dag_id, broken)
    return dags


def _broken_dag(problem: JobInvalid) -> DAG:
    name = re.sub(r"[^a-z0-9_]", "_", Path(problem.file).stem.lower())
    with DAG(
        dag_id=f"{name}__invalid",
        schedule=None,
        tags=["nightbatch", "invalid job file"],
        doc_md=f"### This job file cannot be used\n\n```\n{problem}\n```\n",
        description=f"{Path(problem.file).name} has {len(problem.problems)} problems: open the docs of this Dag",
    ) as dag:
        InvalidJobOperator(task_id="read_the_docs_of_this_dag", problem=str(problem))
    return dag

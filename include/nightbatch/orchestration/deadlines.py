"""Deadline (SLA) alerts, the one file that knows Airflow's experimental API for them (as of Airflow 3.3.2)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import (
    BaseDeadlineReference,
    DeadlineAlert,
    DeadlineReference,
    deadline_reference,
)

from nightbatch.core.deadline import DeadlineRule
from nightbatch.job import Job
from nightbatch.job_sealed import facts_of, unsealed

from .connections import trigger_ports
from .windows import instant, plain

if TYPE_CHECKING:
    from nightbatch.ports import Ports


@deadline_reference(DeadlineReference.TYPES.DAGRUN_CREATED)
@dataclass
class JobDeadline(BaseDeadlineReference):
    """
    The deadline of the window that a run is about.

    None for backfills, and for runs whose deadline has passed when they are made: nobody is paged about old nights.
    Evaluated by the scheduler when the run is created, so it must not fail and must not do I/O of its own.
    """

    after_s: float = -1.0
    at: str = ""
    timezone: str = "UTC"

    required_kwargs = frozenset({"dag_id", "run_id"})

    def serialize_reference(self) -> dict[str, Any]:
        """Give what `deserialize_reference` takes."""
        values = {"after_s": self.after_s, "at": self.at, "timezone": self.timezone}
        return {**super().serialize_reference(), **values}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> JobDeadline:
        """Make the reference again in the scheduler."""
        return cls(reference_data["after_s"], reference_data["at"], reference_data["timezone"])

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun
        from sqlalchemy import select

        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None or run.run_type == "backfill":
            return None
        due = self.due(run.conf or {}, run.data_interval_end)
        return due if due is not None and due > datetime.now(UTC) else None

    def due(self, conf: dict[str, Any], interval_end: datetime | None) -> datetime | None:
        """Give the instant: the run's own deadline, else the job's after the window's end."""
        rule = self._rule()
        try:
            if conf.get("deadline"):
                return instant(conf["deadline"])
            if conf.get("window_end"):
                interval_end = instant(conf["window_end"])
            return rule.due(plain(interval_end)) if rule is not None and interval_end is not None else None
        except (TypeError, ValueError, OverflowError):
            return None

    def _rule(self) -> DeadlineRule | None:
        if self.at:
            return DeadlineRule(at=time.fromisoformat(self.at), timezone=self.timezone)
        return DeadlineRule(after=timedelta(seconds=self.after_s)) if self.after_s >= 0 else None


def alerts(job: Job) -> list[DeadlineAlert]:
    """
    Give a Dag its alerts: at risk, and missed.

    A job without a deadline has them too, for runs that are given one in the trigger form.
    """
    rule = job.deadline_rule()
    reference = JobDeadline(
        after_s=rule.after.total_seconds() if rule and rule.after is not None else -1.0,
        at=rule.at.isoformat() if rule and rule.at is not None else "",
        timezone=job.timezone,
    )
    moments = {"late": timedelta(0)}
    if job.warn_before:
        moments["at_risk"] = -job.warn_before
    return [
        DeadlineAlert(
            reference=reference,
            interval=interval,
            name=f"{job.name} {kind}",
            callback=AsyncCallback(tell_deadline, kwargs={**facts_of(job), "kind": kind}),
        )
        for kind, interval in moments.items()
        if kind in job.notify.on
    ]


async def tell_deadline(
    job: str, kind: Literal["at_risk", "late"], context: dict[str, Any] | None = None, **more: Any
) -> None:
    """Tell people that a run is at risk or late; runs in the triggerer, its blocking work in a thread."""
    details = (context or {}).get("dag_run", {})
    loaded = unsealed({"job": job, **more}, run=str(details.get("dag_run_id", "")))
    ports = await trigger_ports(loaded)
    moment = (context or {}).get("deadline", {}).get("deadline_time")
    at = instant(moment) if isinstance(moment, str) else plain(moment) if moment else ports.clock.now()
    due = at + loaded.warn_before if kind == "at_risk" else at
    await asyncio.to_thread(_tell, ports, loaded, kind, due, details)


def _tell(ports: Ports, job: Job, kind: Literal["at_risk", "late"], due: datetime, details: dict[str, Any]) -> None:
    from nightbatch import flow
    from nightbatch.core.window import Window

    conf = details.get("conf") or {}
    start = conf.get("window_start") or details.get("data_interval_start")
    end = conf.get("window_end") or details.get("data_interval_end")
    if not start or not end:
        return
    base = ports.settings.ui_base_url.rstrip("/")
    dag_id, run_id = quote(details.get("dag_id", "")), quote(details.get("dag_run_id", ""))
    link = f"{base}/dags/{dag_id}/runs/{run_id}" if base else ""
    flow.tell_deadline(ports, job, Window(instant(start), instant(end)), kind=kind, due=due, link=link)

"""The watchdog's eyes: which jobs are watched, which of their windows have no run, and how old answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from nightbatch.core.gaps import Gap, RunSpan, fresh_until, gaps
from nightbatch.core.schedule import Schedule
from nightbatch.core.window import Window
from nightbatch.errors import PlanUnreadable
from nightbatch.job import Job
from nightbatch.job_file import load_jobs, name_in
from nightbatch.job_sealed import unsealed
from nightbatch.logs import logger
from nightbatch.ports import Connections, Ledger, Ports, Settings
from nightbatch.steps.absence import SKIPPED, Sighting, skipped_windows

log = logger(__name__)

ASKED = 100
"""Of so many missing windows of a job, the latest, a scheduler is asked what it knows."""


class Scheduler(Protocol):
    """What only the scheduler knows. Without Airflow nobody does."""

    def is_under_way(self, job: str, window: Window) -> bool:
        """Say whether a run of this window is queued or running."""

    def why(self, job: str, window: Window) -> str:
        """Say why a window has no run."""


class NoScheduler:
    """Outside Airflow: only the ledger is known."""

    def is_under_way(self, job: str, window: Window) -> bool:
        """Nobody knows."""
        return False

    def why(self, job: str, window: Window) -> str:
        """Name what may be."""
        return "its Dag is paused, Airflow's scheduler is down, or its run failed before it had a plan"


# --- what is watched ------------------------------------------------------------------------------------------


def watched_jobs(ledger: Ledger, folder: Path) -> list[tuple[Job, str]]:
    """
    Give the jobs that have a schedule, each with what is wrong with its file; empty where nothing is.

    A job that has runs is watched although its file fails to check or is gone: as it was when it was sealed last.
    """
    jobs, invalid = load_jobs(folder) if folder.is_dir() else ([], [])
    bad = {name_in(Path(error.file)) or Path(error.file).stem: error for error in invalid}
    found = [(job, "") for job in jobs]
    for name in sorted(set(ledger.jobs()) - {job.name for job in jobs}):
        job = _last_sealed(ledger, name)
        if job is not None and name in bad:
            problems = "; ".join(map(str, bad[name].problems[:3]))
            found.append((job, f"its job file {Path(bad[name].file).name} cannot be used: {problems}"))
        elif job is not None:
            found.append((job, f"no job file in {folder} has its name" if folder.is_dir() else ""))
    return [(job, trouble) for job, trouble in found if job.schedule is not None]


def _last_sealed(ledger: Ledger, name: str) -> Job | None:
    for run in ledger.runs(job=name, limit=10):
        if run.plan is not None:
            try:
                return unsealed(run.plan, run=run.run)
            except PlanUnreadable as error:
                log.warning("watchdog: %s", error)
    return None


def sight(ledger: Ledger, job: Job, trouble: str, scheduler: Scheduler, *, now: datetime, grace: timedelta) -> Sighting:
    """Look how a scheduled job stands."""
    runs = ledger.spans(job.name)
    skipped = skipped_windows(ledger.events(job.name), runs)
    found = _gaps(job, runs, skipped, now=now, grace=grace)
    asked = [window for gap in found for window in gap.windows][-ASKED:]
    busy = [RunSpan(window, "open", now) for window in asked if scheduler.is_under_way(job.name, window)]
    if busy:
        found = _gaps(job, [*runs, *busy], skipped, now=now, grace=grace)
    why = ""
    if found:
        why = trouble if trouble and _is_bad(trouble) else scheduler.why(job.name, found[-1].windows[-1])
        why += f"; {trouble}" if trouble and not _is_bad(trouble) else ""
    return Sighting(job, tuple(found), why, fresh_until(runs, skipped=skipped, reads_all=job.source.reads_all))


def _is_bad(trouble: str) -> bool:
    # A job that is written in Python has no file, which explains nothing.
    return not trouble.startswith("no job file")


def _gaps(job: Job, runs: Sequence[RunSpan], skipped: list[Window], *, now: datetime, grace: timedelta) -> list[Gap]:
    schedule = Schedule(job.schedule or "", job.timezone)
    overlap = job.source.apart
    return gaps(schedule, runs, since=job.start_utc, now=now, grace=grace, skipped=skipped, overlap=overlap)


def skip(ledger: Ledger, job: str, start: datetime, end: datetime | None, *, now: datetime) -> None:
    """Write down that windows need no run; without an end none do until the job runs again."""
    payload = {"start": start.isoformat(), "end": end and end.isoformat()}
    ledger.record_event(f"{job}:{SKIPPED}:{start:%Y%m%dT%H%M%S}:{now:%Y%m%dT%H%M%S}", SKIPPED, job, payload, now=now)


# --- all jobs of an installation -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Watch:
    """What the watchdog looks after, and how it reaches people."""

    ledger: Ledger
    ports_of: Callable[[Job], Ports]
    now: datetime
    grace: timedelta
    scheduler: Scheduler = field(default_factory=NoScheduler)


def open_watch(settings: Settings, connections: Connections, **changes: Any) -> Watch:
    """Open an installation's ledger; how people are reached is opened when there is something to tell."""
    from nightbatch.adapters import registry
    from nightbatch.adapters.clock import SystemClock

    ledger = registry.open_ledger(settings)

    def ports_of(job: Job) -> Ports:
        return registry.open_ports(job, settings, connections, ledger=ledger)

    return Watch(ledger, ports_of, SystemClock().now(), timedelta(seconds=settings.missing_after_s), **changes)


def look(watch: Watch, folder: Path, *, job: str | None = None) -> list[Sighting]:
    """Look how the scheduled jobs stand, and tell nobody."""
    return [
        sight(watch.ledger, one, trouble, watch.scheduler, now=watch.now, grace=watch.grace)
        for one, trouble in watched_jobs(watch.ledger, folder)
        if job is None or one.name == job
    ]

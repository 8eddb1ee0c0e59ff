"""How a run stands to its deadline: still ahead of it, late, or ended in time or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from nightbatch.errors import PlanUnreadable
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed
from nightbatch.ports import Ledger, Run

from .figures import due_of, span


class Standing(StrEnum):
    """How a run stands to its deadline."""

    AHEAD = "ahead"
    LATE = "late"
    """The deadline is over, and the run is open, or ended without all its answers."""
    MET = "met"
    MISSED = "missed"
    PAST_AT_START = "past at start"
    """It was started after its deadline, as backfills are: nobody's emergency."""


@dataclass(frozen=True)
class Punctuality:
    """A run's deadline, and how far the run is, or ended, from it."""

    due_utc: datetime
    standing: Standing
    apart: timedelta

    @property
    def words(self) -> str:
        """Say it in one line."""
        due, apart = f"{self.due_utc:%Y-%m-%d %H:%M} UTC", span(self.apart.total_seconds())
        return {
            Standing.AHEAD: f"{due}, in {apart}",
            Standing.LATE: f"LATE since {apart} ({due})",
            Standing.MET: f"met ({due})",
            Standing.MISSED: f"missed by {apart} ({due})",
            Standing.PAST_AT_START: f"{due}, {apart} before the run was started",
        }[self.standing]

    def as_json(self) -> dict[str, Any]:
        """Give it for machines; `late_s` is how late the run is, or ended, and 0 where it is not."""
        late = self.standing in (Standing.LATE, Standing.MISSED)
        late_s = self.apart.total_seconds() if late else 0
        return {"due_utc": self.due_utc.isoformat(), "standing": self.standing.value, "late_s": late_s}


def punctuality(ledger: Ledger, run: Run, jobs: Mapping[str, Job], *, now: datetime) -> Punctuality | None:
    """
    Say how a run stands to its deadline; None where it has none, or where a later generation goes on in its place.

    `jobs` are those known by name, for a run that has no plan yet.
    """
    job = _job_of(run, jobs)
    due = due_of(job, run) if job else None
    if due is None:
        return None
    if run.state == "complete":
        end = run.settled_utc or now
    elif run.state != "open" and _is_continued(ledger, run):
        return None
    else:
        end = now
    if run.started_utc >= due:
        return Punctuality(due, Standing.PAST_AT_START, run.started_utc - due)
    if run.state == "complete":
        return Punctuality(due, Standing.MET if end <= due else Standing.MISSED, abs(end - due))
    return Punctuality(due, Standing.AHEAD if end < due else Standing.LATE, abs(end - due))


def _job_of(run: Run, jobs: Mapping[str, Job]) -> Job | None:
    try:
        return unsealed(run.plan, run=run.run) if run.plan else jobs.get(run.job)
    except PlanUnreadable:
        return None


def _is_continued(ledger: Ledger, run: Run) -> bool:
    same = ledger.runs(job=run.job, window=run.window)
    return any(other.generation > run.generation for other in same)

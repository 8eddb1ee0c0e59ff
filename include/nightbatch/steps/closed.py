"""Before a run: whether its window is closed already, so that nothing is sent, and what of the job is new."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed
from nightbatch.ports import Ports, Run

from .planning import Options, with_model
from .resume import past_of


@dataclass(frozen=True)
class Closed:
    """A window that was run to its end: run again, it gives the same figures and sends nothing."""

    run: str
    state: str
    """`complete` or `failed`."""
    since_utc: datetime
    changed: tuple[str, ...]
    """Keys of the job that are not what the window was planned with."""

    @property
    def remedy(self) -> str:
        """Say that the job is not what the window was planned with, and how to use it all the same; else nothing."""
        if not self.changed:
            return ""
        # The command's --model changes the models too, without an edit of the file.
        what = "The job has" if self.changed == ("models",) else "The job file has"
        return f" {what} changed since ({', '.join(self.changed)}): `--force` plans it anew."

    def as_json(self) -> dict[str, Any]:
        """Give it for machines."""
        return {"state": self.state, "since_utc": self.since_utc.isoformat(), "job_changed": list(self.changed)}


def closed_before(ports: Ports, job: Job, window: Window, options: Options) -> Closed | None:
    """Say whether a run of this window would send nothing, because it was run to its end; reads only the ledger."""
    past = past_of(ports.ledger, job.name, window, limit=options.limit, asker=options.force)
    latest = past.generations[-1] if past.generations else None
    if latest is None or latest.state not in ("complete", "failed") or past.wants_new_plan:
        return None
    since = latest.settled_utc or latest.started_utc
    planned = [run for run in past.generations if run.plan and not run.plan.get("retries")]
    changed = _changed(planned[-1], with_model(job, options.model)) if planned else ()
    return Closed(latest.run, latest.state, since, changed)


def _changed(run: Run, job: Job) -> tuple[str, ...]:
    # A generation of dead letters alone is no plan of the window; its models may be what somebody chose for these.
    sealed = unsealed(run.plan or {}, run=run.run)
    return tuple(name for name in Job.model_fields if getattr(sealed, name) != getattr(job, name))

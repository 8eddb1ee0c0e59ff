"""Before step 1: the time whose records a run reads: its window, and what lies before it that is to be read too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nightbatch.core.watermark import unread_from
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Ledger, Run


def reads(ledger: Ledger, job: Job, window: Window) -> Window:
    """
    Give the time whose records a run of a window reads.

    Its window and the job's `overlap` before it; with a watermark all that no run has read, and the grace before that.
    The same at every attempt, since the runs of a job with a watermark follow one another.
    """
    mark = job.source.watermark
    if mark is None:
        return window.earlier_by(job.source.overlap)
    return Window(_unread_from(ledger, job, window) - mark.grace, window.end)


def _unread_from(ledger: Ledger, job: Job, window: Window) -> datetime:
    mark = job.source.watermark
    return unread_from(window, ledger.spans(job.name), column=mark.column if mark else "", since=job.start_utc)


def reach(ledger: Ledger, job: Job, run: Run) -> dict[str, Any]:
    """
    Give what a sealed plan says of the time that it read, for the runs after it; nothing without a watermark.

    Where the run began before its window was over, it ends there: what was added since is for the next run.
    """
    mark = job.source.watermark
    if mark is None:
        return {}
    start, until = _unread_from(ledger, job, run.window), min(run.window.end, run.started_utc).replace(microsecond=0)
    if until <= start:
        return {}
    return {"watermark": {"column": mark.column, "from": start.isoformat(), "until": until.isoformat()}}

"""Part of settle: hold a run's books to the limits that its job sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nightbatch.core.verdict import Reason
from nightbatch.errors import RunCancelled, RunDiscarded, RunFailed
from nightbatch.job import Job
from nightbatch.ports import Run

if TYPE_CHECKING:
    from .settle import Books


def over_limits(job: Job, run: Run, books: Books, earlier: Sequence[Books]) -> RunFailed | None:
    """Give the error of a run that broke a limit; `earlier` are the books of the runs that it goes on from."""
    # A run that goes on is judged with what it goes on from, which could not be judged while rows were pending, or
    # whose dead letters had their second chance: one bad row is little of a window of thousands, and no bad row is
    # forgotten. What was left pending, or was sent again, counts once.
    chain = (books, *earlier)
    dropped = books.dead.get(Reason.CANCELLED.value, 0)
    if run.cancelled_utc is not None and dropped:
        return RunCancelled(
            books.run, since=run.cancelled_utc, loaded=books.merged, dropped=dropped, cost_usd=books.cost_usd
        )
    discarded = books.dead.get(Reason.DISCARDED.value, 0)
    if discarded:
        return RunDiscarded(books.run, discarded=discarded, loaded=books.merged, cost_usd=books.cost_usd)
    dead = sum(one.dead_rows - one.from_dead for one in chain)
    rows = books.rows + sum(one.rows - one.pending_rows for one in earlier)
    share = dead / rows if rows else 0.0
    if share > job.max_dead_share:
        return RunFailed(
            books.run,
            problem=f"{dead:,} of {rows:,} rows are dead letters ({share:.1%}); the job allows "
            f"{job.max_dead_share:.1%}",
            remedy=f"`nightbatch retry {books.run}` shows them by reason, and what it costs to send them again; raise "
            "max_dead_share if this is as it should be.",
        )
    pulled = sum(one.pulled for one in chain)
    # A first look does not read the whole window.
    if (run.plan or {}).get("limit") is None and pulled < job.min_rows:
        return RunFailed(
            books.run,
            problem=f"{pulled:,} records were pulled; the job expects at least {job.min_rows:,}",
            remedy="Look whether the source is late, then run the window again with force.",
        )
    return None

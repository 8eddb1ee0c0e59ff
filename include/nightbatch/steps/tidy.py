"""What housekeeping may remove from the store, and when a run counts as left alone; see `housekeeping.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from nightbatch.core.proof import Link, broken
from nightbatch.core.shard import ShardState
from nightbatch.errors import StagingRemoved
from nightbatch.job import Job
from nightbatch.ports import Attempt, Ledger, Run, Shard, Store

from .settle import is_done

RETENTION_WITHOUT_PLAN: timedelta = Job.model_fields["retention"].default
"""How long what a run left is kept that never got a plan, and with it no retention of its own."""

UNSETTLED = frozenset({"intent", "sending", "open", "double"})
"""States of an attempt whose batch may still be under way."""


@dataclass(frozen=True)
class Removal:
    """A run's files in the store: what was, or would be, removed."""

    run: str
    files: int
    size_bytes: int


def check_staging(run: Run) -> None:
    """Raise StagingRemoved where a run's files may not be read any more."""
    if run.staging_removed_utc is not None:
        raise StagingRemoved(run.run, state=run.state, since=run.staging_removed_utc)


def why_kept(
    run: Run,
    job: Job | None,
    shards: Sequence[Shard],
    attempts: Sequence[Attempt],
    *,
    proof: Sequence[Link],
    now: datetime,
) -> str:
    """
    Say why a run's files must stay; empty where nothing needs them.

    Pending rows that nobody has taken keep them too: the ledger knows of those, and refuses.
    """
    if run.staging_removed_utc is not None:
        return ""
    if run.state == "open" or run.settled_utc is None:
        return "open"
    if now - run.settled_utc < (job.retention if job else RETENTION_WITHOUT_PLAN):
        return "within retention"
    if run.plan is not None and not (run.books and proof):
        return "not proved"
    if broken(proof):
        return "does not add up"
    if any(attempt.state in UNSETTLED for attempt in attempts) or not all(is_done(shard) for shard in shards):
        return "under way at a vendor"
    if any(shard.taken_by_round is None and _has_bad_rows(shard) for shard in shards):
        return "rows without a fate"
    return ""


def _has_bad_rows(shard: Shard) -> bool:
    return shard.state is ShardState.HELD or shard.counts.get("good", 0) < shard.plan.rows


def measure(store: Store, run: str) -> Removal:
    """Count a run's files and their bytes."""
    files = size_bytes = 0
    for name in store.names(run):
        files += 1
        try:
            size_bytes += store.size_bytes(name)
        except FileNotFoundError:
            # Somebody else is removing the same files.
            continue
    return Removal(run, files, size_bytes)


def remove(ledger: Ledger, store: Store, run: str, *, now: datetime) -> Removal | None:
    """
    Delete a run's files; None where the ledger says that they are still needed.

    First nobody may read them any more, then they go, then the ledger says so: died in between and done again, it
    goes on where it stood.
    """
    if not ledger.give_up_files(run, now=now):
        return None
    found = measure(store, run)
    for name in store.names(run):
        store.delete(name)
    ledger.note_emptied(run, now=now)
    return found

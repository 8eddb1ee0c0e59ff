"""A batch: a shard at the vendor, and what to do about the state it is in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from .money import Usage


class BatchStatus(StrEnum):
    """What matters of a vendor's status."""

    RUNNING = "running"
    ENDED = "ended"
    """Terminal, whatever the vendor calls it: completed, failed, expired, cancelled. Files may hold answers."""
    UNKNOWN = "unknown"
    """A word we have never seen: counts as running, is told once, and is bounded by the window plus a grace."""
    NOT_FOUND = "not found"
    """The vendor answers 404: normal for a while after a create, and as a blip at any time."""


@dataclass(frozen=True)
class BatchState:
    """What the vendor says of a batch at one look."""

    batch_id: str
    status: BatchStatus
    vendor_status: str
    """The vendor's own word, kept for people."""
    rows_total: int | None = None
    rows_done: int | None = None
    """Progress for display; vendors' counters lie, so no rule uses it."""
    created_utc: datetime | None = None
    ended_utc: datetime | None = None
    expires_utc: datetime | None = None
    result_files: tuple[str, ...] = ()
    """What to download, in the vendor's names (file ids, or a URL); empty where there is nothing."""
    queue_full: bool = False
    """The whole batch was refused after it was made, because too much waits in the queue; nothing was billed."""
    usage: Usage | None = None
    """What the vendor says that the whole batch used; None where it says nothing."""
    problem: str = ""
    """Why a whole batch failed, in the vendor's words, short and without row content."""


class Next(StrEnum):
    """What to do with a batch after a look."""

    WAIT = "wait"
    COLLECT = "collect"
    REQUEUE = "requeue"
    VANISHED = "vanished"


@dataclass(frozen=True)
class Decision:
    """What to do next with a batch, and why."""

    next: Next
    reason: str
    overdue_since: datetime | None = None
    """When the vendor's own time was over; None while it runs, with the grace that a vendor gets."""


COMPLETION_WINDOW = timedelta(hours=24)
"""The vendor's time for a batch, where the batch does not say when it expires."""

OVERDUE_GRACE = timedelta(hours=2)
"""How long after its own time a vendor may take to end a batch before people are told."""

NOT_FOUND_GRACE = timedelta(minutes=15)
"""How long a 404 is taken for a blip. Vendors answer 404 for seconds after a create (anthropic-sdk-python#1432)."""

RESULTS_GRACE = timedelta(hours=6)
"""How long an ended batch may keep answers that it counts from us; later a person decides whether to pay again."""


def decide(state: BatchState, *, now: datetime, last_seen: datetime, grace: timedelta = NOT_FOUND_GRACE) -> Decision:
    """
    Say what to do with a batch.

    Pure, so that the sensor, the trigger and the local runner cannot drift apart. `last_seen` is when the
    vendor was last not known to have forgotten the batch: the first 404 of those that followed each other.
    """
    decision = _decide(state, now=now, last_seen=last_seen, grace=grace)
    return replace(decision, overdue_since=_overdue_since(state, now)) if decision.next is Next.WAIT else decision


def _overdue_since(state: BatchState, now: datetime) -> datetime | None:
    """Bound what no status bounds: a word we do not know, a batch that is stuck, answers that do not come."""
    ends = state.expires_utc or (state.created_utc + COMPLETION_WINDOW if state.created_utc else None)
    return ends if ends is not None and now > ends + OVERDUE_GRACE else None


def _decide(state: BatchState, *, now: datetime, last_seen: datetime, grace: timedelta) -> Decision:
    match state.status:
        case BatchStatus.ENDED if state.queue_full:
            return Decision(Next.REQUEUE, f"refused after validation, the queue is full: {state.problem}")
        case BatchStatus.ENDED if state.rows_done and not state.result_files and not state.problem:
            # To read it now would find every row missing, and they would be bought again.
            reason = f"batch is {state.vendor_status}, {state.rows_done:,} rows are done, and no result file is there"
            is_overdue = state.ended_utc is not None and now - state.ended_utc > RESULTS_GRACE
            return Decision(Next.VANISHED if is_overdue else Next.WAIT, reason)
        case BatchStatus.ENDED:
            return Decision(Next.COLLECT, f"batch is {state.vendor_status}")
        case BatchStatus.NOT_FOUND if now - last_seen > grace:
            return Decision(Next.VANISHED, f"not found for {(now - last_seen).total_seconds():.0f} s")
        case BatchStatus.NOT_FOUND:
            return Decision(Next.WAIT, "not found, taken for a blip")
        case BatchStatus.UNKNOWN:
            return Decision(Next.WAIT, f"unknown status {state.vendor_status!r}, taken for running")
    return Decision(Next.WAIT, f"batch is {state.vendor_status}")

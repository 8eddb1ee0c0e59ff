"""Beside the steps: how long a plan takes within the vendor's limits, and whether that meets the job's deadline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from nightbatch.core.capacity import ASSUMED, Capacity, Room, Shards, Turnaround, Verdict, WayOut, capacity, way_out
from nightbatch.core.shard import ShardPlan
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Ledger, Ports

from .lanes import OpenLane

MOST_RUNS = 20
"""Runs that a turnaround is learned from."""
MOST_BATCHES = 500
"""Batches that it is learned from, the newest ones."""


@dataclass(frozen=True)
class Forecast:
    """How long a plan takes where nobody else uses the account, and what that means for the deadline."""

    capacity: Capacity
    learned_from: str
    """Whose batches the turnaround is learned from: `this job`, `other jobs`; empty for an assumption."""
    due: datetime | None
    available: timedelta | None
    """From the start of the run until the deadline."""
    verdict: Verdict | None
    way_out: WayOut | None
    """What would meet the deadline, where it cannot be met."""


def forecast(
    ports: Ports, job: Job, window: Window, lane: OpenLane, plans: Sequence[ShardPlan], *, parts: int = 1
) -> Forecast:
    """
    Forecast the shards of a plan, which all go to one lane.

    `parts` are those of the source that workers read side by side; they are taken to be as large as each other.
    """
    turnaround, learned_from = turnaround_of(ports.ledger, job.name, provider=lane.name, model=lane.spec.model)
    shards = replace(_shards_of(plans, canary=job.canary is not None), parts=parts)
    rules, model = lane.provider.queue, lane.spec.model
    found = capacity(shards, Room.of(rules, model, shards), turnaround)
    rule = job.deadline_rule()
    if rule is None:
        return Forecast(found, learned_from, None, None, None, None)
    due, now = rule.due(window.end), ports.clock.now()
    # Of a window that is over, and whose deadline is too, we say how it would have been in its own night.
    available = due - (max(now, window.end) if now < due else window.end)
    verdict = found.verdict(available)
    out = way_out(found, rules, model, available) if verdict is Verdict.LATE else None
    return Forecast(found, learned_from, due, available, verdict, out)


def _shards_of(plans: Sequence[ShardPlan], *, canary: bool) -> Shards:
    rows = [plan.rows for plan in plans]
    tokens = [plan.queue_tokens for plan in plans]
    return Shards(len(plans), sum(rows), max(rows, default=0), max(tokens, default=0), canary and len(plans) > 1)


def turnaround_of(ledger: Ledger, job: str, *, provider: str, model: str) -> tuple[Turnaround, str]:
    """Learn how long batches of a model take: from the job's own, else from other jobs', else assume it."""
    for name, whose in ((job, "this job"), (None, "other jobs")):
        spans = list(islice(_spans(ledger, name, provider, model), MOST_BATCHES))
        if spans:
            return Turnaround.learned(spans), whose
    return ASSUMED, ""


def _spans(ledger: Ledger, job: str | None, provider: str, model: str) -> Iterator[timedelta]:
    for run in ledger.runs(job=job, limit=MOST_RUNS):
        for shard in ledger.shards(run.run):
            batch = shard.current
            if (shard.plan.provider, shard.plan.model) != (provider, model) or batch is None:
                continue
            if batch.state == "ended" and batch.created_utc is not None and batch.ended_utc is not None:
                # A vendor's clock may be ahead of ours.
                yield max(batch.ended_utc - batch.created_utc, timedelta(0))

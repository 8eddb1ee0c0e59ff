"""Tell people, once a run, that a vendor has not ended a batch in its own time."""

from __future__ import annotations

from datetime import datetime

from nightbatch.core.shard import ShardState
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Message, Ports, Run

from .tell import batch_words, tell

log = logger(__name__)

KIND = "overdue"


def tell_overdue(ports: Ports, job: Job, run: Run, since: datetime, reason: str) -> None:
    """Tell people that a batch should have ended at `since`. Nothing else is done: it may still end, and is paid."""
    log.warning("wait: the vendor's own time was over at %s UTC: %s", f"{since:%Y-%m-%d %H:%M}", reason)
    if "late" not in job.notify.on:
        return
    shards = [shard for shard in ports.ledger.shards(run.run) if shard.state is ShardState.OPEN]
    rows = sum(shard.plan.rows for shard in shards)
    tell(
        ports,
        run.run,
        Message(
            event_id=f"{run.run}:{KIND}",
            kind=KIND,
            title=f"{run.job}: a batch has not ended in the vendor's own time",
            facts=(
                ("What happened", reason),
                ("Should have ended", f"{since:%Y-%m-%d %H:%M} UTC"),
                ("Window", str(run.window)),
                ("Run", run.run),
                ("Waiting for", f"{len(shards)} shards, {rows:,} rows"),
                ("Batches", ", ".join(map(batch_words, shards[:5])) or "none is open"),
            ),
            happens_next="nightbatch goes on asking, and loads what comes. Nothing is sent again or cancelled.",
            to_do="Ask the vendor about the batch, or cancel it in the vendor's console: its finished rows are loaded "
            "and paid, and the others are sent again.",
            link=ports.settings.ui_base_url,
        ),
    )

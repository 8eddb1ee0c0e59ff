"""Tell people, once a run, that a vendor has not ended a batch in its own time."""

from __future__ import annotations

from datetime import datetime

from nightbatch.core.shard import ShardState
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Message, Ports, Run

from .figures import batch_words, moment, money_of
from .tell import tell, wants

log = logger(__name__)


def tell_overdue(ports: Ports, job: Job, run: Run, since: datetime, reason: str) -> None:
    """Tell people that a batch should have ended at `since`. Nothing else is done: it may still end, and is paid."""
    log.warning("wait: the vendor's own time was over at %s UTC: %s", f"{since:%Y-%m-%d %H:%M}", reason)
    if wants(job, "overdue"):
        tell(ports, run.run, overdue_message(ports, job, run, since=since, reason=reason))


def overdue_message(ports: Ports, job: Job, run: Run, *, since: datetime, reason: str) -> Message:
    """Say which batches wait for a vendor whose own time for them is over."""
    shards = [shard for shard in ports.ledger.shards(run.run) if shard.state is ShardState.OPEN]
    rows = sum(shard.plan.rows for shard in shards)
    return Message(
        event_id=f"{run.run}:overdue",
        kind="overdue",
        title=f"{run.job}: a batch has not ended in the vendor's own time",
        happened=f"The vendor's own time for a batch is over, and it has not ended: {reason}.",
        since=f"{moment(job, since)}, when it should have ended",
        rows=f"{rows:,} rows in {len(shards)} open shards",
        money=money_of(ports.ledger, run.run),
        happens_next="It goes on asking, and loads what comes. Nothing is sent again or cancelled.",
        to_do=(
            "Ask the vendor about the batch, or cancel it in the vendor's console: its finished rows are loaded and "
            "paid, and the others are sent again."
        ),
        commands=(f"nightbatch status {run.job}",),
        if_nobody="The run stays open for as long as the batch does not end; its rows have no answers until then.",
        facts=(
            ("Window", str(run.window)),
            ("Run", run.run),
            ("Batches", ", ".join(map(batch_words, shards[:5])) or "none is open"),
        ),
        link=ports.settings.ui_base_url,
    )

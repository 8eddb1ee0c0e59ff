"""What passes between a task that waits and the trigger that wakes it up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from airflow.sdk import BaseOperator

from nightbatch.errors import RunOverlaps
from nightbatch.job import Job

from .versions import warn_of_triggerer
from .windows import instant

if TYPE_CHECKING:
    from nightbatch.core.ids import ShardRef
    from nightbatch.ports import Ports
    from nightbatch.steps.outcome import Waiting

    from .trigger import ShardTrigger


def note_look(ports: Ports, job: Job, ref: ShardRef, event: Mapping[str, str]) -> None:
    """
    Note in the ledger when the trigger last saw the batch, and since when the vendor has not answered it.

    It waited for hours and wrote nothing; without this, one 404 now would look like the end of a long absence.
    """
    from nightbatch.core.batch import BatchState, BatchStatus
    from nightbatch.steps.tell import wants
    from nightbatch.steps.vendor_outage import count_away

    warn_of_triggerer(event)
    shard = ports.ledger.shard(ref)
    if event.get("failing_since_utc") and wants(job, "away"):
        # Whether people are to be told is seen by the task's own look, which comes next.
        count_away(ports, job, shard, since=instant(event["failing_since_utc"]))
    if not event.get("seen_utc"):
        return
    attempt = shard.current
    if attempt is not None and attempt.batch_id == event["batch_id"]:
        state = BatchState(event["batch_id"], BatchStatus.RUNNING, attempt.vendor_status)
        ports.ledger.note_seen(attempt.attempt_id, state, now=instant(event["seen_utc"]))


def trigger_for(waiting: Waiting, ports: Ports, *, about: str) -> ShardTrigger:
    """Give what wakes a task up that waits; `about` names job, run and shard in the triggerer's log."""
    from .trigger import ShardTrigger

    batch = waiting.batch
    if batch is None:
        return ShardTrigger(until=waiting.until.isoformat())
    return ShardTrigger(
        until=waiting.until.isoformat(),
        provider=batch.provider,
        connection=batch.connection,
        batch_id=batch.batch_id,
        created=batch.created_utc.isoformat(),
        poll_from_s=ports.settings.poll_from_s,
        poll_to_s=ports.settings.poll_to_s,
        away_after_s=ports.settings.away_after_s,
        is_away=bool(waiting.away),
        about=about,
        labels=dict(batch.labels),
    )


def wait_for_window(operator: BaseOperator, ports: Ports, overlap: RunOverlaps) -> NoReturn:
    """Look again in a while whether the other run has ended; holds no worker."""
    from .trigger import ShardTrigger

    operator.log.info("%s", overlap)
    until = ports.clock.now() + timedelta(seconds=ports.settings.poll_from_s)
    operator.defer(trigger=ShardTrigger(until=until.isoformat()), method_name="execute")
    raise overlap  # what never comes to pass: deferring raises

"""Step 5, wait: look at an open batch, and say when to look again or that it has ended."""

from __future__ import annotations

import zlib
from dataclasses import replace
from datetime import datetime, timedelta

from nightbatch.core.batch import BatchState, BatchStatus, Next, decide
from nightbatch.core.shard import ShardPlan, ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import BatchVanished, NightbatchError
from nightbatch.logs import logger
from nightbatch.ports import Attempt, Ports, Settings, Shard

from .account import check_account
from .batch_id import warn_unknown
from .collect import collect
from .outcome import BatchWait, Moved, Outcome, Waiting
from .telemetry import doing, lane_labels, tell_poll_error

log = logger(__name__)


def wait(ports: Ports, shard: Shard) -> Outcome:
    """
    Look once at the shard's batch.

    Raises BatchVanished where the vendor has not known it for longer than a blip: whether to send a batch again
    that may have been billed is a person's decision.
    """
    attempt, plan = shard.current, shard.plan
    if attempt is None or attempt.batch_id is None:
        return Moved()
    now = ports.clock.now()
    provider = ports.provider(plan.provider, plan.connection)
    try:
        state = provider.poll(attempt.batch_id)
    except NightbatchError as error:
        tell_poll_error(ports, shard, error)
        raise
    if state.status is BatchStatus.NOT_FOUND:
        check_account(provider, shard, attempt)
    last_seen = attempt.gone_since_utc or now
    decision = decide(state, now=now, last_seen=last_seen)
    if decision.next is Next.COLLECT and state.problem and not state.result_files:
        return _set_aside(ports, attempt, state)
    if decision.next is Next.COLLECT:
        with doing(ports, "collect", shard):
            return collect(ports, shard, state)
    if decision.next is Next.REQUEUE:
        log.info("wait: %s", decision.reason)
        pause = timedelta(seconds=ports.settings.queue_wait_s)
        ports.ledger.end_full(attempt.attempt_id, provider.queue, reason=decision.reason[:500], wait=pause, now=now)
        return Moved()
    if decision.next is Next.VANISHED and ports.ledger.shard(plan.ref).state is not ShardState.OPEN:
        # Another process has loaded its answers while this one slept, and deleted the batch.
        return Moved()
    if decision.next is Next.VANISHED:
        raise BatchVanished(plan.provider, attempt.batch_id, since=last_seen)
    ports.ledger.note_seen(attempt.attempt_id, state, now=now)
    if shard.problem:
        ports.ledger.note_problem(plan.ref, "", "")
    warn_unknown(state, before=attempt.vendor_status)
    waiting = _wait_for(attempt, state, plan, ports.settings, now, decision.reason)
    return replace(waiting, overdue_since=decision.overdue_since)


def _set_aside(ports: Ports, attempt: Attempt, state: BatchState) -> Outcome:
    """
    Keep the rows of a batch that failed as a whole, and answered nothing, pending.

    Its rows are not "missing": sending them again as they are would fail again, or, where the answers are gone,
    pay again. Running the window again, after a look at the reason, is a person's decision.
    """
    log.error("the batch ended as %s: %s", state.vendor_status, state.problem)
    now = ports.clock.now()
    ports.ledger.end_attempt(
        attempt.attempt_id,
        "refused",
        reason=state.problem[:500],
        retry_at=None,
        hold=Reason.REQUEST_REFUSED.value,
        now=now,
    )
    return Moved()


def _wait_for(
    attempt: Attempt,
    state: BatchState,
    plan: ShardPlan,
    settings: Settings,
    now: datetime,
    reason: str,
) -> Waiting:
    created = attempt.created_utc or attempt.intent_utc
    until = now + next_poll(settings, batch_id=state.batch_id, age=now - created)
    batch = BatchWait(plan.provider, plan.connection, state.batch_id, created, lane_labels(plan))
    log.info("wait: %s; looks again at %s UTC", reason, f"{until:%H:%M:%S}")
    return Waiting(until, reason, batch)


def next_poll(settings: Settings, *, batch_id: str, age: timedelta) -> timedelta:
    """
    Say how long to leave a batch alone: a tenth of its age, within the settings.

    Spread by up to a fifth either way, by the batch's own name, so that shards made together are not asked about
    together.
    """
    seconds = min(max(age.total_seconds() / 10, settings.poll_from_s), settings.poll_to_s)
    spread = 0.8 + 0.4 * (zlib.crc32(f"{batch_id}{age.seconds // 10}".encode()) % 1000) / 1000
    return timedelta(seconds=seconds * spread)

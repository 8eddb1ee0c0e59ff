"""
Beside step 4: a batch that was made beside another one for the same shard is found out, cancelled, told and booked.

It takes a process that froze inside its create call for longer than every limit, at a vendor that keeps no label and no
request file (`docs/reliability.md`). Its reply, when it wakes up, proves the batch to be ours.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from nightbatch.core.batch import BatchState, BatchStatus, Next, decide
from nightbatch.core.ids import custom_id_prefix, row_of, run_code
from nightbatch.core.money import NANO, Usage
from nightbatch.errors import RequestRefused, StaleAttempt
from nightbatch.job import Job
from nightbatch.logs import about, logger
from nightbatch.ports import Attempt, Message, Ports, Provider, Shard

from .batch_id import noted_id
from .collect import keep
from .discard import delete
from .figures import moment, usd
from .lanes import open_lane
from .outcome import Waiting
from .tell import tell, wants
from .validate import lines

log = logger(__name__)


def close_doubles(ports: Ports, job: Job, shard: Shard) -> Waiting | None:
    """
    See to every double of a shard that is done; None when there is nothing left to do.

    Safe to repeat: what died between the vendor's reply and the ledger is found by the note beside the request file.
    """
    if shard.attempts <= (shard.current is not None):
        return None
    for attempt in _attempts(ports, shard, "absent"):
        if batch_id := noted_id(ports, attempt):
            note_double(ports, shard, attempt, batch_id)
    waits = [_close(ports, job, shard, attempt) for attempt in _attempts(ports, shard, "double")]
    return next((outcome for outcome in waits if outcome is not None), None)


def _attempts(ports: Ports, shard: Shard, state: str) -> list[Attempt]:
    ref = shard.plan.ref
    return [one for one in ports.ledger.attempts(ref.run) if (one.ref, one.state) == (ref, state)]


def note_double(ports: Ports, shard: Shard, attempt: Attempt, batch_id: str) -> None:
    """Write a batch down that was made although its attempt was taken for absent, unless it has an owner after all."""
    state = ports.provider(shard.plan.provider, shard.plan.connection).poll(batch_id)
    try:
        ports.ledger.note_double(attempt.attempt_id, state, now=ports.clock.now())
    except StaleAttempt as stale:
        log.info("the batch of a late create has an owner: %s", stale)


def _close(ports: Ports, job: Job, shard: Shard, attempt: Attempt) -> Waiting | None:
    provider = ports.provider(shard.plan.provider, shard.plan.connection)
    with about(batch=attempt.batch_id):
        state = provider.poll(attempt.batch_id or "")
        if state.status is not BatchStatus.ENDED:
            _cancel(provider, state)
        _tell(ports, job, shard, attempt)
        last_seen = attempt.last_seen_utc or attempt.intent_utc
        match decide(state, now=ports.clock.now(), last_seen=last_seen).next:
            case Next.WAIT:
                until = ports.clock.now() + timedelta(seconds=ports.settings.poll_from_s)
                return Waiting(until, f"a batch that was made twice is {state.vendor_status}; its cost is booked then")
            case Next.VANISHED:
                log.error("a batch that was made twice has vanished; its worst case stays reserved")
                return None
        usd = _billed_usd(ports, job, shard, attempt, state)
        ports.ledger.note_double_ended(attempt.attempt_id, usd=usd, now=ports.clock.now())
        log.warning("a batch that was made twice is booked: %s USD", f"{usd:.4f}")
        left = replace(attempt, result_files=state.result_files)
        delete(ports, job, shard, left, batch_id=attempt.batch_id)
    return None


def _cancel(provider: Provider, state: BatchState) -> None:
    """Cancel a batch that the reply to our own create call named; it may end meanwhile."""
    try:
        provider.cancel(state.batch_id)
    except RequestRefused as refused:
        log.info("it cannot be cancelled any more: %s", refused)


def _billed_usd(ports: Ports, job: Job, shard: Shard, attempt: Attempt, state: BatchState) -> Decimal:
    """Add up the usage of its rows; their answers are the other batch's too, and are not used."""
    plan, ref = shard.plan, attempt.ref
    lane = open_lane(ports, job, plan.choice, max_output_tokens=plan.max_output_tokens)
    prefix = custom_id_prefix(ports.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)
    folder = f"{ref.folder}/attempt-{attempt.number}/{ports.clock.now():%Y%m%dT%H%M%S%f}"
    names = [keep(ports, folder, file).name for file in lane.provider.results(state)]
    billed: dict[int, Decimal] = {}
    for line in (line for name in names for line in lines(ports.store, name)):
        try:
            result = lane.provider.parse(line)
        except ValueError:
            continue
        row = row_of(result.custom_id, prefix)
        if row is not None and result.usage != Usage():
            billed.setdefault(row, lane.rate.cost_usd(result.usage).quantize(NANO))
    return sum(billed.values(), Decimal(0))


def _tell(ports: Ports, job: Job, shard: Shard, attempt: Attempt) -> None:
    if wants(job, "paid_twice"):
        tell(ports, attempt.ref.run, double_message(ports, job, shard, attempt), waits=True)


def double_message(ports: Ports, job: Job, shard: Shard, attempt: Attempt) -> Message:
    """Say that rows were sent twice, which batch is kept, and what the other one may cost."""
    kept = shard.current.batch_id if shard.current else "none any more"
    return Message(
        event_id=f"{attempt.ref.run}:paid_twice:{attempt.batch_id}",
        kind="paid_twice",
        title=f"{job.name}: {attempt.rows:,} rows were sent twice",
        happened="A process froze inside a create call, and went on after its rows had been sent again.",
        since=f"{moment(job, attempt.intent_utc)}, when the call was begun",
        rows=f"{attempt.rows:,}, the whole of shard {attempt.ref.name}",
        money=f"at most {usd(attempt.reserved_usd)} beside the run's own; rows that never ran cost nothing",
        happens_next="The late batch is cancelled. What it cost is booked when it has ended; its answers are not used.",
        to_do=(
            "Nothing for the data: the other batch has every answer. Find out what froze the process: a suspended "
            "machine, a stopped container, a worker without memory."
        ),
        commands=(f"nightbatch status {job.name}",),
        if_nobody="It can happen again, and costs each time. This run is not harmed.",
        facts=(
            ("Run", attempt.ref.run),
            ("Made too late", f"{attempt.batch_id} at {attempt.provider}, account {attempt.account}"),
            ("Kept", str(kept)),
        ),
        link=ports.settings.ui_base_url,
    )

"""Housekeeping: close what dead runs left open, delete what is no use at vendors, remove what is past its retention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from nightbatch import flow
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import DoesNotAddUp, NightbatchError, RunFailed, RunIncomplete, StaleAttempt, Terminal, Transient
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed
from nightbatch.logs import about, logger
from nightbatch.ports import (
    Attempt,
    Clock,
    Connections,
    Ledger,
    Ports,
    Provider,
    Run,
    Settings,
    Shard,
    Store,
    Telemetry,
)
from nightbatch.steps.batch_id import batch_note, keep_id
from nightbatch.steps.discard import discard, discard_unused
from nightbatch.steps.double import close_doubles, note_double
from nightbatch.steps.outcome import Waiting
from nightbatch.steps.release import stands_still
from nightbatch.steps.tidy import Removal, measure, remove, why_kept
from nightbatch.steps.untold import tell_again

log = logger(__name__)

QUIET = timedelta(hours=6)
"""How long nothing of an open run must have moved before nobody is thought to work on it."""
SURELY_DEAD = timedelta(hours=30)
"""After that it is dead though its job has other runs under way: no vendor leaves a batch open for so long."""

_MOVING = (ShardState.SUBMITTING, ShardState.OPEN, ShardState.STORED, ShardState.COLLECTED)


@dataclass(frozen=True)
class House:
    """What housekeeping looks after: one ledger and its store, and the ports of any job that ever ran in it."""

    ledger: Ledger
    store: Store
    clock: Clock
    ports_of: Callable[[Job], Ports]
    provider: Callable[[str, str], Provider]
    """(provider name, connection id) -> provider."""
    quiet: timedelta = QUIET
    is_live: Callable[[Run], bool] = lambda _: False
    """Says whether somebody may be at work on a run, however quiet it is."""
    dry_run: bool = False
    """Only say what would be done."""


def open_house(
    settings: Settings, connections: Connections, *, telemetry: Telemetry | None = None, **changes: Any
) -> House:
    """Open an installation's ledger and store; vendors, sources and sinks are opened when a run needs them."""
    from nightbatch.adapters import registry
    from nightbatch.adapters.clock import SystemClock

    ledger = registry.open_ledger(settings)

    def ports_of(job: Job) -> Ports:
        return registry.open_ports(job, settings, connections, ledger=ledger, telemetry=telemetry)

    def provider(name: str, conn_id: str) -> Provider:
        return registry.open_provider(name, connections(conn_id), request_timeout_s=settings.request_timeout_s)

    store = registry.open_store(settings, connections)
    return House(ledger, store, SystemClock(), ports_of, provider, **changes)


@dataclass
class Swept:
    """What one housekeeping did, or would do."""

    closed: dict[str, str] = field(default_factory=dict)
    """Dead run -> the state that it was closed in; with a dry run `open`."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Dead run -> what its batches still wait for."""
    told: dict[str, int] = field(default_factory=dict)
    """Job -> messages that its people had not got when they were new, and have now."""
    discarded: int = 0
    """Attempts whose files at the vendor were deleted."""
    removed: list[Removal] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    """Why other runs' files stay -> runs."""
    problems: dict[str, str] = field(default_factory=dict)
    """Run -> what a person must look at."""

    @property
    def files(self) -> int:
        """All files that were removed."""
        return sum(removal.files for removal in self.removed)

    @property
    def size_bytes(self) -> int:
        """What they held."""
        return sum(removal.size_bytes for removal in self.removed)


def housekeep(house: House) -> Swept:
    """
    Go through all runs that still have files, one by one; memory is one run.

    Safe at any time, beside live runs and beside another housekeeping. What fails for one run stops no other.
    """
    swept = Swept()
    for run in house.ledger.runs_with_files():
        with about(job=run.job, run=run.run):
            try:
                _look_after(house, run, swept)
            except Transient as error:
                log.info("housekeeping: %s", error)
                swept.waiting[run.run] = str(error)
            except NightbatchError as error:
                log.warning("housekeeping: %s", error)
                swept.problems[run.run] = str(error)
    return swept


def _look_after(house: House, run: Run, swept: Swept) -> None:
    if run.state == "open" and _is_left_alone(house, run):
        _close(house, run, swept)
        run = house.ledger.run(run.run)
    job = _job_of(run)
    shards, attempts = house.ledger.shards(run.run), house.ledger.attempts(run.run)
    if job is not None and not house.dry_run:
        if run.job not in swept.told:
            swept.told[run.job] = tell_again(house.ports_of(job), job)
        if waits := _close_doubles(house.ports_of(job), job, shards, attempts):
            swept.waiting[run.run] = waits[0]
        swept.discarded += _discard(house.ports_of(job), job, shards, attempts)
    reason = why_kept(run, job, shards, attempts, proof=house.ledger.proof(run.run), now=house.clock.now())
    if reason:
        swept.kept[reason] += 1
        return
    found = None if _is_gone_on_from(house.ledger, run) else _remove(house, run)
    if found is None:
        swept.kept["pending rows, or a newer plan under way"] += 1
    else:
        swept.removed.append(found)


def _is_gone_on_from(ledger: Ledger, run: Run) -> bool:
    """Say whether another run needs these files, or will; the ledger looks again when they are given up."""
    if run.staging_removed_utc is not None:
        return False
    is_pending = any(file.run == run.run for file in ledger.pending(run.job))
    return is_pending or any(other.state == "open" for other in ledger.runs(job=run.job, window=run.window))


def _job_of(run: Run) -> Job | None:
    return unsealed(run.plan, run=run.run) if run.plan is not None else None


def _remove(house: House, run: Run) -> Removal | None:
    if house.dry_run:
        return measure(house.store, run.run)
    found = remove(house.ledger, house.store, run.run, now=house.clock.now())
    if found is not None:
        log.info("housekeeping: %s files removed, %s bytes", f"{found.files:,}", f"{found.size_bytes:,}")
    return found


def _discard(ports: Ports, job: Job, shards: list[Shard], attempts: list[Attempt]) -> int:
    of_ref = {shard.plan.ref: shard for shard in shards}
    done = sum(discard(ports, job, shard) for shard in shards)
    return done + sum(discard_unused(ports, job, of_ref[attempt.ref], attempt) for attempt in attempts)


# --- open runs that nobody works on ---------------------------------------------------------------------------


def _is_left_alone(house: House, run: Run) -> bool:
    """
    Say whether an open run is dead: nobody is known to work on it, and nothing of it has moved for long.

    It may be wrong about a runner that sleeps: that costs nothing, since no batch is cancelled, nothing is sent, and
    what is closed here the runner finds closed.
    """
    idle = house.clock.now() - house.ledger.last_moved(run.run)
    return idle > house.quiet and (idle > SURELY_DEAD or not house.is_live(run))


def _close(house: House, run: Run, swept: Swept) -> None:
    job = _job_of(run)
    if house.dry_run:
        swept.closed[run.run] = "open"
    elif job is None:
        house.ledger.settle(run.run, state="failed", books={}, now=house.clock.now())
        log.warning("housekeeping: nobody works on this run, and it never got a plan; its window is free again")
        swept.closed[run.run] = "failed"
    else:
        _collect_and_settle(house.ports_of(job), job, run, swept)


def _collect_and_settle(ports: Ports, job: Job, run: Run, swept: Swept) -> None:
    """Collect and load what is there, send nothing, and settle once nothing is under way any more."""
    _adopt_late(ports, run)
    waits = []
    for shard in ports.ledger.shards(run.run):
        if shard.state not in _MOVING:
            continue
        try:
            outcome = flow.advance(ports, job, shard.plan.ref, sends=False)
        except Terminal as error:
            swept.problems[run.run] = str(error)
            return
        if isinstance(outcome, Waiting):
            waits.append(outcome.reason)
    if waits:
        swept.waiting[run.run] = f"{len(waits):,} shards, the first: {waits[0]}"
        return
    if stands_still(ports.ledger, job, run.run):
        swept.waiting[run.run] = "a person, who looks at what the quality gate holds back"
        return
    _set_unsent_aside(ports, run)
    try:
        flow.finish(ports, job, run.run)
    except (RunIncomplete, RunFailed) as ending:
        log.info("housekeeping: %s", ending)
    except DoesNotAddUp as error:
        swept.problems[run.run] = str(error)
    swept.closed[run.run] = ports.ledger.run(run.run).state


def _set_unsent_aside(ports: Ports, run: Run) -> None:
    """What a dead run never sent is pending: the job's next run takes it, with the money that it has."""
    for shard in ports.ledger.shards(run.run):
        if shard.state is ShardState.SEALED:
            try:
                ports.ledger.hold(shard.plan.ref, Reason.NOT_SENT.value, now=ports.clock.now())
            except StaleAttempt as stale:
                log.info("housekeeping: %s", stale)


def _adopt_late(ports: Ports, run: Run) -> None:
    """Take over a batch whose id a dying process wrote into the store alone, after its attempt was given up."""
    for attempt in ports.ledger.attempts(run.run):
        if attempt.state != "absent" or not ports.store.exists(batch_note(attempt)):
            continue
        shard = ports.ledger.shard(attempt.ref)
        provider = ports.provider(shard.plan.provider, shard.plan.connection)
        state = provider.poll(ports.store.read(batch_note(attempt)).decode())
        try:
            keep_id(ports, shard, attempt, state)
        except StaleAttempt as stale:
            log.warning("housekeeping: batch %s was made beside another one: %s", state.batch_id, stale)
            note_double(ports, shard, attempt, state.batch_id)


def _close_doubles(ports: Ports, job: Job, shards: list[Shard], attempts: list[Attempt]) -> list[str]:
    """Cancel, tell of and book what was made beside another batch by a process that died; says what is waited for."""
    refs = {attempt.ref for attempt in attempts if attempt.state == "double"}
    found = [close_doubles(ports, job, shard) for shard in shards if shard.plan.ref in refs]
    return [outcome.reason for outcome in found if outcome is not None]

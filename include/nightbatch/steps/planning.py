"""Steps 1 to 3 together: what a window's plan is made of, sealed for good, or looked at ahead."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import chain
from typing import cast

from nightbatch.core.shard import ShardPlan
from nightbatch.core.window import Window
from nightbatch.errors import StaleAttempt
from nightbatch.job import Job
from nightbatch.job_sealed import facts_of
from nightbatch.ports import PendingFile, Ports, RoundPlan, Run, Store

from .ask_again import Ask, plan_retry
from .budgets import SHARES, sharing
from .canary import wants_canary
from .estimate import Estimate, NoStore, estimate
from .fill import ShardFiller, numbers
from .forecast import forecast
from .lanes import packing_lane
from .overlap import dead_before
from .pack import pack
from .parts import Crew, Spread, parts_of, split
from .parts_mend import gather
from .progress import Progress, Watch
from .pull import Question, Tally, pull, pull_pending
from .reads import reach, reads
from .redact import KEY, key_of, redact
from .render import render
from .resume import Past, pending_for
from .second_chance import pack_letters
from .seen import Seen, seen
from .telemetry import tell_plan


@dataclass(frozen=True)
class Options:
    """What whoever starts a run may choose for it alone."""

    limit: int | None = None
    """Read at most so many records, for a first look."""
    model: str = ""
    """Use this model (by its name) in the place of the job's first one."""
    refresh: bool = False
    """Send unchanged records too."""
    force: str = ""
    """Make a new plan for a window that has one. The text names who asked: the same asker is heard once."""
    release: str = ""
    """Let go what the canary or the quality gate of the window's last plan held back. The text names who asked."""
    discard: str = ""
    """Discard the answers that the quality gate of the window's last plan held back. The text names who asked."""
    deadline_utc: datetime | None = None
    """Replaces the job's deadline for this run."""
    retry: Ask | None = None
    """Send the window's dead letters again, and nothing else; reads no source."""


def with_model(job: Job, model: str) -> Job:
    """Put another model first; the same job where `model` is empty."""
    if not model:
        return job
    named = [choice for choice in job.models if choice.model == model]
    first = named[0] if named else job.models[0].model_copy(update={"model": model})
    rest = tuple(choice for choice in job.models if choice.model != model)
    return job.model_copy(update={"models": (first, *rest)})


def spread_out(ports: Ports, job: Job, run: Run, past: Past, options: Options) -> Spread | None:
    """Split what a run reads into parts; None where it reads no source, only the first records, or too few of them."""
    if past.goes_on_from(run) is not None or options.limit is not None:
        return None
    pending = pending_for(ports.ledger, run, limit=None)
    canary_rows = job.canary.rows if job.canary and wants_canary(ports.ledger, job, None) else 0
    return split(ports, job, run, pending, refresh=options.refresh, canary_rows=canary_rows)


def seal_plan(
    ports: Ports, job: Job, run: Run, past: Past, options: Options, watch: Watch, *, read: Reading | None = None
) -> RoundPlan:
    """
    Seal a plan; once more where another window's run took the same pending rows a moment earlier.

    `read` are the parts that the source was split into, and who reads them.
    """
    while True:
        try:
            made = _in_parts(ports, read, watch) if read else _as_one(ports, job, run, past, options, watch)
            return _seal(ports, run, past, options, made)
        except StaleAttempt:
            if ports.ledger.run(run.run).state != "open":
                raise
            read = None  # the parts hold rows that another run has by now


@dataclass(frozen=True)
class Reading:
    """A source that was split into parts, and who reads them."""

    spread: Spread
    crew: Crew


@dataclass(frozen=True)
class _Made:
    """What a plan is made of."""

    job: Job
    shards: tuple[ShardPlan, ...]
    counts: dict[str, int]
    dead_reasons: dict[str, int]
    files: dict[str, str]
    pending: Sequence[PendingFile]
    redaction_key: str
    price_note: str
    has_canary: bool
    sealed_as: str = ""


def _as_one(ports: Ports, job: Job, run: Run, past: Past, options: Options, watch: Watch) -> _Made:
    # Each attempt writes to a folder of its own, so two at once cannot mix their files; the first to seal wins.
    folder = f"{run.run}/round-0/{ports.clock.now():%H%M%S%f}"
    pending, goes_on_from = pending_for(ports.ledger, run, limit=options.limit), past.goes_on_from(run)
    tally, lane, key = Tally(), packing_lane(ports, job, 0), key_of(ports, job)
    filler = ShardFiller(
        ports.store,
        lane,
        ledger=ports.ledger.ledger_id,
        folder=folder,
        numbers=numbers(run.run, 0),
        first_rows=job.canary.rows if job.canary and wants_canary(ports.ledger, job, goes_on_from) else None,
    )
    with seen() as memory:
        _learn(ports, job, run.window, memory, options)
        window = None if goes_on_from else run.window
        questions = _questions(ports, job, window, options.limit, pending, tally, watch)
        hidden = redact(questions, ports, job, key)
        packed = pack(hidden, filler, ports.store, folder, seen=memory, tally=tally)
    counts = asdict(tally)
    dead_reasons = counts.pop("dead_reasons")
    files = {name: getattr(packed, name) for name in _FILES}
    has_canary = bool(filler.first_rows)
    return _Made(job, packed.shards, counts, dead_reasons, files, pending, key, lane.price_note, has_canary)


_FILES = ("duplicates_name", "duplicates_sha256", "dead_name", "dead_sha256")


def _in_parts(ports: Ports, read: Reading, watch: Watch) -> _Made:
    spread, job = read.spread, read.spread.read_job()
    watch(Progress("prepare", 0, note=f"{len(spread.parts)} parts"))
    found = gather(ports, spread, read.crew)
    counts = found.sorted.counts
    watch(Progress("prepare", counts["pulled"] + counts["from_pending"], note=f"{counts['requests']:,} requests"))
    return _Made(
        job,
        found.shards,
        counts,
        found.sorted.dead_reasons,
        {name: getattr(found.sorted, name) for name in _FILES},
        spread.pending,
        key_of(ports, job),
        packing_lane(ports, job, 0).price_note,
        spread.canary_rows > 0,
        # Two that put the same parts together hold the same files, and must be told apart.
        sealed_as=secrets.token_hex(8),
    )


def _seal(ports: Ports, run: Run, past: Past, options: Options, made: _Made) -> RoundPlan:
    job, goes_on_from = made.job, past.goes_on_from(run)
    facts = {
        "counts": made.counts,
        "dead_reasons": made.dead_reasons,
        **made.files,
        **facts_of(job),
        **({KEY: made.redaction_key} if job.redact else {}),
        "forced_by": options.force,
        "limit": goes_on_from.plan.get("limit") if goes_on_from and goes_on_from.plan else options.limit,
        "goes_on": goes_on_from is not None,
        SHARES: sharing(goes_on_from),
        **({} if goes_on_from else reach(ports.ledger, job, run)),
        "deadline_utc": options.deadline_utc.isoformat() if options.deadline_utc else "",
        "price_note": made.price_note,
        **({"sealed_as": made.sealed_as} if made.sealed_as else {}),
        "canary_rows": made.shards[0].rows if made.has_canary and len(made.shards) > 1 else 0,
    }
    plan = RoundPlan(run.run, 0, made.shards, facts)
    return tell_plan(ports, job, plan, ports.ledger.seal(plan, pending=made.pending, now=ports.clock.now()))


def _learn(ports: Ports, job: Job, window: Window, memory: Seen, options: Options) -> None:
    for rows in ports.sink(job).known():
        memory.learn(rows, asks_anew=options.refresh)
    if not options.refresh:
        memory.learn_dead(dead_before(ports, job, window))


def _questions(
    ports: Ports,
    job: Job,
    window: Window | None,
    limit: int | None,
    pending: list[PendingFile],
    tally: Tally,
    watch: Watch,
) -> Iterator[list[Question]]:
    """Stream the window's own records, then what earlier runs left pending and the window does not hold anew."""
    parts: Iterable[list[Question]] = pull_pending(ports.store, pending, tally)
    if window is not None:
        pulled = pull(ports.source(), job, reads(ports.ledger, job, window), tally, limit=limit)
        parts = chain(render(pulled, job), parts)
    for part in parts:
        yield part
        watch(Progress("prepare", tally.pulled + tally.from_pending, note=f"{tally.requests:,} requests"))


def look_ahead(ports: Ports, job: Job, window: Window, options: Options | None = None) -> Estimate:
    """Say what a run would send and cost. Reads the source, keeps and sends nothing."""
    options = options or Options()
    job = with_model(job, options.model)
    dry, past = replace(ports, store=_no_store(ports)), ports.ledger.past_estimates(job.name, limit=5)
    tally, lane = Tally(), packing_lane(ports, job, 0)
    if options.retry is not None:
        letters = pack_letters(dry, plan_retry(ports, job, window, options.retry))
        time = forecast(ports, job, window, lane, letters.shards)
        return estimate(lane, letters.tally, letters.shards, past=past, forecast=time)
    run = Run("dry-run", job.name, window, 1, "open", ports.clock.now())
    filler = ShardFiller(
        dry.store,
        lane,
        ledger="0" * 8,
        folder="dry-run",
        numbers=numbers("dry-run", 0),
        first_rows=job.canary.rows if job.canary else None,
    )
    with seen() as memory:
        _learn(ports, job, window, memory, options)
        pending = pending_for(ports.ledger, run, limit=options.limit)
        questions = _questions(ports, job, window, options.limit, pending, tally, lambda _: None)
        hidden = redact(questions, ports, job, key_of(ports, job))
        packed = pack(hidden, filler, dry.store, "dry-run", seen=memory, tally=tally)
    parts = [] if options.limit is not None else parts_of(ports, job, reads(ports.ledger, job, window))
    time = forecast(ports, job, window, lane, packed.shards, parts=max(len(parts), 1))
    return estimate(lane, tally, packed.shards, past=past, forecast=time)


def _no_store(ports: Ports) -> Store:
    return cast(Store, NoStore(ports))

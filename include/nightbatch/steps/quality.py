"""Before step 8: hold a run's answers back when they are too far from what is usual, until a person has looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from nightbatch.core.profile import Profile
from nightbatch.core.quality import Breach, Heard, breaches
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason, VerdictKind
from nightbatch.errors import StaleAttempt
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Gate, Ledger, Ports, Run, Shard

from .chain import retried_reasons, rounds_of
from .outcome import Finished, Moved, Outcome
from .release import QUALITY, why
from .throw_away import throw_away

log = logger(__name__)

_JUDGED = (ShardState.COLLECTED, ShardState.LOADED)


def hold_load(ports: Ports, job: Job, shard: Shard) -> Outcome | None:
    """
    Say what becomes of a collected shard at the gate; None lets its answers be loaded.

    Each shard's first look judges it, and all of the run that has come back so far. The first breach closes the gate
    for the whole run; only a person opens it.
    """
    if job.quality is None:
        return None
    gate = ports.ledger.gate(shard.plan.ref.run, QUALITY) or _look(ports, job, shard)
    if gate is None or gate.state in ("passed", "released"):
        return None
    if gate.state == "discarded":
        return throw_away(ports, shard)
    log.warning("load: %s answers are held back: %s", f"{shard.counts.get('good', 0):,}", why(gate))
    return Finished(shard.state.value)


def hold_send(ports: Ports, job: Job, shard: Shard) -> Outcome | None:
    """Say what becomes of a shard that would be sent while the gate is closed; None lets it go."""
    gate = ports.ledger.gate(shard.plan.ref.run, QUALITY) if job.quality is not None else None
    if gate is None or gate.state in ("passed", "released"):
        return None
    if gate.state == "discarded":
        ports.ledger.hold(shard.plan.ref, Reason.DISCARDED.value, now=ports.clock.now())
        return Moved()
    # It stays sealed, so that it goes as it is when the gate is opened.
    return Finished(shard.state.value)


def checked_again(ports: Ports, job: Job, shard: Shard, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """
    Hand a shard's answers on, and look at the gate once more behind the last one.

    A process that froze in the middle, while others closed the gate, so breaks its merge off before it is committed.
    Raises StaleAttempt.
    """
    yield from batches
    if job.quality is not None and shard.counts.get(VerdictKind.GOOD):
        gate = ports.ledger.gate(shard.plan.ref.run, QUALITY)
        if gate is not None and gate.state in ("stopped", "discarded"):
            raise StaleAttempt(str(shard.plan.ref), expected="an open quality gate", found=f"one that is {gate.state}")


def _look(ports: Ports, job: Job, shard: Shard) -> Gate | None:
    """Judge a shard, and the run so far; gives the gate where it is closed."""
    run = ports.ledger.run(shard.plan.ref.run)
    if job.quality is None or retried_reasons(run.plan):
        # Dead letters that are sent again are the difficult rows, by a person's choice.
        return None
    shards = [one for one in ports.ledger.shards(run.run) if one.state in _JUDGED]
    bounds, (name, last) = job.quality.bounds(), _last_good(ports.ledger, run, job.quality.min_rows)
    found: dict[str, list[Breach]] = {}
    if not shard.plan.ref.round:
        # Later rounds ask the difficult rows alone.
        found[f"shard {shard.plan.ref.name}"] = breaches(_heard([shard], dead=_dead([shard])), bounds, last=last)
    dead = _dead([one for one in shards if one.taken_by_round is None]) + _buried(ports, run)
    found["the run so far"] = breaches(_heard(shards, dead=dead), bounds, last=last)
    told = [(place, breach) for place, some in found.items() for breach in some]
    return _close(ports, run, told, name) if told else None


def _close(ports: Ports, run: Run, told: list[tuple[str, Breach]], last: str) -> Gate:
    facts: dict[str, Any] = {
        "breaches": [f"{place}: {breach}" for place, breach in told],
        "differences": [{"place": place, **breach.as_json()} for place, breach in told],
        "last_good_run": last,
    }
    return ports.ledger.decide_gate(run.run, QUALITY, "stopped", facts, by="", now=ports.clock.now())


def _heard(shards: Iterable[Shard], *, dead: int) -> Heard:
    """Add shards up: the verdicts of first answers, and the profiles of all good ones."""
    counts: Counter[str] = Counter()
    profile = Profile()
    for shard in shards:
        profile += Profile.from_json(shard.profile)
        if not shard.plan.ref.round:
            counts.update(shard.counts)
    return Heard(counts, dead, profile)


def _dead(shards: Iterable[Shard]) -> int:
    """Count rows that no retry can help, whose round has not buried them yet."""
    return sum(
        number
        for shard in shards
        for what, number in shard.counts.items()
        if what.partition(":")[0] == VerdictKind.DEAD
    )


def _buried(ports: Ports, run: Run) -> int:
    return sum(sum(plan.facts["dead"].values()) for plan in rounds_of(ports, run.run) if plan.round)


def _last_good(ledger: Ledger, run: Run, min_rows: int) -> tuple[str, Profile | None]:
    """Give the job's last complete run that answered enough rows to compare with, and its profile."""
    for other in ledger.runs(job=run.job, limit=200):
        if other.state == "complete" and other.run != run.run and not retried_reasons(other.plan):
            profile = _heard(ledger.shards(other.run), dead=0).profile
            if profile.answers >= min_rows:
                return other.run, profile
    return "", None

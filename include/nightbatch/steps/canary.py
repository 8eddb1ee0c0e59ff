"""Before step 4: hold a run's other shards back until its canary has come home, and well."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from nightbatch.core.canary import Bounds, Sample, breaches
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Gate, Ledger, Ports, Run, Shard

from .outcome import Moved, Outcome, Waiting
from .release import CANARY, why

log = logger(__name__)


def hold_back(ports: Ports, job: Job, shard: Shard) -> Outcome | None:
    """
    Say what a sealed shard does while the canary is out; None lets it go.

    Only the shards of round 0 that follow the canary's wait; the first look after it is collected decides for all.
    """
    ref = shard.plan.ref
    if job.canary is None or ref.round or not ref.shard or not _has_canary(ports.ledger, ref.run):
        return None
    gate = ports.ledger.gate(ref.run, CANARY) or _decide(ports, job, ref.run)
    if gate is None:
        until = ports.clock.now() + timedelta(seconds=ports.settings.poll_from_s)
        return Waiting(until, f"waits for the canary, {job.canary.rows:,} rows that go first")
    if gate.state != "stopped":
        return None
    log.warning("submit: %s rows are not sent and stay pending: %s", f"{shard.plan.rows:,}", why(gate))
    ports.ledger.hold(ref, Reason.CANARY.value, now=ports.clock.now())
    return Moved()


def wants_canary(ledger: Ledger, job: Job, goes_on_from: Run | None) -> bool:
    """Say whether a new plan sends a canary first: unless a person released the one that it goes on from."""
    if job.canary is None:
        return False
    gate = ledger.gate(goes_on_from.run, CANARY) if goes_on_from is not None else None
    return gate is None or gate.state != "released"


def _has_canary(ledger: Ledger, run: str) -> bool:
    plan = ledger.sealed(run, 0)
    return plan is not None and bool(plan.facts.get("canary_rows"))


def _decide(ports: Ports, job: Job, run: str) -> Gate | None:
    """Judge the canary where it has come home; None while it is out."""
    first = next(iter(ports.ledger.shards(run, round_=0)))
    if first.state is ShardState.HELD:
        # Budget or account: the others would meet the same, and nothing vouches for them.
        reasons = [f"its own {first.plan.rows:,} rows were not sent: {first.held_reason}"]
        return _record(ports, run, reasons, _sample([first]), None)
    if first.state not in (ShardState.COLLECTED, ShardState.LOADED) or job.canary is None:
        return None
    sample, last = _sample([first]), _last_good(ports.ledger, job.name)
    bounds = Bounds(job.canary.max_bad_share, job.canary.max_length_growth, job.canary.max_cost_growth)
    return _record(ports, run, breaches(sample, bounds, last=last), sample, last)


def _record(ports: Ports, run: str, found: list[str], sample: Sample, last: Sample | None) -> Gate:
    facts: dict[str, Any] = {"breaches": found, "canary": _facts(sample), "last_good_run": _facts(last)}
    state = "stopped" if found else "passed"
    gate = ports.ledger.decide_gate(run, CANARY, state, facts, by="", now=ports.clock.now())
    log.info("canary: %s", why(gate) if gate.state == "stopped" else "it came home well, the others follow")
    return gate


def _sample(shards: list[Shard]) -> Sample:
    counts: dict[str, int] = {}
    for shard in shards:
        for name, count in shard.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Sample(
        rows=sum(shard.plan.rows for shard in shards),
        counts=counts,
        output_tokens=sum(shard.cost.usage.output_tokens for shard in shards),
        cost_usd=sum((shard.cost.batch_usd for shard in shards), start=Sample(0).cost_usd),
    )


def _last_good(ledger: Ledger, job: str) -> Sample | None:
    """Give round 0 of the job's last complete run that sent anything; retries would blur what one sending costs."""
    for run in ledger.runs(job=job, limit=200):
        is_whole = run.state == "complete" and not (run.plan or {}).get("retries")
        sample = _sample(ledger.shards(run.run, round_=0)) if is_whole else None
        if sample is not None and sample.judged:
            return sample
    return None


def _facts(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {
        "rows": sample.rows,
        "counts": dict(sample.counts),
        "output_tokens_a_row": round(sample.tokens_a_row, 3),
        "usd_a_row": f"{sample.usd_a_row:.9f}",
    }

"""What a monitor is told, each right after the commit that booked it: figures and spans, no prompts or answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING

from nightbatch.core import metrics
from nightbatch.core.batch import BatchState
from nightbatch.core.ids import ShardRef, job_of
from nightbatch.core.lane import Mode
from nightbatch.core.money import Cost, Usage
from nightbatch.core.request import Endpoint
from nightbatch.core.shard import ShardPlan
from nightbatch.job import Job
from nightbatch.ports import Attempt, Ports, RoundPlan, Run, Shard, Telemetry

from .outcome import Waiting

if TYPE_CHECKING:
    from .absence import Sighting

OPERATIONS = {Endpoint.EMBEDDINGS: "embeddings"}
"""`gen_ai.operation.name` of what is no chat."""
_TOKENS = ("input", "cached", "cache_write", "output", "reasoning")


def lane_labels(plan: ShardPlan) -> dict[str, str]:
    """Give the labels of a shard's lane; provider and model stand beside what else makes the lane."""
    lane = f"{plan.connection}/{Mode.BATCH}"
    return {"job_name": job_of(plan.ref.run), "provider": plan.provider, "model": plan.model, "lane": lane}


def doing(ports: Ports, step: str, shard: Shard) -> AbstractContextManager[None]:
    """Open the span of a step at a shard."""
    return ports.telemetry.doing(f"nightbatch.{step}", _about(shard.plan))


def doing_run(ports: Ports, step: str, run: str) -> AbstractContextManager[None]:
    """Open the span of a step at a whole run."""
    return ports.telemetry.doing(f"nightbatch.{step}", {"nightbatch.run": run})


# --- plans and rounds -----------------------------------------------------------------------------------------


def tell_plan(ports: Ports, job: Job, plan: RoundPlan, sealed: RoundPlan) -> RoundPlan:
    """Tell what a plan is made of, where this process sealed it; gives the sealed one."""
    if _is_mine(plan, sealed):
        for what, count in sealed.facts["counts"].items():
            _count(ports, metrics.RECORDS, count, job_name=job.name, what=what)
        _tell_reasons(ports, metrics.ROWS_DEAD, job, sealed.facts["dead_reasons"])
    return sealed


def tell_round(ports: Ports, job: Job, plan: RoundPlan, sealed: RoundPlan) -> RoundPlan:
    """Tell the fates of a round's bad rows, where this process sealed it; gives the sealed one."""
    if _is_mine(plan, sealed):
        facts = sealed.facts
        _tell_reasons(ports, metrics.ROWS_AGAIN, job, facts["sent_again"])
        _tell_reasons(ports, metrics.ROWS_DEAD, job, {**facts["dead"], "copy": facts["copies_dead"]})
        _tell_reasons(ports, metrics.ROWS_PENDING, job, {**facts["pending"], "copy": facts["copies_pending"]})
    return sealed


def _is_mine(plan: RoundPlan, sealed: RoundPlan) -> bool:
    """Say whether the sealed plan is this one: every attempt writes to a folder of its own, or names itself."""
    names = ("dead_name", "pending_name", "duplicates_name", "sealed_as")
    mine, theirs = ([shard.requests_name for shard in one.shards] for one in (plan, sealed))
    return mine == theirs and all(plan.facts.get(name) == sealed.facts.get(name) for name in names)


def _tell_reasons(ports: Ports, metric: metrics.Metric, job: Job, counts: Mapping[str, int]) -> None:
    for reason, count in counts.items():
        _count(ports, metric, count, job_name=job.name, reason=reason)


def tell_run(ports: Ports, run: Run, *, state: str, seconds: float) -> None:
    """Tell how a run ended; `run` is as it was before, so that one that is settled again is not counted again."""
    if state in (run.state, "open"):
        return
    _count(ports, metrics.RUNS, 1, job_name=run.job, state=state)
    if state == "complete":
        ports.telemetry.emit(metrics.RUN_DURATION, seconds, {"job_name": run.job})


def tell_standing(telemetry: Telemetry, sightings: Sequence[Sighting], *, now: datetime) -> None:
    """Tell how scheduled jobs stand: due windows without a run, and the age of the oldest answer in use."""
    for one in sightings:
        labels, age = {"job_name": one.job.name}, one.age(now)
        telemetry.emit(metrics.WINDOWS_MISSING, one.windows, labels)
        if age is not None:
            telemetry.emit(metrics.ANSWERS_AGE, age.total_seconds(), labels)


# --- batches --------------------------------------------------------------------------------------------------


def tell_queued(ports: Ports, shard: Shard, attempt: Attempt) -> None:
    """Tell how long a shard waited for its place in the vendor's queue."""
    since = attempt.queued_utc or attempt.intent_utc
    wait_s = (attempt.intent_utc - since).total_seconds()
    ports.telemetry.emit(metrics.QUEUE_WAIT, max(0.0, wait_s), lane_labels(shard.plan))


def tell_sent(ports: Ports, shard: Shard) -> None:
    """Tell that a batch was made, or found that had been lost."""
    labels = lane_labels(shard.plan)
    ports.telemetry.emit(metrics.BATCHES, 1, labels)
    ports.telemetry.emit(metrics.ROWS_SENT, shard.plan.rows, labels)


def tell_poll_error(ports: Ports, shard: Shard, error: Exception) -> None:
    """Tell that a batch could not be looked at."""
    labels = {**lane_labels(shard.plan), "error": type(error).__name__}
    ports.telemetry.emit(metrics.POLL_ERRORS, 1, labels)


def tell_turnaround(ports: Ports, shard: Shard, attempt: Attempt, state: BatchState) -> None:
    """Tell how long the vendor took for a batch."""
    created, now = attempt.created_utc or attempt.intent_utc, ports.clock.now()
    taken_s = ((state.ended_utc or now) - (state.created_utc or created)).total_seconds()
    ports.telemetry.emit(metrics.TURNAROUND, max(0.0, taken_s), lane_labels(shard.plan))


def tell_collected(ports: Ports, job: Job, shard: Shard, counts: Mapping[str, int], cost: Cost) -> None:
    """Tell the verdicts, tokens and cost of a shard, and its batch as one span, from its creation to its end."""
    labels = lane_labels(shard.plan)
    for verdict, count in counts.items():
        kind, _, reason = verdict.partition(":")
        if kind != "odd":
            ports.telemetry.emit(metrics.VERDICTS, count, {**labels, "kind": kind, "reason": reason})
    for what in _TOKENS:
        _count(ports, metrics.TOKENS, getattr(cost.usage, f"{what}_tokens"), **labels, what=what)
    _count(ports, metrics.COST, float(cost.batch_usd), **labels)
    _count(ports, metrics.REALTIME, float(cost.realtime_usd), **labels)
    _tell_batch(ports, job, shard, counts, cost)


def tell_loaded(ports: Ports, shard: Shard, rows: int) -> None:
    """Tell how many answers reached the sink."""
    _count(ports, metrics.ROWS_LOADED, rows, **lane_labels(shard.plan))


def tell_ages(ports: Ports, plans: Sequence[ShardPlan], waits: Mapping[ShardRef, Waiting], told: set[str]) -> set[str]:
    """
    Tell the age of the oldest open batch of each model, for one process that waits for many.

    `told` are the models that had one at the last turn; gives those that have one now.
    """
    now, oldest = ports.clock.now(), dict[str, datetime]()
    by_model = {plan.model: plan for plan in plans}
    for plan in plans:
        batch = waits[plan.ref].batch if plan.ref in waits else None
        if batch is not None:
            oldest[plan.model] = min(batch.created_utc, oldest.get(plan.model, batch.created_utc))
    for model in sorted(told | set(oldest)):
        age_s = (now - oldest.get(model, now)).total_seconds()
        ports.telemetry.emit(metrics.BATCH_AGE, max(0.0, age_s), lane_labels(by_model[model]))
    return set(oldest)


def _count(ports: Ports, metric: metrics.Metric, count: float, **labels: str) -> None:
    if count:
        ports.telemetry.emit(metric, count, labels)


# --- the batch as a span --------------------------------------------------------------------------------------


def _tell_batch(ports: Ports, job: Job, shard: Shard, counts: Mapping[str, int], cost: Cost) -> None:
    attempt, plan = shard.current, shard.plan
    if attempt is None:
        return
    operation = OPERATIONS.get(job.endpoint(plan.choice), "chat")
    start, end = attempt.created_utc or attempt.intent_utc, attempt.ended_utc or ports.clock.now()
    attributes: dict[str, str | int | float] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": plan.provider,
        "gen_ai.request.model": plan.model,
        **_usage(cost.usage),
        **_about(plan),
        "nightbatch.job": job.name,
        "nightbatch.batch.id": attempt.batch_id or "",
        "nightbatch.batch.status": attempt.vendor_status,
        "nightbatch.batch.attempt": attempt.number,
        "nightbatch.rows": plan.rows,
        "nightbatch.rows.good": counts.get("good", 0),
        "nightbatch.cost_usd": float(cost.batch_usd),
        "nightbatch.prompt_version": job.prompt_version,
    }
    if plan.max_output_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = plan.max_output_tokens
    ports.telemetry.span(f"{operation} {plan.model}", start=start, end=max(start, end), attributes=attributes)


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


def _about(plan: ShardPlan) -> dict[str, str]:
    return {"nightbatch.run": plan.ref.run, "nightbatch.shard": plan.ref.name}

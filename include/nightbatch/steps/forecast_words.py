"""What a look ahead says of time: how many batches at once, how long, with what, and whether it is soon enough."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from nightbatch.core.capacity import MOST_TASKS, Capacity, Verdict, WayOut
from nightbatch.core.queue import Kind
from nightbatch.job import Job

from .figures import moment
from .figures import span as in_words
from .forecast import Forecast

MINUTE = timedelta(minutes=1)

WORDS = {Kind.TOKENS: "tokens", Kind.ROWS: "requests", Kind.BATCHES: "batches", Kind.CREATIONS: "batches an hour"}


def forecast_rows(job: Job, found: Forecast) -> Iterator[tuple[str, str]]:
    """Give label and value of what is foreseen; nothing where nothing is sent."""
    if not found.capacity.shards.count:
        return
    yield "at the vendor", _at_once(found.capacity)
    yield "a batch takes", _turnaround(found)
    yield "in all", f"about {span(found.capacity.typical)}; {span(found.capacity.slow)} if every batch is slow"
    yield "", f"{span(found.capacity.ours)} of it our own; a retry round adds what a batch takes"
    yield "processes", _processes(found.capacity)
    if found.due is not None and found.available is not None and found.verdict is not None:
        when = f"{moment(job, found.due)}, {span(found.available)} after the start"
        yield "deadline (SLA)", f"{when}: {_verdict_words(found.verdict)}"


def warnings(job: Job, found: Forecast) -> Iterator[str]:
    """Give what a person should know before this is run, each a paragraph."""
    needed = found.capacity
    if needed.is_over_map:
        yield (
            f"Airflow maps a task over {MOST_TASKS:,} shards by default, and this is {needed.shards.count:,}: raise "
            "max_map_length in its [core] section, or shard.max_rows and shard.max_bytes of the job where it has them."
        )
    if found.way_out is not None and found.available is not None:
        yield (
            f"The deadline cannot be met: {needed.shards.rows:,} rows take about {span(needed.typical)}, and there "
            f"are {span(found.available)}. Any one of these would do:"
        )
        yield from (f"- {way}" for way in _ways(needed, found.way_out, found.available))
    elif found.verdict is Verdict.IF_QUICK:
        yield f"Only a deadline {span(needed.slow)} after the start can be met when every batch is slow."


def _verdict_words(verdict: Verdict) -> str:
    return "cannot be met" if verdict is Verdict.LATE else verdict.value


def _ways(needed: Capacity, way: WayOut, available: timedelta) -> Iterator[str]:
    raised = " and ".join(f"{most:,} {WORDS[limit.kind]} (now {limit.most:,})" for limit, most in way.raised)
    if raised:
        yield f"a higher tier or a larger limit: {raised}; then say so under `queue` in the connection's extra"
    elif needed.turnaround.typical > available:
        yield "a model or a vendor whose batches are quicker; no limit helps where one batch takes longer than there is"
    yield f"a later deadline: {span(needed.typical)} after the start"
    left = needed.shards.rows - way.rows
    if way.rows:
        yield f"fewer rows: {way.rows:,} can be answered in time"
    yield f"real time for {left:,} rows: leave them out with `deferrable`, and ask about them outside of nightbatch"


def _at_once(found: Capacity) -> str:
    shards, room = found.shards, found.room
    hour = f"; {room.an_hour:,} may be made in an hour" if room.an_hour and room.an_hour < shards.count else ""
    canary = "; the canary goes alone" if shards.canary else ""
    if room.bound_by is None:
        known = "all at once" if shards.count > 1 else "one batch"
        return f"{known}, as far as the limits say that we know{hour}{canary}"
    limit = f"{room.bound_by.most:,} {WORDS[room.bound_by.kind]} may wait"
    waves = f"{room.at_once:,} of {shards.count:,} shards at once, so {found.waves:,} times over"
    return f"{waves}, since {limit}{hour}{canary}"


def _turnaround(found: Forecast) -> str:
    took = found.capacity.turnaround
    if not took.batches:
        return f"assumed: {span(took.typical)}, or {span(took.slow)} when slow; no batch of this model has ended yet"
    batches = "1 batch" if took.batches == 1 else f"{took.batches:,} batches"
    return f"{span(took.typical)}, or {span(took.slow)} when slow; learned from {batches} of {found.learned_from}"


def _processes(found: Capacity) -> str:
    parts, workers = found.shards.parts, found.workers
    most = max(parts, workers)
    slots = "1 worker slot" if most == 1 else f"{most:,} worker slots"
    uses = f" ({parts:,} read the source side by side, {workers:,} load answers)" if parts > 1 else ""
    return f"{slots}{uses}, {found.triggerers:,} triggerer{'s' if found.triggerers > 1 else ''}"


def span(length: timedelta) -> str:
    """Write a length of time as people would say it, never shorter than it is."""
    if length >= 2 * MINUTE:
        length = -(-length // MINUTE) * MINUTE
    return in_words(length.total_seconds()).replace(" h 0 min", " h")


def forecast_json(found: Forecast) -> dict[str, Any]:
    """Give it as JSON values; seconds for spans."""
    needed, out = found.capacity, found.way_out
    room, took = needed.room, needed.turnaround
    return {
        "shards_at_once": room.at_once,
        "bound_by": WORDS[room.bound_by.kind] if room.bound_by else None,
        "turnaround_s": took.typical.total_seconds(),
        "slow_turnaround_s": took.slow.total_seconds(),
        "learned_from_batches": took.batches,
        "typical_s": needed.typical.total_seconds(),
        "slow_s": needed.slow.total_seconds(),
        "ours_s": needed.ours.total_seconds(),
        "parts": needed.shards.parts,
        "workers": needed.workers,
        "triggerers": needed.triggerers,
        "due": found.due.isoformat() if found.due else None,
        "available_s": found.available.total_seconds() if found.available is not None else None,
        "verdict": found.verdict.value if found.verdict else None,
        "way_out": None
        if out is None
        else {
            "limits": {WORDS[limit.kind]: most for limit, most in out.raised},
            "deadline_s": out.deadline.total_seconds(),
            "rows": out.rows,
        },
    }

"""What `nightbatch status` shows: of every run what waits, on whom, since when, and what happens next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nightbatch.cli_show import console, count, note, usd
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason

if TYPE_CHECKING:
    from nightbatch.job import Job
    from nightbatch.ports import Gate, Ledger, Run, Shard


Jobs = Mapping[str, "Job"]
"""Jobs by name, for the deadline of a run that has no plan yet."""


def runs_json(ledger: Ledger, runs: Sequence[Run], jobs: Jobs, *, now: datetime) -> dict[str, Any]:
    """Give the runs for machines."""
    return {"runs": [_run_json(ledger, run, jobs, now) for run in runs]}


def show(ledger: Ledger, runs: Sequence[Run], jobs: Jobs, *, now: datetime) -> None:
    """Show runs, and for each that is not settled what it waits for."""
    if not runs:
        note("no runs in this ledger yet; start one with `nightbatch run JOB`")
        return
    out = console()
    for run in runs:
        colour = {"complete": "green", "open": "yellow"}.get(run.state, "red")
        out.print(f"[{colour}]●[/] [bold]{escape(run.run)}[/]  {run.state}", soft_wrap=True)
        facts = Table.grid(padding=(0, 2))
        for name, value in _status_facts(ledger, run, jobs, now):
            facts.add_row(Text(f"  {name}", style="dim", no_wrap=True), Text(value))
        out.print(facts)


def _status_facts(ledger: Ledger, run: Run, jobs: Jobs, now: datetime) -> Iterator[tuple[str, str]]:
    from nightbatch.steps.punctual import punctuality
    from nightbatch.steps.release import stopped

    shards = ledger.shards(run.run)
    reserved, spent = ledger.spent(run.run)
    took = f", took {_span(run.books['seconds'])}" if run.books and run.state != "open" else ""
    yield "since", f"{run.started_utc:%Y-%m-%d %H:%M} UTC{took}"
    if punctual := punctuality(ledger, run, jobs, now=now):
        yield "deadline", punctual.words
    yield "rows", _rows(run, shards)
    yield "shards", _states(shards)
    yield "cost", usd(spent) + (f", at most {usd(reserved)} more" if reserved else "")
    if run.books and run.state != "open":
        from nightbatch.steps.figures import letter_facts

        yield from ((name.lower(), words) for name, words in letter_facts(run.run, run.books.get("letters", ())))
    gates = stopped(ledger, run.run) if run.state != "complete" else []
    if gates:
        yield "waits for", f"a person: {'; '.join(words for gate in gates for words in gate.facts['breaches'])}"
        yield "next", _release_words(run, gates[0])
    elif run.state != "complete":
        yield "waits for", _waits_for(shards, now)
        yield from _in_line(ledger, run, now)
        yield "next", _next_action(run, shards)


def _release_words(run: Run, gate: Gate) -> str:
    from nightbatch.steps.release import QUALITY

    if gate.kind == QUALITY:
        look = f"nightbatch release {run.run} --look shows answers"
        return f"{look}; without --look it lets them go, with --discard it does not; then run the window again"
    return f"nightbatch release {run.run}, then run the window again; or the job's next run, with a canary"


def _in_line(ledger: Ledger, run: Run, now: datetime) -> Iterator[tuple[str, str]]:
    """Say how many shards wait for a place in a vendor's queue, since when, and what the first was told last."""
    waiting = [shard for shard in ledger.queue() if shard.ref.run == run.run]
    if waiting:
        first = waiting[0]
        since, asked = ((now - at).total_seconds() for at in (first.since_utc, first.seen_utc))
        told = f"the first since {_span(since)}, told {_span(asked)} ago: {first.reason}"
        yield "in line", f"{count(len(waiting), 'shard')} of priority {first.priority}, {told}"


def _rows(run: Run, shards: Sequence[Shard]) -> str:
    if not run.books or run.state == "open":
        loaded = sum(shard.merged for shard in shards)
        sent = sum(shard.plan.rows for shard in shards if shard.plan.ref.round == 0)
        return f"{loaded:,} loaded of {sent:,} asked"
    found: Any = run.books
    dead = found["unrenderable"] + sum(found["dead"].values()) + found["copies_dead"]
    pending = sum(found["pending"].values()) + found["copies_pending"]
    counts = {"pulled": found["pulled"], "loaded": found["merged"], "dead letters": dead, "pending": pending}
    counts |= {"unchanged": found["unchanged"], "cannot wait": found["not_deferrable"]}
    return ", ".join(f"{number:,} {what}" for what, number in counts.items() if number or what in ("pulled", "loaded"))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _states(shards: Sequence[Shard]) -> str:
    counts = {state: sum(shard.state is state for shard in shards) for state in ShardState}
    return ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "no plan"


def _waits_for(shards: Sequence[Shard], now: datetime) -> str:
    parts = [_batch_words(shard, now) for shard in shards if shard.state in (ShardState.OPEN, ShardState.SUBMITTING)]
    more = f"; and {len(parts) - 3} more" if len(parts) > 3 else ""
    held = Counter(_held_words(shard) for shard in shards if shard.state is ShardState.HELD)
    held.update(shard.problem for shard in shards if shard.state is ShardState.COLLECTED and shard.problem)
    held.update(f"{shard.waits_for}" for shard in shards if shard.state is ShardState.SEALED and shard.waits_for)
    queued = Counter(shard.plan.provider for shard in shards if shard.not_before_utc and shard.not_before_utc > now)
    parts = parts[:3]
    parts += [f"a place in the queue at {name} ({count(number, 'shard')})" for name, number in queued.items()]
    parts += [f"{what} ({count(number, 'shard')})" for what, number in held.items()]
    return "; ".join(parts) + more if parts else "nobody"


def _held_words(shard: Shard) -> str:
    is_budget = shard.held_reason == Reason.BUDGET and shard.problem
    return f"a budget: {shard.problem}" if is_budget else f"a person, not sent: {shard.held_reason}"


def _batch_words(shard: Shard, now: datetime) -> str:
    attempt = shard.current
    if attempt is None:
        return shard.plan.provider
    since = (now - (attempt.created_utc or attempt.intent_utc)).total_seconds()
    if attempt.batch_id is None:
        return f"{attempt.provider}, whether it made a batch of {shard.plan.ref.name} (sent {_span(since)} ago)"
    return f"{attempt.provider} {attempt.batch_id} for {_span(since)} ({attempt.vendor_status or 'open'})"


def _next_action(run: Run, shards: Sequence[Shard]) -> str:
    if run.state == "complete":
        return "nothing"
    if run.state == "incomplete":
        return "pending rows go with the job's next run; or run this window again"
    if run.state == "failed":
        return "read the run's report, mend the cause; then retry its dead letters, or run the window with --force"
    if any(shard.state in (ShardState.OPEN, ShardState.SUBMITTING) for shard in shards):
        return "wait; if no process runs it, run the window again"
    return "if no process runs it, run the window again"


def _run_json(ledger: Ledger, run: Run, jobs: Jobs, now: datetime) -> dict[str, Any]:
    from nightbatch.steps.punctual import punctuality

    punctual = punctuality(ledger, run, jobs, now=now)
    shards = ledger.shards(run.run)
    told = {shard.ref: shard.reason for shard in ledger.queue()}
    return {
        "run": run.run,
        "job": run.job,
        "state": run.state,
        "started_utc": run.started_utc.isoformat(),
        "deadline": punctual.as_json() if punctual else None,
        "books": run.books,
        "shards": [
            {
                "shard": shard.plan.ref.name,
                "state": shard.state.value,
                "rows": shard.plan.rows,
                "batch_id": shard.current.batch_id if shard.current else None,
                "held_reason": shard.held_reason,
                "waits_for": shard.waits_for or shard.problem or told.get(shard.plan.ref, ""),
            }
            for shard in shards
        ],
    }

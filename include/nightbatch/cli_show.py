"""What the command line shows: tables and bars for people, one JSON object for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from nightbatch.core.shard import ShardState
from nightbatch.core.window import Window
from nightbatch.job import Job

if TYPE_CHECKING:
    from nightbatch.flow import Progress as FlowProgress
    from nightbatch.ports import Ledger, Run, Shard
    from nightbatch.steps.estimate import Estimate
    from nightbatch.steps.settle import Books
    from nightbatch.steps.trial import Trial


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Say one sentence."""
    _console().print(text, markup=False)


def checked(found: dict[str, list[str]]) -> None:
    """Show which job files are good, and all that is wrong with the others."""
    console = _console()
    for path, problems in found.items():
        console.print(f"{'[red]✗[/]' if problems else '[green]✓[/]'} {path}")
        for problem in problems:
            console.print(f"    {problem}", markup=False)


@contextmanager
def spinner(text: str, *, quiet: bool) -> Iterator[None]:
    """Show that something takes a while."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(text):
        yield


@contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[FlowProgress], None]]:
    """Show a bar a phase on stderr; plain lines where it is no terminal."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bars() as watch:
            yield watch
    else:
        yield _plain_lines()


def _plain_lines() -> Callable[[FlowProgress], None]:
    last = ""

    def watch(step: FlowProgress) -> None:
        nonlocal last
        total = "" if step.total is None else f"/{step.total}"
        line = f"{step.phase}: {step.done:,}{total} {step.note}".rstrip()
        if line != last:
            sys.stderr.write(line + "\n")
            last = line

    return watch


@contextmanager
def _bars() -> Iterator[Callable[[FlowProgress], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f}{task.fields[of]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
    )
    tasks: dict[str, Any] = {}
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def watch(step: FlowProgress) -> None:
            of = f"/{step.total}" if step.total is not None else ""
            if step.phase not in tasks:
                tasks[step.phase] = bars.add_task(step.phase, total=step.total, of=of, note="")
            note_ = step.note if step.total is None or step.done < step.total else ""
            bars.update(tasks[step.phase], completed=step.done, of=of, note=note_)

        yield watch


def _usd(value: Decimal | None) -> str:
    return "unknown" if value is None else f"{value:,.4f} USD"


def estimate(job: Job, window: Window, found: Estimate, *, as_json: bool) -> None:
    """Show what a run would do."""
    if as_json:
        _print_json({"job": job.name, "window": str(window), **asdict(found)})
        return
    table = Table(title=f"{job.name}, {window}", show_header=False, title_justify="left")
    counts = found.counts
    for name, value in (
        ("records", f"{counts.pulled:,} (and {counts.from_pending:,} pending from earlier runs)"),
        ("cannot wait / unchanged", f"{counts.not_deferrable:,} / {counts.unchanged:,}"),
        ("duplicates / bad records", f"{counts.duplicates:,} / {counts.unrenderable:,}"),
        ("requests", f"{counts.requests:,} in {found.shards:,} shards, {found.size_bytes:,} bytes"),
        ("tokens", f"about {found.input_tokens:,} in, at most {found.output_tokens_cap:,} out"),
        ("batch", f"{_usd(found.expected_usd)} expected, {_usd(found.worst_usd)} at worst"),
        ("real time", f"{_usd(found.realtime_expected_usd)} expected, {_usd(found.realtime_worst_usd)} at worst"),
        ("budget", _usd(job.budget_usd) if job.budget_usd is not None else "none"),
        ("price from", found.price_source),
    ):
        table.add_row(name, Text(value))
    _console().print(table)


def trial(number: int, it: Trial, *, as_json: bool) -> None:
    """Show one question, its answer, and what nightbatch makes of it."""
    verdict = f"{it.verdict.kind} {it.verdict.reason} {it.verdict.detail}".strip() if it.verdict else it.problem
    answer = it.result.text if it.result and it.result.text is not None else ""
    if as_json:
        _print_json(
            {
                "key": it.key,
                "system": it.messages.system if it.messages else None,
                "user": it.messages.user if it.messages else None,
                "answer": answer,
                "verdict": verdict,
                "cost_usd": it.cost_usd,
            }
        )
        return
    body = Text()
    if it.messages:
        body.append(f"{it.messages.system}\n" if it.messages.system else "", style="dim")
        body.append(f"{it.messages.user}\n")
        body.append(f"→ {answer}\n", style="bold")
    is_good = it.verdict is not None and it.verdict.kind == "good"
    body.append(verdict, style="green" if is_good else "red")
    body.append(f"   {_usd(it.cost_usd)}", style="dim")
    Console(highlight=False).print(Panel(body, title=Text(f"{number}. {it.key}"), title_align="left"))


def books(found: Books, *, as_json: bool) -> None:
    """Show how a run ended."""
    if as_json:
        _print_json(found.as_json())
        return
    from nightbatch.steps.tell import book_facts

    table = Table(title=f"{found.run}: {found.state}", show_header=False, title_justify="left")
    for name, value in book_facts(found):
        table.add_row(name, Text(value))
    table.add_row("Time", f"{found.seconds:,.0f} s")
    _console().print(table)


def status(ledger: Ledger, runs: Sequence[Run], *, now: datetime, as_json: bool) -> None:
    """Show runs, and for each that is not settled what it waits for."""
    if as_json:
        _print_json([_run_json(run, ledger.shards(run.run)) for run in runs])
        return
    if not runs:
        note("no runs in this ledger yet; start one with `nightbatch run JOB`")
        return
    console = Console(highlight=False)
    for run in runs:
        shards = ledger.shards(run.run)
        colour = {"complete": "green", "open": "yellow"}.get(run.state, "red")
        console.print(f"[{colour}]●[/] [bold]{escape(run.run)}[/]  {run.state}")
        facts = Table.grid(padding=(0, 2))
        for name, value in (
            ("since", f"{run.started_utc:%Y-%m-%d %H:%M} UTC"),
            ("shards", _states(shards)),
            ("waits for", _waits_for(shards, now)),
            ("next", _next_action(run, shards)),
        ):
            facts.add_row(Text(f"  {name}", style="dim"), Text(value))
        console.print(facts)


def _states(shards: Sequence[Shard]) -> str:
    counts = {state: sum(shard.state is state for shard in shards) for state in ShardState}
    return ", ".join(f"{count} {state.value}" for state, count in counts.items() if count) or "no plan"


def _waits_for(shards: Sequence[Shard], now: datetime) -> str:
    open_ = [shard for shard in shards if shard.state in (ShardState.OPEN, ShardState.SUBMITTING)]
    parts = []
    for shard in open_[:3]:
        attempt = shard.current
        if attempt is not None:
            since = (now - (attempt.created_utc or attempt.intent_utc)).total_seconds() / 60
            what = attempt.batch_id or "a lost create reply"
            parts.append(f"{attempt.provider} {what} for {since:,.0f} min ({attempt.vendor_status or shard.state})")
    more = f" and {len(open_) - 3} more" if len(open_) > 3 else ""
    return "; ".join(parts) + more if parts else "nobody"


def _next_action(run: Run, shards: Sequence[Shard]) -> str:
    if run.state == "complete":
        return "nothing"
    if run.state == "incomplete":
        return "pending rows go with the job's next run; or run this window again"
    if run.state == "failed":
        return "read the run's report, mend the cause, run the window again with --force"
    if any(shard.state in (ShardState.OPEN, ShardState.SUBMITTING) for shard in shards):
        return "wait; if no process runs it, run the window again"
    return "if no process runs it, run the window again"


def _run_json(run: Run, shards: Sequence[Shard]) -> dict[str, Any]:
    return {
        "run": run.run,
        "job": run.job,
        "state": run.state,
        "started_utc": run.started_utc.isoformat(),
        "books": run.books,
        "shards": [
            {
                "shard": shard.plan.ref.name,
                "state": shard.state.value,
                "rows": shard.plan.rows,
                "batch_id": shard.current.batch_id if shard.current else None,
                "held_reason": shard.held_reason,
            }
            for shard in shards
        ],
    }

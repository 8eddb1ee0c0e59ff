"""What the command line shows: tables and bars for people, one JSON object for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nightbatch.core.window import Window
from nightbatch.job import Job

if TYPE_CHECKING:
    from nightbatch.cli_check import Found
    from nightbatch.core.experience import PastEstimate
    from nightbatch.errors import NightbatchError
    from nightbatch.steps.closed import Closed
    from nightbatch.steps.estimate import Estimate
    from nightbatch.steps.settle import Books
    from nightbatch.steps.trial import Trial


WIDTH_OF_PIPES = 140
"""Columns of a table that goes into a file or another program."""


def console() -> Console:
    """Give what tables are printed on; a pipe is wide."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_PIPES)


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Say one sentence."""
    paragraph(console(), Text(text))


def error(kind: str, text: str, *, as_json: bool, **more: Any) -> None:
    """Say what went wrong: on stderr for people, as an object on stdout for machines."""
    if as_json:
        print_json({"error": kind, "message": text, **more})
        return
    paragraph(Console(stderr=True, highlight=False), Text.assemble((kind, "bold red"), " ", text))


def paragraph(out: Console, text: Text, *, indent: int = 0) -> None:
    """Print text folded between words on a terminal, and unfolded where another program reads it."""
    if out.is_terminal:
        out.print(Padding(text, (0, 0, 0, indent)))
    else:
        out.print(" " * indent, text, sep="", soft_wrap=True)


def checked(found: Mapping[str, Found], *, as_json: bool) -> None:
    """Show which job files are good, and all that is wrong with the others."""
    if as_json:
        is_good = not any(one.problems for one in found.values())
        print_json({"valid": is_good, "jobs": {name: asdict(one) for name, one in found.items()}})
        return
    out = console()
    for path, one in found.items():
        out.print(f"{'[red]✗[/]' if one.problems else '[green]✓[/]'} {escape(path)}", soft_wrap=True)
        for problem in one.problems:
            paragraph(out, Text(problem), indent=4)
    for warning in sorted({warning for one in found.values() for warning in one.warnings}):
        paragraph(out, Text.assemble(("! ", "yellow"), warning))


def usd(value: Decimal | None) -> str:
    """Write money; what is below a cent with more digits."""
    if value is None:
        return "unknown"
    return f"{value:.6f} USD" if 0 < value < Decimal("0.01") else f"{value:,.4f} USD"


def estimate(job: Job, window: Window, found: Estimate, closed: Closed | None = None, *, as_json: bool) -> None:
    """Show what a run would do; of a window that was `closed` before, that it would do none of it."""
    from nightbatch.steps.estimate import too_small_budgets
    from nightbatch.steps.forecast_words import forecast_json, forecast_rows, warnings

    if as_json:
        values = {
            **asdict(found),
            "forecast": forecast_json(found.forecast),
            "too_small_budgets": list(too_small_budgets(job, found)),
            **_closed_json(closed),
        }
        print_json({"job": job.name, "window": str(window), **values})
        return
    counts = found.counts
    told = (
        ("records", f"{counts.pulled:,} (and {counts.from_pending:,} pending from earlier runs)"),
        ("cannot wait / unchanged", f"{counts.not_deferrable:,} / {counts.unchanged:,}"),
        ("duplicates / bad records", f"{counts.duplicates:,} / {counts.unrenderable:,}"),
        ("requests", f"{counts.requests:,} in {count(found.shards, 'shard')}, {found.size_bytes:,} bytes"),
        (
            "tokens",
            f"about {found.input_tokens:,} in, {found.output_tokens:,} out; at most {found.output_tokens_cap:,} out",
        ),
        ("answers' length", _basis(found)),
        ("batch", f"{usd(found.expected_usd)} expected, {usd(found.worst_usd)} at worst"),
        ("real time", f"{usd(found.realtime_expected_usd)} expected, {usd(found.realtime_worst_usd)} at worst"),
        ("budget", budget_words(job)),
        ("price from", found.price_source),
        ("past estimates", _past_words(found.past)),
        *forecast_rows(job, found.forecast),
    )
    facts(f"{job.name}, {window}", told)
    _note_closed(closed, "`nightbatch run` sends nothing")
    for warning in (*too_small_budgets(job, found), *warnings(job, found.forecast)):
        note(warning)


def _basis(found: Estimate) -> str:
    if found.rests_on_rows:
        return f"learned from {found.rests_on_rows:,} answers of this job"
    return "a guess, a third of the cap: this job has no bill yet"


def _past_words(past: Sequence[PastEstimate]) -> str:
    """Say how far bills were from what had been expected, and from the worst case."""
    shares = [it.share for it in past if it.share is not None]
    if not shares:
        return "none yet"
    spread = f" ({min(shares):.0%} to {max(shares):.0%})" if len(shares) > 1 else ""
    billed, worst = sum(it.actual_usd for it in past), sum(it.worst_usd for it in past)
    of_worst = f", {billed / worst:.0%} of the worst case" if worst else ""
    mean = sum(shares) / len(shares)
    runs = "the last run was" if len(shares) == 1 else f"the last {len(shares)} runs were"
    return f"{runs} billed {mean:.0%} of what was expected{spread}{of_worst}"


def budget_words(job: Job) -> str:
    """Write a job's budgets."""
    amounts = ((job.budget_usd, "a run"), (job.budget_day_usd, "a day"), (job.budget_month_usd, "a month"))
    return ", ".join(f"{usd(amount)} {span}" for amount, span in amounts if amount is not None) or "none"


def count(number: int, what: str) -> str:
    """Write a number of things."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def facts(title: str, told: Iterable[tuple[str, str]]) -> None:
    """Show a title and a table of labels and values."""
    # A title of the table's own would be folded to its width, and a run's name could not be copied whole.
    out = console()
    out.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(show_header=False)
    for name, value in told:
        table.add_row(Text(name), Text(value))
    out.print(table)


def trials(job: Job, window: Window, asked: Iterable[Trial], *, as_json: bool) -> list[Trial]:
    """Show questions as they are answered, and what nightbatch makes of each answer; gives them all."""
    shown = []
    for it in asked:
        shown.append(it)
        if not as_json:
            console().print(_trial_panel(len(shown), it))
    if as_json:
        print_json({"job": job.name, "window": str(window), "trials": [_trial_json(it) for it in shown]})
    elif not shown:
        note(f"no records in the window {window}; choose another with --from and --to")
    return shown


def _verdict(it: Trial) -> str:
    if it.verdict is None:
        return it.problem
    return ", ".join(filter(None, (it.verdict.kind.value, it.verdict.reason.value, it.verdict.detail)))


def _trial_json(it: Trial) -> dict[str, Any]:
    return {
        "key": it.key,
        "system": it.messages.system if it.messages else None,
        "user": it.messages.user if it.messages else None,
        "answer": it.result.text if it.result else None,
        "verdict": it.verdict.kind.value if it.verdict else None,
        "reason": (it.verdict.reason.value if it.verdict else None) or None,
        "detail": (it.verdict.detail if it.verdict else it.problem) or None,
        "cost_usd": it.cost_usd,
    }


def harmless(text: str) -> str:
    """Take out of somebody else's words what a terminal would obey; lines stay lines."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text.replace("\t", " "))


def _trial_panel(number: int, it: Trial) -> Panel:
    body = Text()
    if it.messages:
        body.append(f"{harmless(it.messages.system)}\n" if it.messages.system else "", style="dim")
        body.append(f"{harmless(it.messages.user)}\n")
    if it.result is not None:
        body.append(f"→ {'(no answer)' if it.result.text is None else harmless(it.result.text)}\n", style="bold")
    is_good = it.verdict is not None and it.verdict.kind == "good"
    body.append(_verdict(it), style="green" if is_good else "red")
    if it.result is not None:
        body.append(f"   {usd(it.cost_usd)}", style="dim")
    return Panel(body, title=Text(f"{number}. {harmless(it.key)}"), title_align="left")


def _closed_json(closed: Closed | None) -> dict[str, Any]:
    return {"closed_before": closed.as_json() if closed else None}


def _note_closed(closed: Closed | None, so: str) -> None:
    if closed is not None:
        since = f"{closed.since_utc:%Y-%m-%d %H:%M} UTC"
        note(f"this window has been {closed.state} since {since}; {so}.{closed.remedy}")


def books(found: Books, closed: Closed | None = None, *, as_json: bool) -> None:
    """Show how a run ended; of a window that was `closed` before, that nothing was sent now."""
    if as_json:
        print_json({**found.as_json(), **_closed_json(closed)})
        return
    from nightbatch.steps.figures import book_facts

    facts(f"{found.run}: {found.state}", [*book_facts(found), ("Time", f"{found.seconds:,.0f} s")])
    _note_closed(closed, "nothing was sent")


def bad_ending(found: Books | None, problem: NightbatchError, closed: Closed | None = None, *, as_json: bool) -> None:
    """Show the books of a run that is not complete, and why it is not."""
    if found is not None and not as_json:
        books(found, closed, as_json=False)
    told = {"books": found.as_json() if found else None, **_closed_json(closed)}
    error(type(problem).__name__, str(problem), as_json=as_json, **told)

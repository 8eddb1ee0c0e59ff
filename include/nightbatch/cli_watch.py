"""`nightbatch status`: how runs stand, which windows have none, and how old the oldest answer in use is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from nightbatch import cli_status as runs_shown
from nightbatch.cli_check import JOBS
from nightbatch.cli_frame import EXIT_MISSING, Json, errors_told, run_named, watch_of_environment
from nightbatch.cli_show import console, print_json
from nightbatch.errors import JobInvalid, Problem

if TYPE_CHECKING:
    from datetime import datetime

    from nightbatch.steps.absence import Sighting

JobName = Annotated[str | None, typer.Argument(help="Only this job, or the run of this name.")]
Last = Annotated[int, typer.Option("--last", min=1, help="How many runs.")]
ExitCode = Annotated[
    bool,
    typer.Option("--exit-code", help="Exit with 3 where a window has no run, or answers in use are too old."),
]
Tell = Annotated[
    bool,
    typer.Option("--tell", help="Tell people what the watchdog would, each outage once; for a cron outside Airflow."),
]
Folder = Annotated[Path, typer.Option("--jobs", help="The folder of the job files.")]


def status(
    job: JobName = None,
    last: Last = 10,
    jobs: Folder = JOBS,
    exit_code: ExitCode = False,
    tell: Tell = False,
    as_json: Json = False,
) -> None:
    """Say what is waiting, on whom, since when, what happens next, and which windows have no run at all."""
    with errors_told(as_json=as_json):
        from nightbatch.patrol import patrol
        from nightbatch.watchdog import look

        watch = watch_of_environment()
        sightings = patrol(watch, jobs).sightings if tell else look(watch, jobs, job=job)
        found = [one for one in sightings if job in (None, one.job.name)]
        if exit_code and job is not None and not found:
            # A cron with a misspelt name would be green for ever.
            problem, remedy = "no job of this name has a schedule", f"Correct the name, or --jobs (now {jobs})."
            raise JobInvalid(job, [Problem("job", problem, remedy)])
        runs = watch.ledger.runs(job=job, limit=last)
        if job is not None and not runs and not found:
            runs = [run_named(watch.ledger, job)]
        known = {one.job.name: one.job for one in sightings}
        if as_json:
            shown = {"jobs": [_json(one, watch.now) for one in found]}
            print_json({**runs_shown.runs_json(watch.ledger, runs, known, now=watch.now), **shown})
        else:
            runs_shown.show(watch.ledger, runs, known, now=watch.now)
            _show(found, now=watch.now)
    if exit_code and any(one.gaps or one.is_stale(watch.now) for one in found):
        raise typer.Exit(EXIT_MISSING)


def _show(found: Sequence[Sighting], *, now: datetime) -> None:
    from nightbatch.steps.absence import backfill_commands, fresh_words, span_words

    out = console()
    for one in found:
        colour = "red" if one.gaps or one.is_stale(now) else "green"
        said = f"{one.windows:,} without a run" if one.gaps else "each due window has a run"
        out.print(f"[{colour}]◆[/] [bold]{escape(one.job.name)}[/]  {said}", soft_wrap=True)
        facts = Table.grid(padding=(0, 2))
        for gap in one.gaps:
            facts.add_row(Text("  no run", style="dim"), Text(span_words(gap.span, len(gap.windows))))
        if one.gaps:
            facts.add_row(Text("  why", style="dim"), Text(one.why))
            facts.add_row(Text("  next", style="dim"), Text(_next(one)))
        facts.add_row(Text("  oldest answer", style="dim"), Text(fresh_words(one, now)))
        out.print(facts)
        for command in backfill_commands(one):
            out.print(Text(f"  {command}"), soft_wrap=True)


def _next(one: Sighting) -> str:
    if not one.left:
        return "Airflow runs them once the Dag can run (catch_up: run)"
    return f"nothing by itself; run them as below, or: nightbatch skip {one.job.name}"


def _json(one: Sighting, now: datetime) -> dict[str, Any]:
    age = one.age(now)
    windows = [window for gap in one.gaps for window in gap.windows]
    return {
        "job": one.job.name,
        "missing": [{"start": w.start.isoformat(), "end": w.end.isoformat()} for w in windows],
        "is_out": one.is_out,
        "why": one.why,
        "fresh_until": one.fresh_until and one.fresh_until.isoformat(),
        "oldest_answer_s": None if age is None else age.total_seconds(),
        "is_stale": one.is_stale(now),
    }

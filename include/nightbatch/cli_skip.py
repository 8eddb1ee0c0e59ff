"""`nightbatch skip`: say that windows need no run, so that nobody is told of them any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightbatch.cli_check import JOBS
from nightbatch.cli_frame import Json, errors_told, instant, watch_of_environment
from nightbatch.cli_show import note, print_json
from nightbatch.core.window import Window
from nightbatch.errors import JobInvalid, Problem

From = Annotated[str | None, typer.Option("--from", help="Start of the time; default: the first window without a run.")]
To = Annotated[
    str | None, typer.Option("--to", help="End of the time; default: that of the last window without a run.")
]
ForGood = Annotated[
    bool, typer.Option("--for-good", help="From then on no window needs a run until the job runs again.")
]
Folder = Annotated[Path, typer.Option("--jobs", help="The folder of the job files.")]


def skip(
    job: Annotated[str, typer.Argument(help="The job.")],
    start: From = None,
    end: To = None,
    for_good: ForGood = False,
    jobs: Folder = JOBS,
    as_json: Json = False,
) -> None:
    """Say that a job's windows without a run need none; nothing is run, sent or deleted."""
    with errors_told(as_json=as_json):
        from nightbatch import watchdog

        watch = watch_of_environment()
        gaps = [gap for one in watchdog.look(watch, jobs, job=job) for gap in one.gaps]
        first = instant(start) if start else min((gap.span.start for gap in gaps), default=None)
        last = instant(end) if end else max((gap.span.end for gap in gaps), default=None)
        if for_good:
            first, last = first or watch.now, None
        elif first is None or last is None or first >= last:
            remedy = f"`nightbatch status {job}` names the windows without a run; or give --from and --to."
            raise JobInvalid("the command", [Problem("window", f"there is nothing to skip of a job {job!r}", remedy)])
        watchdog.skip(watch.ledger, job, first, last, now=watch.now)
        if as_json:
            print_json({"job": job, "start": first.isoformat(), "end": last and last.isoformat()})
        else:
            whole = f"from {first:%Y-%m-%d %H:%M} UTC on, until it runs again" if last is None else Window(first, last)
            note(f"windows of {job} need no run: {whole}")

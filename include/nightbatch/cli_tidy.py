"""`nightbatch tidy`: the housekeeping of an installation without Airflow, or by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_frame import EXIT_FAILED, Json, Verbose, errors_told, house_of_environment

if TYPE_CHECKING:
    from nightbatch.housekeeping import Swept

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
Quiet = Annotated[
    float,
    typer.Option("--quiet-hours", min=0, help="An open run of which nothing has moved for so long counts as dead."),
]


def tidy(dry_run: DryRun = False, quiet_hours: Quiet = 6, as_json: Json = False, verbose: Verbose = False) -> None:
    """Close what dead runs left open, delete loaded files at vendors, remove files past their retention."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.housekeeping import housekeep

        house = replace(house_of_environment(), quiet=timedelta(hours=quiet_hours), dry_run=dry_run)
        with progress.spinner("tidying up", quiet=as_json):
            swept = housekeep(house)
        if as_json:
            show.print_json(_json(swept, dry_run=dry_run))
        else:
            for line in lines(swept, dry_run=dry_run):
                show.note(line)
    if swept.problems:
        raise typer.Exit(EXIT_FAILED)


def _json(swept: Swept, *, dry_run: bool) -> dict[str, Any]:
    totals = {"runs": len(swept.removed), "files": swept.files, "size_bytes": swept.size_bytes}
    # `asdict` makes counts of a Counter's items.
    return {"dry_run": dry_run, **asdict(swept), "kept": dict(swept.kept), **totals}


def lines(swept: Swept, *, dry_run: bool) -> Iterator[str]:
    """Say what was done, or would be, a line each."""
    for run, state in swept.closed.items():
        yield f"{run}: nobody works on it; {'would be collected and closed' if dry_run else f'closed as {state}'}"
    for run, reason in swept.waiting.items():
        yield f"{run}: nobody works on it, and it waits: {reason}"
    if swept.discarded:
        yield f"files of {show.count(swept.discarded, 'batch attempt')} deleted at the vendor"
    for removal in swept.removed:
        verb = "would go" if dry_run else "removed"
        yield f"{removal.run}: {show.count(removal.files, 'file')}, {removal.size_bytes:,} bytes {verb}"
    runs, files = show.count(len(swept.removed), "run"), show.count(swept.files, "file")
    yield f"{'would remove' if dry_run else 'removed'} {files} of {runs}, {swept.size_bytes:,} bytes"
    if swept.kept:
        kept = ", ".join(f"{number:,} {reason}" for reason, number in swept.kept.most_common())
        yield f"kept the files of {show.count(swept.kept.total(), 'run')}: {kept}"
    for run, problem in swept.problems.items():
        yield f"{run} needs a person: {problem}"

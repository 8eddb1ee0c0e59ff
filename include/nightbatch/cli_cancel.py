"""What `nightbatch cancel` does: says what it costs and keeps, asks, cancels at the vendor, and loads what is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_frame import (
    EXIT_FAILED,
    Json,
    RunName,
    Verbose,
    errors_told,
    ledger_of_environment,
    ports_of,
    run_named,
)
from nightbatch.errors import DoesNotAddUp, JobInvalid, Problem, RunFailed, RunIncomplete
from nightbatch.job_sealed import unsealed

if TYPE_CHECKING:
    from nightbatch.ports import Ports, Run
    from nightbatch.steps.cancel import Forecast


def cancel(
    run: RunName,
    drops: Annotated[
        bool,
        typer.Option(
            "--drop/--pending",
            help="What becomes of rows without an answer: dead letters, which nothing sends on its own (default), or "
            "pending, so that the job's next run sends them as they were rendered.",
        ),
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what cancelling a run costs and keeps, ask, cancel its batches at the vendor, and load what is done."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.steps.cancel import forecast

        found = run_named(ledger_of_environment(), run)
        if found.state != "open":
            remedy = "Only a run that is open has anything to cancel; `nightbatch status` shows which are."
            raise JobInvalid("the command", [Problem("RUN", f"run {found.run} is {found.state}", remedy)])
        if found.plan is None:
            remedy = "Stop the process, or the task `prepare`, that is at work on it."
            raise JobInvalid("the command", [Problem("RUN", f"nothing of run {found.run} is sealed yet", remedy)])
        ports = ports_of(unsealed(found.plan, run=found.run))
        if found.cancelled_utc is None and not _agreed(forecast(ports, found), drops=drops, yes=yes, as_json=as_json):
            return
        _carry_out(ports, found, drops=drops, as_json=as_json)


def _agreed(found: Forecast, *, drops: bool, yes: bool, as_json: bool) -> bool:
    """Show what would happen, and ask; as JSON, without --yes, only show it."""
    if as_json:
        if not yes:
            told = {name: value for name, value in asdict(found).items() if name != "run"}
            show.print_json({"run": found.run.run, **told, "undone": found.undone, "drops": drops})
        return yes
    show.facts(f"cancel {found.run.run}", list(_facts(found, drops=drops)))
    if yes or _says_yes():
        return True
    show.note("nothing was cancelled")
    return False


def _says_yes() -> bool:
    try:
        return typer.confirm("Cancel it?")
    except typer.Abort:
        # Ctrl-C, or nobody there to ask.
        return False


def _facts(found: Forecast, *, drops: bool) -> Iterator[tuple[str, str]]:
    yield "kept", f"{found.loaded:,} answers that are loaded, {show.usd(found.spent_usd)} spent"
    if found.arriving:
        yield "loaded still", f"the answers to {found.arriving:,} rows, which have arrived"
    for batch in found.batches:
        done = "an unknown number" if batch.rows_done is None else f"{batch.rows_done:,}"
        words = f"{done} of {batch.rows:,} rows done, at most {show.usd(batch.reserved_usd)}"
        yield f"cancelled: {batch.shard}", f"{batch.provider} {batch.batch_id}: {words}"
    if found.batches:
        yield (
            "billed all the same",
            f"rows done, {found.done:,} so far; their answers are loaded",
        )
    if found.unclear:
        yield "being sent", f"{found.unclear:,} rows: the vendor is asked, and what it made is cancelled"
    if found.unsent:
        yield "never sent", f"{found.unsent:,} rows"
    yield "reserve", f"{show.usd(found.reserved_usd)}; what is not billed returns to the budget"
    yield "without an answer", _fate(found, drops=drops)
    if found.pending:
        yield "pending before", f"{found.pending:,} rows; the job's next run takes them all the same"


def _fate(found: Forecast, *, drops: bool) -> str:
    rows = f"up to {found.undone:,} rows"
    if not drops:
        return f"{rows} stay pending: the job's next run sends them as they were rendered, with the prompt of this run"
    start, end = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (found.run.window.start, found.run.window.end))
    return (
        f"{rows} become dead letters (cancelled), and nothing sends them on its own. As they were rendered: "
        f"`nightbatch retry {found.run.run} --reason cancelled`. With another prompt: mend it, then "
        f"`nightbatch run {found.run.job} --from {start} --to {end} --force`. To leave them to the job's next run: "
        "--pending"
    )


def _carry_out(ports: Ports, run: Run, *, drops: bool, as_json: bool) -> None:
    from nightbatch import flow

    try:
        with progress.bars(quiet=as_json) as watch:
            books = flow.cancel(ports, run.run, drops=drops, watch=watch)
    except (RunIncomplete, RunFailed, DoesNotAddUp) as error:
        ended = ports.ledger.run(error.run_id)
        show.bad_ending(flow.books_of(ended), error, as_json=as_json)
        # That rows have no answer is what was asked for; that the run cannot be closed is not.
        if ended.state == "open":
            raise typer.Exit(EXIT_FAILED) from None
        return
    show.books(books, as_json=as_json)

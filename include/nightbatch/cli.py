"""The command line: `nightbatch check | plan | try | run | status | migrate | emulator`. Needs no Airflow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_check import JOBS, check_files, find_job
from nightbatch.core.window import Window
from nightbatch.errors import (
    DoesNotAddUp,
    JobInvalid,
    NightbatchError,
    Problem,
    RunFailed,
    RunIncomplete,
    Transient,
)
from nightbatch.job import Job

if TYPE_CHECKING:
    from nightbatch.ports import Ports

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Batch LLM jobs: half the price, every row accounted for, nothing paid twice.",
)

EXIT_FAILED, EXIT_INVALID, EXIT_UNEXPECTED, EXIT_TRY_AGAIN, EXIT_STOPPED = 1, 2, 70, 75, 130
"""The run failed or is incomplete; the configuration is wrong; a bug; try again later (EX_TEMPFAIL); Ctrl-C."""

STOPPED = "Batches that were sent go on at the vendor; run the same command again to collect them."

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="A job file, or the name of one in include/jobs.")]
From = Annotated[str | None, typer.Option("--from", help="Start of the window, ISO 8601; UTC without a zone.")]
To = Annotated[str | None, typer.Option("--to", help="End of the window; default: 24 hours after the start.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Read at most so many records.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what each step does, on stderr.")]
Model = Annotated[str, typer.Option("--model", help="Use this model in the place of the job's first one.")]


@contextmanager
def _errors_told(*, as_json: bool = False, verbose: bool = False) -> Iterator[None]:
    """End every error in a sentence and an exit code; a traceback is shown on request, where it is not one of ours."""
    progress.log_lines(verbose=verbose)
    try:
        yield
    except NightbatchError as error:
        code = EXIT_INVALID if _is_configuration(error) else EXIT_TRY_AGAIN if isinstance(error, Transient) else 1
        show.error(type(error).__name__, str(error), as_json=as_json)
        raise typer.Exit(code) from None
    except KeyboardInterrupt:
        show.error("Stopped", STOPPED, as_json=as_json)
        raise typer.Exit(EXIT_STOPPED) from None
    except (typer.Exit, typer.BadParameter):
        raise
    except Exception as error:
        if verbose:
            raise
        text = f"{type(error).__name__}: {error}. This should not happen; --verbose shows where it comes from."
        show.error("Unexpected", text, as_json=as_json)
        raise typer.Exit(EXIT_UNEXPECTED) from None


def _is_configuration(error: NightbatchError) -> bool:
    from nightbatch import errors

    return isinstance(error, errors.JobInvalid | errors.ConnectionInvalid | errors.LedgerMismatch)


def _ports(job: Job) -> Ports:
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_ports, settings_from

    return open_ports(job, settings_from(os.environ), from_environment(os.environ))


def _instant(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        remedy = "Write it like 2026-11-21 or 2026-11-21T02:00+01:00."
        raise JobInvalid("the command", [Problem("window", f"{text!r} is no ISO 8601 time", remedy)]) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def window_of(start: str | None, end: str | None, *, now: datetime) -> Window:
    """Give the window that a command names; without one, yesterday in UTC."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = _instant(start) if start else (_instant(end) if end else midnight) - timedelta(days=1)
    last = _instant(end) if end else first + timedelta(days=1)
    try:
        return Window(first, last)
    except ValueError as error:
        remedy = "Give a --to that is after --from."
        raise JobInvalid("the command", [Problem("window", str(error), remedy)]) from None


@app.command()
def check(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[JOB]...", help="Default: include/jobs.")] = None,
    as_json: Json = False,
) -> None:
    """Check job files; tells all that is wrong with each, and exits with 2 if anything is."""
    with _errors_told(as_json=as_json):
        found = check_files(paths or [], now=datetime.now(UTC))
        if not found:
            raise typer.BadParameter(f"there are no job files in {JOBS}; name one", param_hint="JOB")
        show.checked(found, as_json=as_json)
    if any(one.problems for one in found.values()):
        raise typer.Exit(EXIT_INVALID)


@app.command()
def plan(
    job: JobPath,
    start: From = None,
    end: To = None,
    limit: Limit = None,
    model: Model = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Read the source and say what a run would send and cost; nothing is sent or kept."""
    with _errors_told(as_json=as_json, verbose=verbose):
        from nightbatch import flow

        loaded = find_job(job)
        ports = _ports(loaded)
        window = window_of(start, end, now=ports.clock.now())
        with progress.spinner("reading the source", quiet=as_json):
            estimate = flow.look_ahead(ports, loaded, window, flow.Options(limit=limit, model=model))
        show.estimate(loaded, window, estimate, as_json=as_json)


@app.command(name="try")
def try_job(
    job: JobPath,
    count: Annotated[int, typer.Option("-n", min=1, max=100, help="How many records to ask about.")] = 5,
    start: From = None,
    end: To = None,
    model: Model = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask the model about a few records now, at the real-time price, and show prompt, answer, verdict and cost."""
    with _errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.flow import with_model
        from nightbatch.steps.trial import trials

        loaded = with_model(find_job(job), model)
        ports = _ports(loaded)
        window = window_of(start, end, now=ports.clock.now())
        asked = progress.each(trials(ports, loaded, window, count=count), "asking the model", quiet=as_json)
        show.trials(loaded, window, asked, as_json=as_json)


@app.command()
def run(  # noqa: PLR0913 - one argument for each option
    job: JobPath,
    start: From = None,
    end: To = None,
    limit: Limit = None,
    model: Model = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Send unchanged records too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Make a new plan for a window that was run before.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Do all ten steps for one window and wait; run again after any interruption, it goes on where it stands."""
    with _errors_told(as_json=as_json, verbose=verbose):
        from nightbatch import flow

        loaded = find_job(job)
        ports = _ports(loaded)
        now = ports.clock.now()
        window = window_of(start, end, now=now)
        asker = f"cli {now.isoformat()}" if force else ""
        options = flow.Options(limit=limit, model=model, refresh=refresh, force=asker)
        try:
            with progress.bars(quiet=as_json) as watch:
                books = flow.run(ports, loaded, window, options, watch=watch)
        except (RunIncomplete, RunFailed, DoesNotAddUp) as error:
            show.bad_ending(flow.books_of(ports.ledger.run(error.run_id)), error, as_json=as_json)
            raise typer.Exit(EXIT_FAILED) from None
        show.books(books, as_json=as_json)


@app.command()
def status(
    job: Annotated[str | None, typer.Argument(help="Only this job.")] = None,
    last: Annotated[int, typer.Option("--last", min=1, help="How many runs.")] = 10,
    as_json: Json = False,
) -> None:
    """Say what is waiting, on whom, since when, and what happens next."""
    with _errors_told(as_json=as_json):
        from nightbatch import cli_status as status_of
        from nightbatch.adapters.registry import open_ledger, settings_from

        ledger = open_ledger(settings_from(os.environ))
        if job is not None and not ledger.runs(job=job, limit=1):
            status_of.never_ran(job, sorted({run.job for run in ledger.runs(limit=1_000)}), as_json=as_json)
            return
        status_of.show(ledger, ledger.runs(job=job, limit=last), now=datetime.now(UTC), as_json=as_json)


@app.command()
def migrate() -> None:
    """Make or upgrade the ledger's tables."""
    with _errors_told():
        from nightbatch.adapters.registry import open_ledger, settings_from

        ledger = open_ledger(settings_from(os.environ))
        show.note(f"ledger {ledger.ledger_id} is up to date")


def _mount_emulator() -> None:
    """Add `nightbatch emulator`, where the extra that it needs is installed; its import costs only that command."""

    @app.command(
        name="emulator",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
        help="Play the vendors' batch APIs on loopback, with faults on demand: `nightbatch emulator --help`.",
    )
    def emulator(context: typer.Context) -> None:
        from nightbatch.emulator.command import app as emulator_app

        emulator_app(args=context.args, prog_name="nightbatch emulator")


_mount_emulator()


if __name__ == "__main__":
    app()

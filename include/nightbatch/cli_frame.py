"""What every command shares: options, exit codes, errors told as sentences, and the window that is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.core.window import Window
from nightbatch.errors import JobInvalid, NightbatchError, Problem, Transient
from nightbatch.job import Job

if TYPE_CHECKING:
    from nightbatch.housekeeping import House
    from nightbatch.ports import Ledger, Ports, Run
    from nightbatch.watchdog import Watch

EXIT_FAILED, EXIT_INVALID, EXIT_UNEXPECTED, EXIT_TRY_AGAIN, EXIT_STOPPED = 1, 2, 70, 75, 130
"""The run failed or is incomplete; the configuration is wrong; a bug; try again later (EX_TEMPFAIL); Ctrl-C."""
EXIT_MISSING = 3
"""A window has no run, or answers in use are too old; only where it is asked for."""

STOPPED = "Batches that were sent go on at the vendor; run the same command again to collect them."
NOT_SENT = "No batch of this window is at the vendor; run the same command again, and it goes on where it stands."


class Stopped(KeyboardInterrupt):
    """Ctrl-C, with what whoever was stopped has to say of it."""


RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or a job's for its latest run.")]
JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="A job file, or the name of one in include/jobs.")]
From = Annotated[str | None, typer.Option("--from", help="Start of the window, ISO 8601; UTC without a zone.")]
To = Annotated[str | None, typer.Option("--to", help="End of the window; default: 24 hours after the start.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Read at most so many records.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what each step does, on stderr.")]
Model = Annotated[str, typer.Option("--model", help="Use this model in the place of the job's first one.")]


@contextmanager
def errors_told(*, as_json: bool = False, verbose: bool = False) -> Iterator[None]:
    """End every error in a sentence and an exit code; a traceback is shown on request, where it is not one of ours."""
    progress.log_lines(verbose=verbose)
    try:
        yield
    except NightbatchError as error:
        code = EXIT_INVALID if _is_configuration(error) else EXIT_TRY_AGAIN if isinstance(error, Transient) else 1
        show.error(type(error).__name__, str(error), as_json=as_json)
        raise typer.Exit(code) from None
    except KeyboardInterrupt as stop:
        text = str(stop) if isinstance(stop, Stopped) else "Nothing is lost; run the same command again."
        show.error("Stopped", text, as_json=as_json)
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

    configuration = (errors.JobInvalid, errors.ConnectionInvalid, errors.PackageMissing)
    ends = (errors.BadSource, errors.BadSink)
    versions = (errors.LedgerMismatch, errors.LedgerInUse, errors.PlanUnreadable)
    return isinstance(error, (*configuration, *ends, *versions))


def ports_of(job: Job) -> Ports:
    """Open everything that a job needs, as the environment says."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_ports, settings_from
    from nightbatch.adapters.telemetry import telemetry_of

    telemetry = telemetry_of(os.environ)
    return open_ports(job, settings_from(os.environ), from_environment(os.environ), telemetry=telemetry)


def instant(text: str) -> datetime:
    """Read a time of a command; UTC without a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        remedy = "Write it like 2026-11-21 or 2026-11-21T02:00+01:00."
        raise JobInvalid("the command", [Problem("window", f"{text!r} is no ISO 8601 time", remedy)]) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def day_of(text: str | None, option: str) -> date | None:
    """Read a day of a command; None where none is given."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        problem = Problem(option, f"{text!r} is no day", "Write it like 2026-11-21.")
        raise JobInvalid("the command", [problem]) from None


def window_of(start: str | None, end: str | None, *, now: datetime) -> Window:
    """Give the window that a command names; without one, yesterday in UTC."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    first = instant(start) if start else (instant(end) if end else midnight) - timedelta(days=1)
    last = instant(end) if end else first + timedelta(days=1)
    try:
        return Window(first, last)
    except ValueError as error:
        remedy = "Give a --to that is after --from."
        raise JobInvalid("the command", [Problem("window", str(error), remedy)]) from None


def ledger_of_environment(*, anyway: bool = False) -> Ledger:
    """Open the ledger that the environment names; `anyway` upgrades its tables beside open runs too."""
    from nightbatch.adapters.registry import open_ledger, settings_from

    return open_ledger(settings_from(os.environ), anyway=anyway)


def house_of_environment() -> House:
    """Open what housekeeping looks after, as the environment says."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import settings_from
    from nightbatch.housekeeping import open_house

    return open_house(settings_from(os.environ), from_environment(os.environ))


def watch_of_environment() -> Watch:
    """Open what the watchdog looks after, as the environment says."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import settings_from
    from nightbatch.watchdog import open_watch

    return open_watch(settings_from(os.environ), from_environment(os.environ))


def run_named(ledger: Ledger, name: str) -> Run:
    """Find the run that a command names: by its own name, or by its job's, which means that job's latest run."""
    try:
        return ledger.run(name)
    except LookupError:
        latest = ledger.runs(job=name, limit=1)
    if latest:
        return latest[0]
    jobs = ", ".join(sorted({run.job for run in ledger.runs(limit=1_000)})) or "none"
    remedy = f"Name a run as `nightbatch status` shows it, or a job for its latest run. Jobs with runs: {jobs}."
    raise JobInvalid("the command", [Problem("RUN", f"there is no run or job {name!r} in this ledger", remedy)])

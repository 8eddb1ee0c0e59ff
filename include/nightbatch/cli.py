"""The command line, `nightbatch check | plan | try | run | status | …`: one function a command. Needs no Airflow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from nightbatch import __version__
from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_audit import audit
from nightbatch.cli_cancel import cancel
from nightbatch.cli_check import JOBS, check_files, find_job
from nightbatch.cli_costs import costs
from nightbatch.cli_diff import diff
from nightbatch.cli_evaluate import evaluate
from nightbatch.cli_frame import (
    EXIT_FAILED,
    EXIT_INVALID,
    EXIT_TRY_AGAIN,
    From,
    JobPath,
    Json,
    Limit,
    Model,
    To,
    Verbose,
    errors_told,
    ledger_of_environment,
    ports_of,
    window_of,
)
from nightbatch.cli_init import init
from nightbatch.cli_orphans import orphans
from nightbatch.cli_release import release
from nightbatch.cli_retry import retry, run_to_the_end
from nightbatch.cli_schema import schema
from nightbatch.cli_skip import skip
from nightbatch.cli_tidy import tidy
from nightbatch.cli_watch import status
from nightbatch.garbage import look_seldom

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Batch LLM jobs: half the price, every row accounted for, nothing paid twice.",
)


def _say_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"nightbatch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Batch LLM jobs: half the price, every row accounted for, nothing paid twice."""
    look_seldom()


@app.command()
def check(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[JOB]...", help="Default: include/jobs.")] = None,
    as_json: Json = False,
) -> None:
    """Check job files; tells all that is wrong with each, and exits with 2 if anything is."""
    with errors_told(as_json=as_json):
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
    """Read the source and say what a run would send, cost and take, and whether that is in time; sends nothing."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch import flow

        loaded = find_job(job)
        ports = ports_of(loaded)
        window = window_of(start, end, now=ports.clock.now())
        with progress.spinner("reading the source", quiet=as_json):
            options = flow.Options(limit=limit, model=model)
            estimate = flow.look_ahead(ports, loaded, window, options)
        show.estimate(loaded, window, estimate, flow.closed_before(ports, loaded, window, options), as_json=as_json)


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
    """
    Ask the model about a few records now, at the real-time price, and show prompt, answer, verdict and cost.

    Exits with 1 where nothing was answered, and with 75 where the vendor did not answer.
    """
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.flow import with_model
        from nightbatch.steps.trial import trials

        loaded = with_model(find_job(job), model)
        ports = ports_of(loaded)
        window = window_of(start, end, now=ports.clock.now())
        asked = progress.each(trials(ports, loaded, window, count=count), "asking the model", quiet=as_json)
        shown = show.trials(loaded, window, asked, as_json=as_json)
    if not any(one.is_answered for one in shown):
        is_away = any(one.messages and one.result is None for one in shown)
        raise typer.Exit(EXIT_TRY_AGAIN if is_away else EXIT_FAILED)


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
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch import flow

        loaded = find_job(job)
        ports = ports_of(loaded)
        now = ports.clock.now()
        window = window_of(start, end, now=now)
        asker = f"cli {now.isoformat()}" if force else ""
        options = flow.Options(limit=limit, model=model, refresh=refresh, force=asker)
        run_to_the_end(ports, loaded, window, options, as_json=as_json)


app.command()(diff)
app.command()(init)
app.command()(schema)
app.command()(status)
app.command()(retry)
app.command()(cancel)


@app.command()
def migrate(
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also where older versions could not go on; stop them first.")
    ] = False,
) -> None:
    """Make or upgrade the ledger's tables; older versions go on beside it, or it is refused while runs are open."""
    with errors_told():
        ledger = ledger_of_environment(anyway=anyway)
        show.note(f"ledger {ledger.ledger_id} is up to date")


app.command()(release)
app.command()(skip)
app.command()(evaluate)
app.command()(costs)
app.command()(tidy)
app.command()(orphans)
app.command()(audit)


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

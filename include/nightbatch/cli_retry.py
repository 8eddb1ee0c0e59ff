"""What `nightbatch retry` does: shows the dead letters of a run by reason, and sends those again that are named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_check import JOBS
from nightbatch.cli_crew import crew_of
from nightbatch.cli_frame import (
    EXIT_FAILED,
    NOT_SENT,
    STOPPED,
    Json,
    Model,
    RunName,
    Stopped,
    Verbose,
    errors_told,
    ledger_of_environment,
    ports_of,
    run_named,
)
from nightbatch.core.shard import ShardState
from nightbatch.core.window import Window
from nightbatch.errors import DoesNotAddUp, JobInvalid, Problem, RunFailed, RunIncomplete, Transient
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed

if TYPE_CHECKING:
    from nightbatch.flow import Options
    from nightbatch.ports import Ledger, Ports, Run
    from nightbatch.steps.letters import Group

JobFile = Annotated[
    Path | None,
    typer.Option("--job", help="The job file; default: the job of this name in include/jobs, else as it was sealed."),
]


def retry(
    run: RunName,
    reasons: Annotated[
        list[str] | None, typer.Option("--reason", help="Send these again; `all` for every reason. None: only look.")
    ] = None,
    model: Model = "",
    max_output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Cap on each answer. Default: as before, twice that where it was cut off.")
    ] = None,
    job_file: JobFile = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show a run's dead letters by reason and what a retry costs; with --reason, send those again and wait."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch import flow

        ledger = ledger_of_environment()
        named, latest = _runs(ledger, run)
        job = job_of(latest, job_file)
        ports = ports_of(job)
        if not reasons:
            _show(ports, latest, as_json=as_json)
            return
        asked_of = _asked_of(named, latest)
        words = " ".join(sorted(set(reasons)))
        asker = f"cli {asked_of} {words} {model} {max_output_tokens or ''}"
        ask = flow.Ask(tuple(reasons), asker, model, max_output_tokens)
        _refuse_open(latest, asker)
        run_to_the_end(ports, job, latest.window, flow.Options(model=model, retry=ask), as_json=as_json)


def _runs(ledger: Ledger, name: str) -> tuple[Run, Run]:
    """Give the run that was named, and the latest generation of its window."""
    named = run_named(ledger, name)
    same = ledger.runs(job=named.job, window=named.window, limit=1_000)
    return named, max(same, key=lambda one: one.generation)


def _asked_of(named: Run, latest: Run) -> str:
    """Give the run whose letters are meant: typed again while the retry is under way, it is the one it was made of."""
    retries = (latest.plan or {}).get("retries") or {}
    if latest.state == "open" and retries and named.run == latest.run:
        return str(retries["run"])
    return named.run


def _refuse_open(latest: Run, asker: str) -> None:
    retries = (latest.plan or {}).get("retries") or {}
    if latest.state == "open" and retries.get("asked_by") != asker:
        remedy = "Run its window to the end first (`nightbatch status` shows what it waits for), then retry."
        raise JobInvalid("the command", [Problem("RUN", f"run {latest.run} is still open", remedy)])


def job_of(run: Run, file: Path | None) -> Job:
    """Find the job of a run: the named file, else one in include/jobs, else as it was sealed with the run."""
    from nightbatch.job_file import load_job, load_jobs

    if file is not None:
        return load_job(file)
    found = [job for job in load_jobs(JOBS)[0] if job.name == run.job] if JOBS.is_dir() else []
    if found:
        return found[0]
    if run.plan is None:
        remedy = "Name its file with --job."
        raise JobInvalid("the command", [Problem("RUN", f"job {run.job} is not in {JOBS}", remedy)])
    return unsealed(run.plan, run=run.run)


def _show(ports: Ports, latest: Run, *, as_json: bool) -> None:
    from nightbatch.steps.letters import by_reason, standing

    groups = by_reason(standing(ports, latest))
    if as_json:
        show.print_json({"run": latest.run, "letters": [group.as_json() for group in groups]})
    elif groups:
        _table(latest, groups)
    else:
        show.note(f"run {latest.run} has no dead letters")


def _table(latest: Run, groups: list[Group]) -> None:
    from nightbatch.steps.figures import second_chance_words

    show.facts(f"{latest.run}: dead letters", [(group.reason, second_chance_words(group)) for group in groups])
    if any(group.can_be_sent for group in groups):
        show.note(f"send them again: nightbatch retry {latest.run} --reason REASON")


def run_to_the_end(ports: Ports, job: Job, window: Window, options: Options, *, as_json: bool) -> None:
    """Run a window, wait, and show how it ended; exits with 1 where it did not end well."""
    from nightbatch import flow

    closed = None if options.retry else flow.closed_before(ports, job, window, options)
    try:
        with progress.bars(quiet=as_json) as watch:
            books = flow.run(ports, job, window, options, watch=watch, crew=crew_of(job))
    except (RunIncomplete, RunFailed, DoesNotAddUp) as error:
        show.bad_ending(flow.books_of(ports.ledger.run(error.run_id)), error, closed, as_json=as_json)
        raise typer.Exit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        raise Stopped(STOPPED if _is_at_vendor(ports, job, window) else NOT_SENT) from None
    show.books(books, closed, as_json=as_json)


def _is_at_vendor(ports: Ports, job: Job, window: Window) -> bool:
    """Say whether a batch of the window is, or may be, under way; also where the ledger cannot be asked."""
    from nightbatch import flow

    try:
        run = flow.find_run(ports, job, window)
        shards = ports.ledger.shards(run.run) if run else []
    except Transient:
        return True
    return any(shard.state in (ShardState.SUBMITTING, ShardState.OPEN) for shard in shards)

"""`nightbatch diff`: two prompts on one sample, where their answers differ, and what each costs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_check import find_job
from nightbatch.cli_diff_show import compared, cost_json
from nightbatch.cli_frame import (
    EXIT_FAILED,
    EXIT_TRY_AGAIN,
    From,
    JobPath,
    Json,
    Model,
    To,
    Verbose,
    errors_told,
    ports_of,
    window_of,
)
from nightbatch.core.window import Window
from nightbatch.errors import JobInvalid, Problem
from nightbatch.job import Job, Prompt

if TYPE_CHECKING:
    from nightbatch.ports import Ports
    from nightbatch.steps.compare import Compared, Side

PromptNames = Annotated[
    list[str],
    typer.Option(
        "--prompt",
        help="A version, hash or file; given twice, or once to compare it with the job's own.",
    ),
]
Sampled = Annotated[int, typer.Option("--sample", min=1, max=2_000, help="How many records to ask about.")]
Examples = Annotated[int, typer.Option("--examples", min=0, max=200, help="How many records to show that differ.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before money is spent.")]


def diff(  # noqa: PLR0913 - one argument for each option
    job: JobPath,
    prompt: PromptNames,
    sample: Sampled = 50,
    examples: Examples = 5,
    start: From = None,
    end: To = None,
    model: Model = "",
    yes: Yes = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """
    Ask two prompts about the same sample of records now, and show where answers differ and what each costs.

    Says first what it may cost, at the real-time price, and asks. Nothing is written: neither answers nor costs.
    Exits with 1 where nothing was answered, and with 75 where the vendor did not answer.
    """
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.flow import with_model
        from nightbatch.steps.compare import sides_of

        loaded = with_model(find_job(job), model)
        ports = ports_of(loaded)
        prompts = _prompts(ports, loaded, prompt)
        window = window_of(start, end, now=ports.clock.now())
        with progress.spinner("reading the source", quiet=as_json):
            first, second = sides_of(_reading(ports, loaded, prompts), loaded, prompts, window, count=sample)
        sides = (first, second)
        if not first.questions:
            show.note(f"no records in the window {window}; choose another with --from and --to")
            raise typer.Exit(EXIT_FAILED)
        if not _agreed(loaded, window, sides, yes=yes, as_json=as_json):
            return
        found = _asked(ports, sides, quiet=as_json)
        compared(loaded, window, found, examples=examples, as_json=as_json)
    if not any(told.answered for told in found.told):
        is_away = any(told.verdicts["no reply"] for told in found.told)
        raise typer.Exit(EXIT_TRY_AGAIN if is_away else EXIT_FAILED)


def _prompts(ports: Ports, job: Job, names: list[str]) -> list[Prompt]:
    from nightbatch.job_prompts import prompt_named
    from nightbatch.steps.compare import sealed_prompts

    if len(names) > 2:
        raise JobInvalid("the command", [Problem("--prompt", f"{len(names)} are given", "Give two, or one.")])
    earlier = sealed_prompts(ports.ledger, job.name)
    found = [prompt_named(job, name, earlier) for name in names]
    prompts = [job.prompt, *found] if len(found) == 1 else found
    if prompts[0].digest() == prompts[1].digest():
        problem = f"both have the same templates ({prompts[0].named})"
        raise JobInvalid("the command", [Problem("--prompt", problem, "Name two different prompts.")])
    return prompts


def _reading(ports: Ports, job: Job, prompts: Iterable[Prompt]) -> Ports:
    """Let the source give the columns of all prompts."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.registry import open_source

    columns = sorted({column for prompt in prompts for column in prompt.template().columns})
    connections = from_environment(os.environ)
    return replace(ports, source=lambda: open_source(job, connections, also=columns))


def _agreed(job: Job, window: Window, sides: tuple[Side, Side], *, yes: bool, as_json: bool) -> bool:
    """Say what it may cost, and ask; as JSON, without --yes, only say it."""
    if as_json:
        if not yes:
            show.print_json({"job": job.name, "window": str(window), "prompts": [cost_json(side) for side in sides]})
        return yes
    rows = [(side.name, f"{_requests(side)}; {_amounts(side)}") for side in sides]
    show.facts(f"{job.name}, {window}: {sides[0].lane.spec.model} in real time", rows)
    if yes or _says_yes():
        return True
    show.note("nothing was asked")
    return False


def _says_yes() -> bool:
    try:
        return typer.confirm("Ask?")
    except typer.Abort:
        # Ctrl-C, or nobody there to ask.
        return False


def _requests(side: Side) -> str:
    return show.count(sum(question.messages is not None for question in side.questions), "request")


def _amounts(side: Side) -> str:
    return f"{show.usd(side.expected_usd)} expected, {show.usd(side.worst_usd)} at worst"


def _asked(ports: Ports, sides: tuple[Side, Side], *, quiet: bool) -> Compared:
    from nightbatch.flow import Progress
    from nightbatch.steps.compare import Compared, compare

    found, total = Compared(sides), len(sides[0].questions)
    with progress.bars(quiet=quiet) as watch:
        for found in compare(ports, sides):
            done = len(found.pairs)
            if done % 10 == 0 or done == total:
                watch(Progress("asking", done, note=f"{done:,} of {total:,} records"))
    return found

"""What `nightbatch audit` does: prove a run once more, from its files, the ledger and the sink, and show each link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from nightbatch import cli_progress as progress
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
from nightbatch.cli_show import console, count, note, paragraph, print_json
from nightbatch.core.proof import LINKS, Link, broken
from nightbatch.job_sealed import unsealed

if TYPE_CHECKING:
    from nightbatch.ports import Run

All = Annotated[bool, typer.Option("--all", help="List every link, with the hash of each file.")]


def audit(name: RunName, everything: All = False, as_json: Json = False, verbose: Verbose = False) -> None:
    """Add a run up again from its files, the ledger and the sink; exits with 1 where it does not add up."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.steps.audit import audit as links_of

        run = run_named(ledger_of_environment(), name)
        if run.plan is None:
            _without_plan(run, as_json=as_json)
            return
        job = unsealed(run.plan, run=run.run)
        with progress.spinner("reading what the run left", quiet=as_json):
            links = links_of(ports_of(job), job, run)
        if as_json:
            print_json(_json(run, links))
        else:
            _show(run, links, everything=everything)
        if broken(links):
            raise typer.Exit(EXIT_FAILED)


def _without_plan(run: Run, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(run, []))
    else:
        note(f"{run.run} has no plan: nothing was sent, so there is nothing to add up")


def _json(run: Run, links: Sequence[Link]) -> dict[str, object]:
    return {
        "run": run.run,
        "state": run.state,
        "adds_up": not broken(links),
        "links": [asdict(link) for link in links],
    }


def _show(run: Run, links: Sequence[Link], *, everything: bool) -> None:
    out = console()
    out.print(Text(f"{run.run}: {run.state}", style="bold"), soft_wrap=True)
    table = Table("", "link", "what it says", "looked at")
    for name, meaning in LINKS.items():
        these = [link for link in links if link.name == name]
        if these:
            table.add_row(_mark(these), name, meaning, _counts(these))
    out.print(table)
    wrong = broken(links)
    for link in links if everything else wrong:
        line = Text.assemble(_mark([link]), f" {link.name} ", (link.place, "bold"), f": {_words(link)}")
        paragraph(out, line, indent=2)
    for why, places in _unknown(links).items():
        note(f"? {count(places, 'link')} could not be looked at: {why}")
    if wrong:
        note(f"{count(len(wrong), 'link')} of {len(links):,} do not hold; see DoesNotAddUp in docs/runbook.md.")
    else:
        note(f"It adds up: {len(links):,} links looked at, none is broken.")


def _mark(links: Sequence[Link]) -> Text:
    if any(link.holds is False for link in links):
        return Text("✗", style="bold red")
    return Text("✓", style="green") if any(link.holds for link in links) else Text("?", style="yellow")


def _counts(links: Sequence[Link]) -> str:
    states = Counter(link.holds for link in links)
    parts = ((True, "hold"), (False, "do not hold"), (None, "unknown"))
    return ", ".join(f"{states[state]:,} {what}" for state, what in parts if states[state])


def _words(link: Link) -> str:
    if link.holds is None:
        return link.found
    return link.expected if link.holds else f"expected {link.expected}, found {link.found}"


def _unknown(links: Sequence[Link]) -> Counter[str]:
    """Count what could not be looked at, by the reason; a hash that follows it is another one for each file."""
    return Counter(link.found.partition(";")[0] for link in links if link.holds is None)

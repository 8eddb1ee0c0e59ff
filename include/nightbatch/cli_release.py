"""`nightbatch release`: a person looks at what a gate held back, and lets it go or discards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from nightbatch import cli_show as show
from nightbatch.cli_frame import Json, RunName, errors_told, house_of_environment, ledger_of_environment, run_named

if TYPE_CHECKING:
    from nightbatch.ports import Gate, Run
    from nightbatch.steps.examples import Example

Look = Annotated[bool, typer.Option("--look", help="Only show what is different, and up to 20 answers.")]
Discard = Annotated[bool, typer.Option("--discard", help="Make dead letters of the answers instead of loading them.")]

MOST_CHARS = 300
"""How much of an answer is shown."""


def release(run: RunName, look: Look = False, discard: Discard = False, as_json: Json = False) -> None:
    """Let go what the quality gate or the canary of a run held back; the run goes on when it is run again."""
    with errors_told(as_json=as_json):
        if look and discard:
            raise typer.BadParameter("--look decides nothing; leave one of the two out", param_hint="--discard")
        if look:
            _look(run, as_json=as_json)
        else:
            _decide(run, discards=discard, as_json=as_json)


def _decide(name: str, *, discards: bool, as_json: bool) -> None:
    from nightbatch.adapters.clock import SystemClock
    from nightbatch.steps import release as steps

    ledger = ledger_of_environment()
    found = run_named(ledger, name)
    decide = steps.discard if discards else steps.let_go
    gates = decide(ledger, found, by="command line", now=SystemClock().now())
    again = _again(found)
    if as_json:
        told = {"gate": gates[0].kind, "gates": [gate.kind for gate in gates], "state": gates[0].state}
        show.print_json({"run": found.run, **told, "next": again})
    elif discards:
        show.note(
            f"what was held back of {found.run} is discarded; its rows become dead letters when the run is cleared in "
            f"Airflow (with downstream), or with: {again}. With --force the window is planned anew in the same step."
        )
    else:
        show.note(f"{found.run} is released. Clear the run in Airflow (with downstream), or type: {again}")


def _again(run: Run) -> str:
    return f"nightbatch run {run.job} --from {run.window.start.isoformat()} --to {run.window.end.isoformat()}"


def _look(name: str, *, as_json: bool) -> None:
    from nightbatch.errors import RunFailed
    from nightbatch.steps.examples import examples
    from nightbatch.steps.release import QUALITY

    house = house_of_environment()
    found = run_named(house.ledger, name)
    gate = house.ledger.gate(found.run, QUALITY)
    if gate is None:
        remedy = "`nightbatch status` names the runs that wait for a person."
        raise RunFailed(found.run, problem="its quality gate never closed", remedy=remedy)
    shown = list(examples(house.ledger, house.store, gate))
    if as_json:
        told = {"run": found.run, "state": gate.state, **gate.facts, "examples": list(map(asdict, shown))}
        show.print_json(told)
        return
    _show_differences(found, gate)
    _show_examples(shown)


def _show_differences(run: Run, gate: Gate) -> None:
    title = f"{run.run}: {gate.state}" + (f" by {gate.decided_by}" if gate.decided_by else "")
    show.console().print(Text(title, style="bold"), soft_wrap=True)
    table = Table()
    for name in ("in", "what", "this run", "last good run", "allowed"):
        table.add_column(name)
    for one in gate.facts["differences"]:
        row: Sequence[Any] = [one[name] for name in ("place", "what", "found", "usual", "allowed")]
        table.add_row(*(Text(clean(cell)) for cell in row))
    show.console().print(table)
    if gate.facts["last_good_run"]:
        show.note(f"last good run: {gate.facts['last_good_run']}")


def _show_examples(shown: Sequence[Example]) -> None:
    table = Table(title="what a model wrote; it may say anything", title_justify="left")
    for name in ("because of", "shard", "key", "verdict", "answer"):
        table.add_column(name, overflow="fold")
    for one in shown:
        verdict = f"{one.verdict} {one.detail}".strip()
        table.add_row(*(Text(clean(cell)) for cell in (one.what, one.shard, one.key, verdict, one.answer)))
    show.console().print(table)


def clean(text: str) -> str:
    """Cut a text that somebody else wrote, and take out what a terminal would obey."""
    cut = f"{text[:MOST_CHARS]}…" if len(text) > MOST_CHARS else text
    return show.harmless(cut.replace("\n", " "))

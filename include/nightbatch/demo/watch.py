"""The demo's live table: shards and rounds of both jobs, read from the ledger while Airflow works."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nightbatch.core.shard import ShardState
from nightbatch.demo.reviews import WINDOW
from nightbatch.ports import Ledger, Shard

MARKS = {
    ShardState.SEALED: "[dim]·[/]",
    ShardState.SUBMITTING: "[yellow]↑[/]",
    ShardState.OPEN: "[magenta]○[/]",
    ShardState.STORED: "[cyan]↓[/]",
    ShardState.COLLECTED: "[cyan]✓[/]",
    ShardState.LOADED: "[green]●[/]",
    ShardState.HELD: "[red]×[/]",
}
LEGEND = "[dim]· sealed  ↑ sending  ○ at the vendor  ↓ stored  ✓ checked  ● loaded  × held[/]"


def table(ledger: Ledger, jobs: list[str], airflow: dict[str, str], seconds: float) -> Table:
    """Draw the rounds and shards of both jobs."""
    drawn = Table(title=f"two nightly jobs, {seconds:,.0f} s", caption=LEGEND, title_justify="left", min_width=78)
    for name in ("job", "Airflow run", "round 0", "round 1", "round 2", "loaded"):
        drawn.add_column(name)
    for job in jobs:
        shards = _shards(ledger, job)
        rounds = ["".join(MARKS[shard.state] for shard in shards if shard.plan.ref.round == n) for n in range(3)]
        loaded = sum(shard.merged for shard in shards)
        drawn.add_row(job, airflow.get(job, "…"), *rounds, f"{loaded:,}")
    return drawn


def _shards(ledger: Ledger, job: str) -> list[Shard]:
    runs = ledger.runs(job=job, window=WINDOW)
    return ledger.shards(runs[0].run) if runs else []


@contextmanager
def watching(console: Console) -> Iterator[Callable[[Table, str], Any]]:
    """Show a table that changes on a terminal; elsewhere a line whenever something changed."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4) as live:
            yield lambda drawn, _: live.update(drawn)
        return
    last = ""

    def show(_: Table, line: str) -> None:
        nonlocal last
        if line != last:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            last = line

    yield show


def line(ledger: Ledger, jobs: list[str], airflow: dict[str, str]) -> str:
    """Say the same in one line, for logs."""
    parts = []
    for job in jobs:
        states = Counter(f"r{shard.plan.ref.round} {shard.state.value}" for shard in _shards(ledger, job))
        words = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no plan yet"
        parts.append(f"{job} ({airflow.get(job, '…')}): {words}")
    return " | ".join(parts)

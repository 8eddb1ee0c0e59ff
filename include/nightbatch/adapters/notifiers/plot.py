"""Draws a job's last runs as bars of table cells, which every mail client shows, and as a line of block characters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from nightbatch.adapters.notifiers.wording import one_line
from nightbatch.ports import PastRun

HIGHEST_PX = 48
GOOD, PENDING, DEAD, MONEY = "#2e7d32", "#f9a825", "#c62828", "#1565c0"
STATES = {"complete": GOOD, "incomplete": PENDING, "open": PENDING}
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Cell:
    """A coloured rectangle."""

    height_px: int
    colour: str


@dataclass(frozen=True)
class Plot:
    """Bars side by side, oldest first; each is a pile of cells, from the top."""

    title: str
    bars: tuple[tuple[Cell, ...], ...]
    line: str
    """The same as block characters."""


def plots(history: Sequence[PastRun]) -> tuple[Plot, ...]:
    """Draw rows and cost of a job's last runs; nothing where there is only one, or none."""
    if len(history) < 2:
        return ()
    rows = [run.good + run.dead + run.pending for run in history]
    cost = [run.cost_usd for run in history]
    return (
        Plot(f"Rows a run (most: {max(rows):,})", tuple(_rows_bars(history, max(rows))), sparkline(rows)),
        Plot(f"Cost a run (most: {max(cost):,.2f} USD)", tuple(_cost_bars(history, max(cost))), sparkline(cost)),
    )


def plot_lines(history: Sequence[PastRun]) -> list[str]:
    """Draw the same in text, for channels without pictures."""
    if not (found := plots(history)):
        return []
    first, last = (one_line(run.day, 20) for run in (history[0], history[-1]))
    head = f"The last {len(history)} runs, {first} to {last}, oldest first:"
    bad = "".join("x" if run.dead + run.pending else "." for run in history)
    return [head, *(line for plot in found for line in (plot.title, plot.line)), "x: dead letters or pending rows", bad]


def sparkline(values: Sequence[int | Decimal]) -> str:
    """Draw values as a line of block characters; the highest is a full block."""
    most = max(values, default=0)
    return "".join(_BLOCKS[int(value * 7 / most)] if most else _BLOCKS[0] for value in values)


def _rows_bars(history: Sequence[PastRun], most: int) -> list[tuple[Cell, ...]]:
    return [
        _bar([(run.dead, DEAD), (run.pending, PENDING), (run.good, GOOD)], most, STATES.get(run.state, DEAD))
        for run in history
    ]


def _cost_bars(history: Sequence[PastRun], most: Decimal) -> list[tuple[Cell, ...]]:
    return [_bar([(run.cost_usd, MONEY)], most, MONEY) for run in history]


def _bar(parts: Sequence[tuple[int | Decimal, str]], most: int | Decimal, foot: str) -> tuple[Cell, ...]:
    """Pile parts up; what is there at all is seen, and the foot tells how the run ended."""
    cells = [Cell(max(1, round(value * HIGHEST_PX / most)), colour) for value, colour in parts if value and most]
    return (*cells, Cell(2, foot))

"""`nightbatch costs`: what was billed, by day, job, lane and prompt, and what real time would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from nightbatch import cli_show as show
from nightbatch.cli_frame import Json, day_of, errors_told, ledger_of_environment
from nightbatch.core.money import Cost, total

if TYPE_CHECKING:
    from nightbatch.ports import CostLine


class By(StrEnum):
    """What costs may be told apart by."""

    DAY = "day"
    MONTH = "month"
    JOB = "job"
    MODEL = "model"
    LANE = "lane"
    PROMPT = "prompt"


def costs(
    job: Annotated[str | None, typer.Argument(help="Only this job.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="First day, like 2026-11-01.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="The day after the last one.")] = None,
    by: Annotated[list[By] | None, typer.Option("--by", help="Tell apart by this; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """
    Say what was billed, and what real time would have cost; each day is one of the job's own time zone.

    What `nightbatch try` and `nightbatch diff` spent in real time is not in it.
    """
    with errors_told(as_json=as_json):
        ledger = ledger_of_environment()
        lines = ledger.costs(job=job, since=day_of(since, "--from"), until=day_of(until, "--to"))
        _show(lines, by or [By.DAY, By.JOB, By.MODEL], as_json=as_json)


def grouped(lines: Sequence[CostLine], by: Sequence[By]) -> dict[tuple[str, ...], tuple[int, Cost]]:
    """Add lines up that do not differ in what is told apart: name -> (rows, cost), in order."""
    groups: dict[tuple[str, ...], list[CostLine]] = {}
    for line in lines:
        groups.setdefault(tuple(_name(line, it) for it in by), []).append(line)
    return {name: _sum(groups[name]) for name in sorted(groups)}


def _sum(lines: Sequence[CostLine]) -> tuple[int, Cost]:
    return sum(line.rows for line in lines), total(line.cost for line in lines)


def _name(line: CostLine, by: By) -> str:
    match by:
        case By.DAY:
            return line.day.isoformat()
        case By.MONTH:
            return f"{line.day:%Y-%m}"
        case By.JOB:
            return line.job
        case By.MODEL:
            return f"{line.provider} {line.model}"
        case By.LANE:
            return f"{line.provider} {line.model} {line.connection} {line.mode}"
    return line.prompt_version or "(not recorded)"


def _show(lines: Sequence[CostLine], by: Sequence[By], *, as_json: bool) -> None:
    groups, (rows, cost) = grouped(lines, by), _sum(lines)
    if as_json:
        named = [dict(zip(by, name, strict=True)) | _figures(*figures) for name, figures in groups.items()]
        show.print_json({"costs": named, "total": _figures(rows, cost)})
        return
    if not lines:
        show.note("nothing was billed in these days; costs appear when a batch is collected")
        return
    table = Table()
    for it in by:
        table.add_column(it.value, overflow="fold")
    for figure in ("rows", "tokens in", "tokens out", "batch USD", "real time USD", "saved"):
        table.add_column(figure, justify="right", no_wrap=True)
    for name, figures in groups.items():
        table.add_row(*map(Text, name), *_cells(*figures))
    table.add_section()
    table.add_row("all", *[""] * (len(by) - 1), *_cells(rows, cost), style="bold")
    show.console().print(table)


def _cells(rows: int, cost: Cost) -> list[str]:
    saved = f"{1 - cost.batch_usd / cost.realtime_usd:.0%}" if cost.realtime_usd else "–"
    tokens = (f"{cost.usage.input_tokens:,}", f"{cost.usage.output_tokens:,}")
    return [f"{rows:,}", *tokens, f"{cost.batch_usd:,.4f}", f"{cost.realtime_usd:,.4f}", saved]


def _figures(rows: int, cost: Cost) -> dict[str, Any]:
    return {"rows": rows, **asdict(cost.usage), "batch_usd": cost.batch_usd, "realtime_usd": cost.realtime_usd}

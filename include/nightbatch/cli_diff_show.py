"""What `nightbatch diff` shows: tables and panels that fit into 80 columns, or one JSON object for machines."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nightbatch import cli_show as show
from nightbatch.core.window import Window
from nightbatch.job import Job

if TYPE_CHECKING:
    from nightbatch.core.comparison import FieldChanges
    from nightbatch.steps.compare import Compared, Pair, Side, Told

MOST_CHARS = 400
"""Of a value so many characters are shown."""
MOST_CHANGES = 3
"""Of a field's changes the most frequent ones are shown."""


def cost_json(side: Side) -> dict[str, Any]:
    """Give what one prompt may cost, as JSON values."""
    return {
        "prompt_version": side.name,
        "requests": sum(question.messages is not None for question in side.questions),
        "expected_usd": side.expected_usd,
        "worst_usd": side.worst_usd,
    }


def compared(job: Job, window: Window, found: Compared, *, examples: int, as_json: bool) -> None:
    """Show where two prompts' answers differ."""
    if as_json:
        show.print_json({"job": job.name, "window": str(window), **_json(found)})
        return
    out = show.console()
    out.print(_verdicts(found))
    good = found.fields
    if good.records:
        out.print(_fields(found))
        share = good.equal / good.records
        show.note(
            f"{good.equal:,} of {good.records:,} records that both answered well have the same answer ({share:.0%})"
        )
    differing = sorted(filter(_differs, found.pairs), key=lambda pair: _weight(pair, found))
    for pair in differing[:examples]:
        out.print(_example(pair, found))
    if len(differing) > examples:
        left = len(differing) - examples
        show.note(f"{show.count(left, 'more record')} differ: --examples {len(differing)} shows all, --json gives all")


def _differs(pair: Pair) -> bool:
    from nightbatch.steps.compare import words_of

    return bool(pair.changed) if pair.changed is not None else words_of(pair.first) != words_of(pair.second)


def _weight(pair: Pair, found: Compared) -> float:
    """Put those first whose fields seldom differ: that a confidence is another one each time says little."""
    return min((found.fields.fields[name].share for name in pair.changed or ()), default=0.0)


def _headed(title: str, first: str, found: Compared) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column(first)
    for side in found.sides:
        table.add_column(Text(_safe(side.name)), justify="right", overflow="fold")
    return table


def _verdicts(found: Compared) -> Table:
    table = _headed("what became of the records", "", found)
    for name in sorted({*found.told[0].verdicts, *found.told[1].verdicts}, key=lambda word: (word != "good", word)):
        table.add_row(name, *(f"{told.verdicts[name]:,}" for told in found.told))
    table.add_section()
    table.add_row("tokens a record, in / out", *(_tokens(told) for told in found.told))
    table.add_row("billed for the sample", *(_billed(side, told) for side, told in zip(*_both(found), strict=True)))
    table.add_row("a record, in a batch", *(_in_batch(side, told) for side, told in zip(*_both(found), strict=True)))
    return table


def _both(found: Compared) -> tuple[tuple[Side, Side], tuple[Told, Told]]:
    return found.sides, found.told


def _tokens(told: Told) -> str:
    if not told.answered:
        return "–"
    return f"{told.usage.input_tokens / told.answered:,.0f} / {told.usage.output_tokens / told.answered:,.0f}"


def _billed(side: Side, told: Told) -> str:
    return show.usd(told.cost_usd if side.lane.realtime.input_usd else None)


def _in_batch(side: Side, told: Told) -> str:
    from nightbatch.steps.compare import batch_usd_a_record

    amount: Decimal | None = batch_usd_a_record(side, told)
    return show.usd(amount)


def _fields(found: Compared) -> Table:
    table = Table(title=Text("where both answered well"), title_justify="left")
    table.add_column("field", overflow="fold")
    for name in ("same", "differ", "share"):
        table.add_column(name, justify="right")
    table.add_column("most often", overflow="fold")
    for one in found.fields.fields.values():
        changes = Text("\n".join(_changes(one)))
        table.add_row(Text(_safe(one.name)), f"{one.same:,}", f"{one.differ:,}", f"{one.share:.0%}", changes)
    return table


def _changes(one: FieldChanges) -> Iterator[str]:
    """Give the changes that more than one record has; a text that is new each time is for the examples."""
    for (old, new), count in one.changes.most_common(MOST_CHANGES):
        if count > 1 or len(old) + len(new) <= 40:
            yield f"{_safe(old, 40)} → {_safe(new, 40)}  {count:,}×"


def _example(pair: Pair, found: Compared) -> Panel:
    from nightbatch.steps.compare import text_of, words_of

    table = Table(expand=True, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold", ratio=1)
    for side in found.sides:
        table.add_column(Text(_safe(side.name)), overflow="fold", ratio=2)
    if pair.changed is None:
        sides = (pair.first, pair.second)
        table.add_row("verdict", *(Text(words_of(trial)) for trial in sides))
        table.add_row("answer", *(Text(_safe(text_of(trial))) for trial in sides))
    for name, (old, new) in (pair.changed or {}).items():
        table.add_row(Text(_safe(name, 60)), Text(_safe(old)), Text(_safe(new)))
    return Panel(table, title=Text(_safe(pair.key, 60)), title_align="left")


def _safe(text: str, most: int = MOST_CHARS) -> str:
    """Cut somebody else's words, without what a terminal would obey."""
    text = show.harmless(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _json(found: Compared) -> dict[str, Any]:
    from nightbatch.steps.compare import batch_usd_a_record

    prompts = [
        {
            **cost_json(side),
            "verdicts": dict(told.verdicts),
            "input_tokens": told.usage.input_tokens,
            "output_tokens": told.usage.output_tokens,
            "cost_usd": told.cost_usd if side.lane.realtime.input_usd else None,
            "batch_usd_a_record": batch_usd_a_record(side, told),
        }
        for side, told in zip(*_both(found), strict=True)
    ]
    fields = [
        {
            "field": one.name,
            "same": one.same,
            "differ": one.differ,
            "changes": [{"from": old, "to": new, "records": count} for (old, new), count in one.changes.most_common()],
        }
        for one in found.fields.fields.values()
    ]
    return {
        "prompts": prompts,
        "compared": found.fields.records,
        "equal": found.fields.equal,
        "fields": fields,
        "records": [_pair_json(pair) for pair in found.pairs],
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    from nightbatch.steps.compare import text_of, words_of

    trials = (pair.first, pair.second)
    changed = None if pair.changed is None else sorted(pair.changed)
    return {
        "key": pair.key,
        "verdicts": [words_of(trial) for trial in trials],
        "answers": [text_of(trial) for trial in trials],
        "differ": changed,
    }

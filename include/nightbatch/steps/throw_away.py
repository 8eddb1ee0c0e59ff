"""Instead of step 8: turn the answers of a shard into dead letters, because a person discarded them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from nightbatch.core.verdict import Reason, VerdictKind
from nightbatch.ports import Ports, Shard

from .outcome import Moved, Outcome
from .parquet import read_rows, row_writer
from .validate import VERDICT_SCHEMA

_DETAIL = "a person discarded what the quality gate held back"
_BILLED = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd")

_Row = dict[str, Any]


def throw_away(ports: Ports, shard: Shard) -> Outcome | None:
    """
    Judge the good rows of a collected shard anew, as discarded; None where none is left.

    The verdicts are written into a file of their own, and the ledger takes it in the place of the other in one commit.
    So books, proof and dead letters come about as for any other row. Its cost stays as it was booked.
    """
    good = shard.counts.get(VerdictKind.GOOD, 0)
    if not good:
        return None
    name = f"{shard.plan.ref.folder}/discarded-{ports.clock.now():%Y%m%dT%H%M%S%f}.parquet"
    with row_writer(ports.store, name, VERDICT_SCHEMA) as out:
        for row in _discarded(ports, shard):
            out.add(tuple(row[column] for column in VERDICT_SCHEMA.names))
    counts = {what: number for what, number in shard.counts.items() if what != VerdictKind.GOOD}
    ports.ledger.note_discarded(
        shard.plan.ref,
        instead_of=shard.verdicts_name,
        verdicts_name=name,
        verdicts_sha256=out.sha256,
        counts={**counts, f"{VerdictKind.DEAD}:{Reason.DISCARDED}": good},
        now=ports.clock.now(),
    )
    return Moved()


def _discarded(ports: Ports, shard: Shard) -> Iterator[_Row]:
    """Give one verdict a row; memory is the numbers of the good rows of one shard."""
    pairs = read_rows(ports.store, shard.verdicts_name, ("row", "kind"))
    good = {row for row, kind in pairs if kind == VerdictKind.GOOD}
    first: dict[int, _Row] = {}
    for values in read_rows(ports.store, shard.verdicts_name, VERDICT_SCHEMA.names):
        row: _Row = dict(zip(VERDICT_SCHEMA.names, values, strict=True))
        if row["row"] in good and row["kind"] != VerdictKind.GOOD:
            first[row["row"]] = row
        else:
            yield _as_discarded(row, first.pop(row["row"], None)) if row["kind"] == VerdictKind.GOOD else row


def _as_discarded(row: _Row, first: _Row | None) -> _Row:
    # The line that came first was billed, and it has no verdict of its own any more.
    billed = {name: row[name] + (first[name] if first else 0) for name in _BILLED}
    billed["cost_usd"] = Decimal(billed["cost_usd"])
    judged = {"kind": VerdictKind.DEAD.value, "reason": Reason.DISCARDED.value, "detail": _DETAIL}
    return {**row, **billed, **judged}

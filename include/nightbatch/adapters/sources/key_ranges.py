"""Parts of a query by ranges of its key, which an index of the key can serve; for warehouses that sort keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from nightbatch.adapters.sources.query import WindowQuery
from nightbatch.core.parts import cut
from nightbatch.ports import Chunk

ROW_BYTES = 1_000
"""What a record of a query is taken for: how large it is, nobody knows before it is read."""


def quoted(name: str) -> str:
    """Write a column's name so that any is taken as it is."""
    return '"' + name.replace('"', '""') + '"'


def ends_query(query: WindowQuery, percentiles: str, most: int) -> WindowQuery:
    """
    Give the query that counts the rows and finds where sorted keys are cut into so many parts, as texts.

    `percentiles` is the warehouse's own way to do so, with places for `{key}` and `{shares}`.
    """
    shares = ", ".join(f"{number / most:.9f}" for number in range(1, most))
    ends = percentiles.format(key=quoted(_key_of(query)), shares=shares)
    return query.asking(f"count(*) AS nb_rows, {ends} AS nb_ends")


def key_ranges(query: WindowQuery, answer: Iterable[Chunk], *, least_bytes: int) -> list[dict[str, Any]]:
    """
    Cut a query where the answer to its `ends_query` says, in ranges of about as many rows each; small ones are merged.

    Each key is in one range, and rows without a key are in the first one.
    """
    [(rows, ends)] = [row for chunk in answer for row in chunk.rows]
    cuts = ends or ()
    count = len(cuts) + 1
    pieces = cut([rows * ROW_BYTES // count] * count, most=count, least=least_bytes)
    chosen = dict.fromkeys(cuts[piece.stop - 1] for piece in pieces[:-1])
    return [{"key": _key_of(query), "from": start, "until": end} for start, end in pairwise([None, *chosen, None])]


def key_range(query: WindowQuery, part: Mapping[str, Any]) -> WindowQuery:
    """Give the query of one of the ranges; its ends are bound, never pasted."""
    key, first = quoted(part["key"]), len(query.query.mentions) + 1
    ends = [(sign, part[name]) for sign, name in ((">=", "from"), ("<", "until")) if part[name] is not None]
    test = " AND ".join(f"{key} {sign} ${first + number}" for number, (sign, _) in enumerate(ends)) or "TRUE"
    if part["from"] is None:
        test = f"({test}) OR {key} IS NULL"
    return replace(query.part(test), bounds=tuple(end for _, end in ends))


def _key_of(query: WindowQuery) -> str:
    return (query.columns or ("",))[0]

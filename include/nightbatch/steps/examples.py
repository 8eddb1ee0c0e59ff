"""For a person who decides about a run: a few of the answers that a closed quality gate is about, from the staging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from nightbatch.core.profile import WHOLE, path_of, values_at, word_of
from nightbatch.core.quality import Breach
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.ports import Gate, Ledger, Shard, Store

from .parquet import read_rows

MOST = 20
"""How many examples are shown at most."""
_COLUMNS = ("key", "kind", "reason", "detail", "answer")


@dataclass(frozen=True)
class Example:
    """One row that a breach is about. `key` and `answer` are data: for the eyes of whoever may see these, no log."""

    what: str
    shard: str
    key: str
    verdict: str
    detail: str
    answer: str


def examples(ledger: Ledger, store: Store, gate: Gate, *, most: int = MOST) -> Iterator[Example]:
    """
    Give rows that each breach of a gate is about, as many of each as of the others, those not loaded first.

    Streams the verdicts, and stops as soon as it has enough. Raises FileNotFoundError where the staging is gone.
    """
    found = {breach.what: breach for breach in map(_breach, gate.facts.get("differences", ()))}
    shards = [one for one in ledger.shards(gate.run) if one.state in (ShardState.COLLECTED, ShardState.LOADED)]
    shards.sort(key=lambda one: one.state is ShardState.LOADED)
    for breach in list(found.values())[:most]:
        yield from _of(store, breach, shards, most=max(most // len(found), 1))


def _breach(facts: Mapping[str, Any]) -> Breach:
    return Breach.from_json({name: value for name, value in facts.items() if name != "place"})


def _of(store: Store, breach: Breach, shards: Sequence[Shard], *, most: int) -> Iterator[Example]:
    given = 0
    for shard in shards:
        for key, kind, reason, detail, answer in read_rows(store, shard.verdicts_name, _COLUMNS):
            if _shows(breach, kind, reason, answer):
                verdict = f"{kind}:{reason}" if reason else kind
                yield Example(breach.what, shard.plan.ref.name, key, verdict, detail, answer or "")
                given += 1
            if given >= most:
                return


def _shows(breach: Breach, kind: str, reason: str, answer: str | None) -> bool:
    if breach.kind == "reason":
        return reason == breach.name or (breach.name == "dead" and kind == VerdictKind.DEAD)
    if kind != VerdictKind.GOOD or answer is None:
        return False
    values = _values(breach.name, answer)
    if breach.kind == "value":
        return any(word_of(value) == breach.value for value in values)
    return not all(breach.band.holds(value) for value in values)


def _values(name: str, answer: str) -> list[Any]:
    """Find a field in an answer's text, inside an array as often as there are items; free text is its own value."""
    try:
        value = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return [answer]
    if name == WHOLE and not (isinstance(value, dict) and WHOLE in value):
        return [answer]
    return values_at(path_of(name), value)

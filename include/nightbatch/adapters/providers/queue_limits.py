"""What may wait in a vendor's queue: the vendor's defaults, and what `queue` in a connection's extra says instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nightbatch.core.queue import Kind, Limit, QueueRules
from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection

WORDS = {
    "tokens": Kind.TOKENS,
    "requests": Kind.ROWS,
    "batches": Kind.BATCHES,
    "creations_per_hour": Kind.CREATIONS,
}
"""What people write, and what it limits."""

Numbers = int | Mapping[str, int] | None
"""A limit for all models together, or one for each model or pattern named; None for no limit."""


def queue_rules(
    connection: Connection, defaults: Mapping[str, Numbers], *, full_by: Kind, full_by_model: bool
) -> QueueRules:
    """
    Read `{"tokens": {"gpt-5-mini": 2000000}, "requests": 100000, "batches": 100, "creations_per_hour": 2000}`.

    Each word replaces the vendor's default as a whole. Raises ConnectionInvalid.
    """
    said = connection.extra.get("queue") or {}
    if not isinstance(said, dict) or said.keys() - WORDS.keys():
        raise _invalid(connection, f"queue takes {', '.join(WORDS)}")
    chosen = {**defaults, **said}
    limits = [limit for word, numbers in chosen.items() for limit in _limits(connection, word, numbers)]
    return QueueRules(tuple(limits), full_by, full_by_model)


def _limits(connection: Connection, word: str, numbers: Any) -> Iterator[Limit]:
    named = numbers if isinstance(numbers, Mapping) else {"": numbers}
    for models, most in named.items():
        if most is None:
            continue
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            place = f"queue.{word}.{models}" if models else f"queue.{word}"
            raise _invalid(connection, f"{place} is {most!r}, and no number above 0")
        yield Limit(WORDS[word], most, models)


def _invalid(connection: Connection, problem: str) -> ConnectionInvalid:
    remedy = (
        'Write its extra like {"queue": {"tokens": {"gpt-5-mini": 2000000}, "requests": 100000, "batches": 100, '
        '"creations_per_hour": 2000}}; null is no limit'
    )
    return ConnectionInvalid(connection.conn_id, problem=problem, remedy=remedy)

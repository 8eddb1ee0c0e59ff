"""Turns the JSON Schema of an answer into typed columns; `typed.py` fills them.

The contract, with every mapping rule, is `docs/table-sinks.md`; a test compares it with this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from nightbatch.adapters.sql_names import column_names, free_name

WHOLE = "answer"
"""The one column of an answer that is free text, or whose schema is not of an object with properties."""

_MAX_REFS = 20


class Kind(StrEnum):
    """What a column holds; each sink has one type of its own for each kind."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    DECIMAL = "decimal"
    JSON = "json"


ARROW_TYPES: dict[Kind, pa.DataType] = {
    Kind.TEXT: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.NUMBER: pa.float64(),
    Kind.BOOLEAN: pa.bool_(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.DATE: pa.date32(),
    Kind.DECIMAL: pa.decimal128(18, 9),
    Kind.JSON: pa.string(),
}

BOOKKEEPING: dict[str, Kind] = {
    "nb_answer": Kind.JSON,
    "nb_fingerprint": Kind.TEXT,
    "nb_provider": Kind.TEXT,
    "nb_model": Kind.TEXT,
    "nb_prompt_version": Kind.TEXT,
    "nb_round": Kind.INTEGER,
    "nb_custom_id": Kind.TEXT,
    "nb_duplicate_of": Kind.TEXT,
    "nb_input_tokens": Kind.INTEGER,
    "nb_output_tokens": Kind.INTEGER,
    "nb_cached_tokens": Kind.INTEGER,
    "nb_cost_usd": Kind.DECIMAL,
    "nb_window_start": Kind.TIMESTAMP,
    "nb_window_end": Kind.TIMESTAMP,
    "nb_generation": Kind.INTEGER,
    "nb_run": Kind.TEXT,
    "nb_job": Kind.TEXT,
}
"""The columns behind the answer's, in order."""


@dataclass(frozen=True)
class AnswerColumn:
    """One column of the answer. Every one may be null: also where the value does not fit into the column."""

    name: str
    kind: Kind
    field: str | None
    """The answer's field, as the schema spells it; None where the column holds the whole answer."""


def answer_columns(schema: Mapping[str, Any] | None, *, key_column: str = "") -> tuple[AnswerColumn, ...]:
    """
    Give the typed columns of an answer, in the order of the schema's properties.

    Names and types rest on the set of properties only, not on their order. A name that would collide with
    `key_column` or with bookkeeping is prefixed `answer_`. `schema` None means free text.
    """
    if schema is None:
        return (AnswerColumn(free_name(WHOLE, key_column), Kind.TEXT, None),)
    root = _resolve(schema, schema)
    fields = root.get("properties") if root.get("type", "object") == "object" else None
    if not isinstance(fields, Mapping) or not fields:
        return (AnswerColumn(free_name(WHOLE, key_column), Kind.JSON, None),)
    names = column_names(fields, key_column)
    return tuple(AnswerColumn(names[field], kind_of(part, schema), field) for field, part in fields.items())


def sink_schema(columns: Sequence[AnswerColumn], *, key_column: str) -> pa.Schema:
    """Give the Arrow schema of what `typed_batch` makes."""
    kinds = {key_column: Kind.TEXT} | {column.name: column.kind for column in columns} | BOOKKEEPING
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])


# --- from schema to kind ----------------------------------------------------------------------------------------


def kind_of(part: Any, root: Mapping[str, Any]) -> Kind:
    """Say which kind of column holds the values of a part of a schema; JSON where no single kind does."""
    kinds = set(_kinds(part, root, _MAX_REFS))
    if len(kinds) > 1 and kinds <= {Kind.INTEGER, Kind.NUMBER}:
        return Kind.NUMBER
    if len(kinds) > 1 and kinds <= {Kind.TEXT, Kind.DATE, Kind.TIMESTAMP}:
        return Kind.TEXT
    return kinds.pop() if len(kinds) == 1 else Kind.JSON


def _kinds(part: Any, root: Mapping[str, Any], depth: int) -> Iterator[Kind]:
    """Give the kind of every alternative but null."""
    part = _resolve(part, root)
    if not isinstance(part, Mapping) or depth == 0:
        yield Kind.JSON
    elif "enum" in part or "const" in part:
        values = part.get("enum", [part.get("const")])
        yield from (_kind_of_value(value) for value in values if value is not None)
    elif alternatives := part.get("anyOf") or part.get("oneOf"):
        for alternative in alternatives:
            yield from _kinds(alternative, root, depth - 1)
    elif "type" in part:
        names = [part["type"]] if isinstance(part["type"], str) else part["type"]
        yield from (_kind_of_type(name, part) for name in names if name != "null")
    elif isinstance(part.get("allOf"), list) and len(part["allOf"]) == 1:
        yield from _kinds(part["allOf"][0], root, depth - 1)
    else:
        yield Kind.JSON


def _kind_of_type(name: str, part: Mapping[str, Any]) -> Kind:
    if name == "string":
        return {"date-time": Kind.TIMESTAMP, "date": Kind.DATE}.get(str(part.get("format")), Kind.TEXT)
    return {"integer": Kind.INTEGER, "number": Kind.NUMBER, "boolean": Kind.BOOLEAN}.get(name, Kind.JSON)


def _kind_of_value(value: Any) -> Kind:
    # By exact type, because True is an int to Python and not to JSON Schema.
    return {str: Kind.TEXT, bool: Kind.BOOLEAN, int: Kind.INTEGER, float: Kind.NUMBER}.get(type(value), Kind.JSON)


def _resolve(part: Any, root: Mapping[str, Any]) -> Any:
    """Follow `$ref` within the schema; what cannot be followed is anything."""
    for _ in range(_MAX_REFS):
        if not isinstance(part, Mapping) or "$ref" not in part:
            return part
        target: Any = root
        for step in str(part["$ref"]).removeprefix("#").split("/")[1:]:
            target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
        part = target
    return None

"""Turns the JSON Schema of an answer into typed columns, and answers into record batches with these columns.

The contract, with every mapping rule, is `docs/table-sinks.md`; a test compares it with this module.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from nightbatch.adapters.sql_names import OURS, column_names, free_name
from nightbatch.core.arrow import text_array
from nightbatch.ports import SinkContext

WHOLE = "answer"
"""The one column of an answer that is free text, or whose schema is not of an object with properties."""

INT64 = range(-(2**63), 2**63)

_MAX_REFS = 20
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


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


def typed_batch(
    batch: pa.RecordBatch, columns: Sequence[AnswerColumn], context: SinkContext, *, key_column: str
) -> pa.RecordBatch:
    """
    Turn a batch of `ANSWER_SCHEMA` into one with typed answer columns and bookkeeping; no row is left out.

    A value that does not fit its column becomes null there and stays in `nb_answer`. `nb_answer` is null where
    one column holds the whole answer. Pure.
    """
    answers: list[str | None] = batch.column("answer").to_pylist()
    whole = columns[0].field is None
    given = dict(zip([column.name for column in columns], _answer_texts(answers, columns), strict=True))
    given["nb_answer"] = [None] * len(answers) if whole else [_as_json(answer) for answer in answers]
    constants = context_texts(context)
    arrays = []
    schema = sink_schema(columns, key_column=key_column)
    for field in schema:
        if field.name in given:
            arrays.append(text_array(given[field.name], field.type))
        elif field.name in constants:
            arrays.append(constant(constants[field.name], len(answers), field.type))
        else:
            source = "key" if field.name == key_column else field.name.removeprefix(OURS)
            arrays.append(pc.cast(batch.column(source), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


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


# --- from answers to arrays -------------------------------------------------------------------------------------

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()


def _answer_texts(answers: list[str | None], columns: Sequence[AnswerColumn]) -> list[list[str | None]]:
    """Give each column's values as texts that Arrow reads without loss; null for what does not fit."""
    if columns[0].field is None:
        return [answers if columns[0].kind is Kind.TEXT else [_as_json(answer) for answer in answers]]
    parsed = [_fields_of(answer) for answer in answers]
    return [[_text(row.get(column.field or ""), column.kind) for row in parsed] for column in columns]


def _fields_of(answer: str | None) -> dict[str, msgspec.Raw]:
    try:
        return _FIELDS.decode(answer or "")
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return {}


def _as_json(answer: str | None) -> str | None:
    """Give the answer as it is where it is JSON, else as a JSON string, so that the column always holds JSON."""
    if answer is None:
        return None
    try:
        msgspec.json.decode(answer, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return msgspec.json.encode(answer).decode()
    return answer


def _text(raw: msgspec.Raw | None, kind: Kind) -> str | None:
    if raw is None or bytes(raw) == b"null":
        return None
    if kind is Kind.JSON:
        return bytes(raw).decode()
    try:
        return _TEXTS[kind](_VALUE.decode(raw))
    except (msgspec.MsgspecError, ValueError, OverflowError):
        return None


def _integer_text(value: Any) -> str | None:
    # 3.0 is an integer to JSON Schema.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int and value in INT64 else None


def _number_text(value: Any) -> str | None:
    number = float(value) if type(value) in (int, float) else math.nan
    return repr(number) if math.isfinite(number) else None


def _timestamp_text(value: Any) -> str | None:
    """Read RFC 3339 only: a time without an offset names no instant."""
    if not isinstance(value, str) or not _DATE_TIME.fullmatch(value.upper()):
        return None
    return datetime.fromisoformat(value.upper()).astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _date_text(value: Any) -> str | None:
    return date.fromisoformat(value).isoformat() if isinstance(value, str) and _DATE.fullmatch(value) else None


_TEXTS: dict[Kind, Callable[[Any], str | None]] = {
    Kind.TEXT: lambda value: value if isinstance(value, str) else None,
    Kind.INTEGER: _integer_text,
    Kind.NUMBER: _number_text,
    Kind.BOOLEAN: lambda value: {True: "true", False: "false"}[value] if isinstance(value, bool) else None,
    Kind.TIMESTAMP: _timestamp_text,
    Kind.DATE: _date_text,
}


def context_texts(context: SinkContext) -> dict[str, str]:
    """Give the bookkeeping that is the same for every row of a load, as texts that Arrow reads."""
    return {
        "nb_window_start": context.window.start.isoformat(),
        "nb_window_end": context.window.end.isoformat(),
        "nb_generation": str(context.generation),
        "nb_run": context.run,
        "nb_job": context.job,
    }


def constant(text: str, count: int, type_: pa.DataType) -> pa.Array:
    """Give an array of one value."""
    return text_array([text] * count, type_)

"""Turns answers into record batches with the columns of a sink; what does not fit into a column is null there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import is_
from typing import Any

import msgspec
import pyarrow as pa

from nightbatch.adapters.sinks.columns import AnswerColumn, Kind, sink_schema
from nightbatch.adapters.sql_names import OURS
from nightbatch.core.arrow import constant_array, text_array
from nightbatch.ports import SinkContext

_INT64 = range(-(2**63), 2**63)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


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
    as_json = [None] * len(answers) if whole else [_as_json(answer) for answer in answers]
    # As a rule every answer is JSON as it is, and then the column is there already.
    is_same = all(map(is_, as_json, answers))
    constants = context_texts(context)
    arrays = []
    schema = sink_schema(columns, key_column=key_column)
    for field in schema:
        if field.name == "nb_answer":
            arrays.append((batch.column("answer") if is_same else text_array(as_json)).cast(field.type))
        elif field.name in given:
            arrays.append(text_array(given[field.name], field.type))
        elif field.name in constants:
            arrays.append(constant_array(constants[field.name], field.type, count=len(answers)))
        else:
            source = "key" if field.name == key_column else field.name.removeprefix(OURS)
            arrays.append(batch.column(source).cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# --- from answers to arrays -------------------------------------------------------------------------------------

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_UNNAMEABLE = re.compile(r'[\x00-\x1f"\\]')
"""What msgspec takes in no name of a field."""


def _answer_texts(answers: list[str | None], columns: Sequence[AnswerColumn]) -> list[list[str | None]]:
    """Give each column's values as texts that Arrow reads without loss; null for what does not fit."""
    if columns[0].field is None:
        return [answers if columns[0].kind is Kind.TEXT else [_as_json(answer) for answer in answers]]
    decoder = _decoder_of(tuple(columns))
    rows = [_values_of(answer, decoder, columns) for answer in answers]
    return [
        _texts(values, column.kind)
        for column, values in zip(columns, zip(*rows, strict=True) if rows else [()] * len(columns), strict=True)
    ]


@lru_cache
def _decoder_of(columns: tuple[AnswerColumn, ...]) -> msgspec.json.Decoder[Any] | None:
    """Give what decodes an answer's fields at once; None for names that cannot be said so."""
    if any(_UNNAMEABLE.search(column.field or "") for column in columns):
        return None
    kinds = [(f"c{at}", msgspec.Raw if column.kind is Kind.JSON else Any, None) for at, column in enumerate(columns)]
    names = {f"c{at}": column.field or "" for at, column in enumerate(columns)}
    return msgspec.json.Decoder(msgspec.defstruct("Answer", kinds, rename=names, gc=False))


def _values_of(
    answer: str | None, decoder: msgspec.json.Decoder[Any] | None, columns: Sequence[AnswerColumn]
) -> tuple[Any, ...]:
    """Give an answer's values, those of JSON columns as they are written; None for what is absent or no JSON."""
    try:
        if decoder is not None:
            return msgspec.structs.astuple(decoder.decode(answer or ""))
    except (msgspec.MsgspecError, UnicodeEncodeError):
        pass  # one value may be no JSON, or the whole no object: then field by field
    fields = _fields_of(answer)
    return tuple(_value(fields.get(column.field or ""), column.kind) for column in columns)


def _value(raw: msgspec.Raw | None, kind: Kind) -> Any:
    try:
        return raw if raw is None or kind is Kind.JSON else _VALUE.decode(raw)
    except msgspec.MsgspecError:
        return None


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


def _texts(values: Sequence[Any], kind: Kind) -> list[str | None]:
    if kind is Kind.TEXT:  # the usual one, and nothing is made of it
        return [value if isinstance(value, str) else None for value in values]
    return [_text(value, kind) for value in values]


def _text(value: Any, kind: Kind) -> str | None:
    if value is None:
        return None
    if kind is Kind.JSON:
        text = bytes(value).decode()
        return None if text == "null" else text
    try:
        return _TEXTS[kind](value)
    except (ValueError, OverflowError):
        return None


def _integer_text(value: Any) -> str | None:
    # 3.0 is an integer to JSON Schema.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int and value in _INT64 else None


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

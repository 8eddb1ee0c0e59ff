"""A schema becomes columns, and answers become rows: no row is left out, whatever the answer holds."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.sinks import typed
from nightbatch.adapters.sinks.columns import (
    BOOKKEEPING,
    AnswerColumn,
    Kind,
    answer_columns,
    sink_schema,
)
from nightbatch.adapters.sinks.typed import typed_batch
from nightbatch.core.window import Window
from nightbatch.ports import ANSWER_SCHEMA, SinkContext

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
CONTEXT = SinkContext("reviews", "reviews/w/g2", Window(MIDNIGHT, MIDNIGHT + timedelta(days=1)), 2)


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def batch_of(*answers: str | None) -> pa.RecordBatch:
    rows = [{"key": f"k{number}", "answer": answer} for number, answer in enumerate(answers)]
    return pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)


def rows_of(schema: Any, *answers: str | None) -> list[dict[str, Any]]:
    batch = typed_batch(batch_of(*answers), answer_columns(schema, key_column="id"), CONTEXT, key_column="id")
    return batch.to_pylist()


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "string"}, Kind.TEXT),
        ({"type": "string", "enum": ["a", "b"]}, Kind.TEXT),
        ({"enum": ["a", "b", None]}, Kind.TEXT),
        ({"const": "a"}, Kind.TEXT),
        ({"enum": [1, 2]}, Kind.INTEGER),
        ({"enum": [True]}, Kind.BOOLEAN),
        ({"enum": ["a", 1]}, Kind.JSON),
        ({"type": "string", "format": "date-time"}, Kind.TIMESTAMP),
        ({"type": "string", "format": "date"}, Kind.DATE),
        ({"type": "string", "format": "email"}, Kind.TEXT),
        ({"type": "integer"}, Kind.INTEGER),
        ({"type": "number"}, Kind.NUMBER),
        ({"type": "boolean"}, Kind.BOOLEAN),
        ({"type": ["integer", "null"]}, Kind.INTEGER),
        ({"type": ["integer", "number"]}, Kind.NUMBER),
        ({"type": ["integer", "string"]}, Kind.JSON),
        ({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, Kind.DATE),
        ({"anyOf": [{"type": "string", "format": "date"}, {"type": "string"}]}, Kind.TEXT),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, Kind.JSON),
        ({"allOf": [{"$ref": "#/$defs/Mood"}]}, Kind.TEXT),
        ({"$ref": "#/$defs/Mood"}, Kind.TEXT),
        ({"$ref": "#/$defs/Loop"}, Kind.JSON),
        ({"$ref": "#/$defs/Absent"}, Kind.JSON),
        ({"type": "array", "items": {"type": "string"}}, Kind.JSON),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, Kind.JSON),
        ({"type": "null"}, Kind.JSON),
        ({}, Kind.JSON),
        (True, Kind.JSON),
    ],
)
def test_a_field_gets_the_kind_that_its_schema_says(part: Any, kind: Kind) -> None:
    schema = object_of(field=part) | {
        "$defs": {"Mood": {"enum": ["good", "bad"], "type": "string"}, "Loop": {"$ref": "#/$defs/Loop"}}
    }

    assert answer_columns(schema) == (AnswerColumn("field", kind, "field"),)


def test_a_schema_without_fields_gives_one_column() -> None:
    assert answer_columns(None) == (AnswerColumn("answer", Kind.TEXT, None),)
    assert answer_columns({"type": "array"}) == (AnswerColumn("answer", Kind.JSON, None),)
    assert answer_columns({"type": "object"}) == (AnswerColumn("answer", Kind.JSON, None),)
    assert answer_columns(None, key_column="answer") == (AnswerColumn("answer_answer", Kind.TEXT, None),)


def test_a_schema_that_is_a_reference_is_followed() -> None:
    schema = {"$ref": "#/$defs/Answer", "$defs": {"Answer": object_of(mood={"type": "string"})}}

    assert answer_columns(schema) == (AnswerColumn("mood", Kind.TEXT, "mood"),)


def names_of(*fields: str, key_column: str = "id") -> dict[str, str]:
    columns = answer_columns(object_of(**{field: {"type": "string"} for field in fields}), key_column=key_column)
    return {str(column.field): column.name for column in columns}


def test_names_that_need_no_change_keep_theirs_and_others_are_normalised() -> None:
    assert names_of("sentiment", "Main Topic", "2nd", "größe", "") == {
        "sentiment": "sentiment",
        "Main Topic": "main_topic",
        "2nd": "_2nd",
        "größe": "größe",
        "": "_",
    }


def test_names_of_the_key_of_bookkeeping_and_of_the_database_get_a_prefix() -> None:
    assert names_of("ID", "nb_run", "NB_new", "xmin", key_column="Id") == {
        "ID": "answer_id",
        "nb_run": "answer_nb_run",
        "NB_new": "answer_nb_new",
        "xmin": "answer_xmin",
    }


def test_of_fields_that_collide_the_one_that_needs_no_change_keeps_its_name() -> None:
    assert names_of("main-topic", "main_topic", "Main_Topic") == {
        "main-topic": "main_topic_8831a0",
        "main_topic": "main_topic",
        "Main_Topic": "main_topic_2cf587",
    }


awkward = st.sampled_from(["id", "ID", "nb_x", "answer_id", "a b", "a-b", "a_b"])
fields = st.lists(st.text(max_size=80) | awkward, unique=True, min_size=1)


@given(fields, st.sampled_from(["id", "key", "answer"]), st.randoms(use_true_random=False))
def test_names_are_distinct_short_and_independent_of_order(names: list[str], key: str, shuffle: Any) -> None:
    found = names_of(*names, key_column=key)
    shuffled = names.copy()
    shuffle.shuffle(shuffled)

    assert names_of(*shuffled, key_column=key) == found
    taken = [*found.values(), key, *BOOKKEEPING]
    assert len({name.lower() for name in taken}) == len(taken)
    assert all(0 < len(name.encode()) <= 63 for name in found.values())


def test_a_row_carries_its_values_and_its_bookkeeping() -> None:
    schema = object_of(
        mood={"type": "string"},
        count={"type": "integer"},
        share={"type": "number"},
        ok={"type": "boolean"},
        at={"type": "string", "format": "date-time"},
        day={"type": "string", "format": "date"},
        tags={"type": "array"},
    )
    answer = json.dumps(
        {
            "mood": "good\x00!",
            "count": 3.0,
            "share": 1,
            "ok": True,
            "at": "2026-01-02T03:04:05.1+02:00",
            "day": "2026-02-28",
            "tags": [1, {"a": 2**70}],
        }
    )
    row = {
        "key": "k",
        "fingerprint": "f",
        "answer": answer,
        "provider": "openai",
        "model": "m",
        "prompt_version": "p",
        "round": 1,
        "custom_id": "c",
        "duplicate_of": "d",
        "input_tokens": 1,
        "output_tokens": 2,
        "cached_tokens": 3,
        "cost_usd": Decimal("0.000000001"),
    }
    batch = typed_batch(
        pa.RecordBatch.from_pylist([row], schema=ANSWER_SCHEMA),
        answer_columns(schema, key_column="Review"),
        CONTEXT,
        key_column="Review",
    )

    assert batch.to_pylist() == [
        {
            "Review": "k",
            "mood": "good\x00!",
            "count": 3,
            "share": 1.0,
            "ok": True,
            "at": datetime(2026, 1, 2, 1, 4, 5, 100000, tzinfo=UTC),
            "day": date(2026, 2, 28),
            "tags": '[1, {"a": 1180591620717411303424}]',
            "nb_answer": answer,
            "nb_fingerprint": "f",
            "nb_provider": "openai",
            "nb_model": "m",
            "nb_prompt_version": "p",
            "nb_round": 1,
            "nb_custom_id": "c",
            "nb_duplicate_of": "d",
            "nb_input_tokens": 1,
            "nb_output_tokens": 2,
            "nb_cached_tokens": 3,
            "nb_cost_usd": Decimal("0.000000001"),
            "nb_window_start": MIDNIGHT,
            "nb_window_end": MIDNIGHT + timedelta(days=1),
            "nb_generation": 2,
            "nb_run": "reviews/w/g2",
            "nb_job": "reviews",
        }
    ]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "integer"}, "9223372036854775808"),
        ({"type": "integer"}, "1e300"),
        ({"type": "number"}, "1e400"),
        ({"type": "string", "format": "date"}, '"2026-02-30"'),
        ({"type": "string", "format": "date"}, '"2026-W01-1"'),
        ({"type": "string", "format": "date-time"}, '"2026-01-02T03:04:05"'),
        ({"type": "string", "format": "date-time"}, '"0001-01-01T00:00:00+14:00"'),
        ({"type": "string", "format": "date-time"}, '"2016-12-31T23:59:60Z"'),
        ({"type": "boolean"}, '"yes"'),
        ({"type": "string"}, "7"),
    ],
)
def test_a_value_that_does_not_fit_is_null_and_stays_in_the_whole_answer(part: Any, value: str) -> None:
    answer = f'{{"field": {value}}}'

    (row,) = rows_of(object_of(field=part), answer)

    assert (row["field"], row["nb_answer"]) == (None, answer)


@pytest.mark.parametrize("value", ["9223372036854775807", "-9223372036854775808", "1e18"])
def test_integers_up_to_the_last_one_fit(value: str) -> None:
    (row,) = rows_of(object_of(field={"type": "integer"}), f'{{"field": {value}}}')

    assert row["field"] == int(float(value)) if "e" in value else int(value)


def test_free_text_is_kept_once_and_as_it_is() -> None:
    assert [(row["answer"], row["nb_answer"]) for row in rows_of(None, 'He said "no".\n', "7")] == [
        ('He said "no".\n', None),
        ("7", None),
    ]


def test_an_answer_that_is_no_json_is_kept_as_a_json_string() -> None:
    schema = object_of(field={"type": "string"})

    assert [row["nb_answer"] for row in rows_of(schema, "no\njson", "NaN", '{"a":', '"\\ud800"')] == [
        '"no\\njson"',
        '"NaN"',
        '"{\\"a\\":"',
        '"\\"\\\\ud800\\""',
    ]
    assert [row["answer"] for row in rows_of({"type": "array"}, "[1]", "oops")] == ["[1]", '"oops"']


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
any_part = st.sampled_from(
    [{"type": name} for name in ("string", "integer", "number", "boolean", "array", "object")]
    + [{"type": "string", "format": name} for name in ("date", "date-time")]
    + [{"type": ["integer", "null"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, {}]
)


objects = st.dictionaries(st.text(max_size=8), json_values)


@given(
    st.dictionaries(st.text(max_size=8), any_part, max_size=4),
    st.lists(st.text() | (json_values | objects).map(json.dumps), max_size=5),
)
def test_no_answer_loses_its_row_or_its_text(properties: dict[str, Any], answers: list[str]) -> None:
    columns = answer_columns(object_of(**properties), key_column="id")
    whole = "nb_answer" if columns[0].field is not None else columns[0].name

    batch = typed_batch(batch_of(*answers), columns, CONTEXT, key_column="id")

    assert batch.schema == sink_schema(columns, key_column="id")
    kept = batch.column(whole).to_pylist()
    for answer, text in zip(answers, kept, strict=True):
        assert text == answer or json.loads(text) == answer


def test_typing_answers_does_not_import_pandas() -> None:
    script = """
import sys, datetime, pyarrow as pa
from nightbatch.adapters.sinks.columns import answer_columns
from nightbatch.adapters.sinks import typed
from nightbatch.adapters.sinks.typed import typed_batch
from nightbatch.adapters.sinks.postgres_copy import copy_lines
from nightbatch.adapters.sinks.columns import BOOKKEEPING, Kind
from nightbatch.core.window import Window
from nightbatch.ports import ANSWER_SCHEMA, SinkContext
batch = pa.RecordBatch.from_arrays([pa.nulls(3, field.type) for field in ANSWER_SCHEMA], schema=ANSWER_SCHEMA)
day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
context = SinkContext("j", "r", Window(day, day + datetime.timedelta(1)), 1)
rows = typed_batch(batch, answer_columns(None), context, key_column="id")
copy_lines(rows, [Kind.TEXT, Kind.TEXT, *BOOKKEEPING.values()])
print("pandas" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


FIELDS = object_of(
    a={"type": "string"}, b={"type": "array"}, c={"type": "number"}, d={"type": "string", "format": "date"}
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["2026-11-21", "NaN"])
broken = st.sampled_from(
    ['{"a": "\\ud800", "c": 1}', '{"a": 1, "a": "x", "b": 2}', "[1]", "", '{"c": 1e999, "a": "x"}', "{"]
)


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), scalars | st.lists(scalars)).map(json.dumps) | broken))
def test_answers_that_are_decoded_at_once_are_those_that_are_decoded_field_by_field(answers: list[str]) -> None:
    columns = answer_columns(FIELDS)

    at_once = [typed._values_of(answer, typed._decoder_of(columns), columns) for answer in answers]
    one_by_one = [typed._values_of(answer, None, columns) for answer in answers]

    assert [list(map(repr, row)) for row in map(readable, at_once)] == [
        list(map(repr, row)) for row in map(readable, one_by_one)
    ]


def readable(row: tuple[Any, ...]) -> list[Any]:
    return [bytes(value) if isinstance(value, msgspec.Raw) else value for value in row]

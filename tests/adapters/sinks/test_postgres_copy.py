"""Lines of COPY, made of whole columns, are those that one would write value by value."""

from datetime import UTC, datetime

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.sinks.columns import ARROW_TYPES, Kind
from nightbatch.adapters.sinks.postgres_copy import copy_lines, jsonb_text

KINDS = (Kind.TEXT, Kind.JSON, Kind.TIMESTAMP, Kind.INTEGER)
texts = st.none() | st.text() | st.text(alphabet="a\\\t\n\r\x00ä€", max_size=8)
jsons = st.none() | st.sampled_from(['{"a": "\\u0000\\t"}', "[1]", '"\\\\"', "1e9999", "[" * 501 + "]" * 501])
instants = st.none() | st.sampled_from(
    [datetime(2026, 3, 10, tzinfo=UTC), datetime(1969, 1, 1, 0, 0, 0, 5, tzinfo=UTC)]
)
rows_of = st.lists(st.tuples(texts, jsons, instants, st.none() | st.integers(-9, 9)), max_size=12)


def escaped(text: str) -> str:
    for plain, escape in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escape)
    return text


def field_of(value: object, kind: Kind) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%fZ}"
    if isinstance(value, str):
        return escaped(jsonb_text(value) if kind is Kind.JSON else value.replace("\x00", "\ufffd"))
    return str(value)


@given(rows_of, st.integers(0, 3), st.integers(0, 12))
def test_a_row_is_written_as_it_would_be_alone(rows: list[tuple[object, ...]], start: int, count: int) -> None:
    schema = pa.schema([(kind.name, ARROW_TYPES[kind]) for kind in KINDS])
    columns = list(zip(*rows, strict=True)) or [()] * len(KINDS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    part = pa.record_batch(arrays, schema=schema).slice(start, count)

    lines = copy_lines(part, KINDS).decode()

    expected = ("\t".join(map(field_of, row, KINDS)) for row in rows[start : start + count])
    assert lines == "".join(f"{line}\n" for line in expected)

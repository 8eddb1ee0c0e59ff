"""Frames become records: pandas, Arrow, and what speaks Arrow's stream interface."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from nightbatch.adapters.sources.frames import FrameSource
from nightbatch.core.window import Window
from nightbatch.errors import BadSource

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))


class Streamed:
    """Any library's table, seen only through Arrow's C interface."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def columns(count: int = 1203) -> dict[str, list[Any]]:
    return {"id": [str(number) for number in range(count)], "n": [None if i % 7 == 0 else i for i in range(count)]}


def frames() -> dict[str, Any]:
    table = pa.table(columns())
    pandas = pd.DataFrame({"id": columns()["id"], "n": pd.array(columns()["n"], dtype="Int64")})
    return {
        "arrow": table,
        "batch": table.combine_chunks().to_batches()[0],
        "stream": Streamed(table),
        "pandas": pandas,
    }


@pytest.mark.parametrize("kind", ["arrow", "batch", "stream", "pandas"])
def test_a_frame_gives_its_rows_in_order(kind: str) -> None:
    source = FrameSource(frames()[kind], columns=["n", "id"], name="reviews")
    chunks = list(source.read(DAY))

    assert source.identity == "frame://reviews"
    assert all(chunk.columns == ("n", "id") for chunk in chunks)
    assert [len(chunk.rows) for chunk in chunks] == [500, 500, 203]
    assert [row for chunk in chunks for row in chunk.rows] == [
        (n, key) for n, key in zip(columns()["n"], columns()["id"], strict=True)
    ]
    assert list(source.read(DAY)) == chunks


def test_what_pandas_calls_missing_is_none_and_the_index_is_left_out() -> None:
    frame = pd.DataFrame(
        {"x": [1.5, float("nan")], "t": [pd.Timestamp("2026-11-21", tz="UTC"), pd.NaT], "s": ["a", None]}, index=[7, 9]
    )
    (chunk,) = FrameSource(frame).read(DAY)

    assert chunk.columns == ("x", "t", "s")
    assert chunk.rows == [(1.5, MIDNIGHT, "a"), (None, None, None)]
    assert type(chunk.rows[0][1]) is datetime


def test_the_frame_that_was_handed_in_is_not_changed() -> None:
    frame = pd.DataFrame({1: ["a"], "b": ["c"]})
    (chunk,) = FrameSource(frame, columns=["1", "b"]).read(DAY)

    assert chunk.rows == [("a", "c")]
    assert list(frame.columns) == [1, "b"]


@pytest.mark.parametrize("kind", ["arrow", "pandas"])
def test_only_rows_of_the_window_are_given(kind: str) -> None:
    times = [MIDNIGHT + timedelta(hours=hours) for hours in (-1, 0, 23, 24)]
    data = {"id": [0, 1, 2, 3], "at": times}
    frame = pa.table(data) if kind == "arrow" else pd.DataFrame(data)
    (chunk,) = FrameSource(frame, columns=["id"], time_column="at").read(DAY)

    assert chunk.rows == [(1,), (2,)]


def test_an_empty_frame_gives_no_chunk() -> None:
    assert list(FrameSource(pd.DataFrame({"a": []})).read(DAY)) == []
    assert list(FrameSource(pa.table({"a": pa.nulls(0)})).read(DAY)) == []


@pytest.mark.parametrize(
    ("frame", "options", "problem"),
    [
        (pa.table({"a": [1]}), {"columns": ["b"]}, "it has no column b"),
        (pd.DataFrame({"a": []}), {"time_column": "at"}, "it has no column at"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, "it has the column 'a' more than once"),
        (pd.DataFrame({"a": [1, "x", {}]}), {}, "rows 0 to 2 do not fit columns of one type each"),
        ([1, 2], {}, "it is a list"),
        (pa.table({"at": [datetime(2026, 11, 21)]}), {"time_column": "at"}, "time without a zone"),  # noqa: DTZ001
    ],
)
def test_a_frame_that_is_not_what_was_said_is_told(frame: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSource, match=f"source frame: .*{problem}"):
        list(FrameSource(frame, **options).read(DAY))


def test_importing_the_module_imports_no_pandas() -> None:
    code = "import sys, nightbatch.adapters.sources.frames, nightbatch.adapters.memory; print('pandas' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

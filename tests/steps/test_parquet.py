"""Small Parquet files: what goes in comes out, in order, and a writer that dies leaves nothing."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.memory import MemoryStore
from nightbatch.steps.parquet import ROWS_AT_A_TIME, TEXTS_AT_A_TIME, read_batches, read_rows, row_writer, to_batch
from tests.steps.shards import UNHURRIED

SCHEMA = pa.schema([("key", pa.string()), ("sends", pa.int32())])
rows_of_any_kind = st.lists(st.tuples(st.none() | st.text(), st.none() | st.integers(-(2**31), 2**31 - 1)))


@UNHURRIED
@given(rows_of_any_kind)
def test_rows_come_back_as_they_were_written(rows) -> None:
    store = MemoryStore()
    with row_writer(store, "a.parquet", SCHEMA) as out:
        for row in rows:
            out.add(row)

    assert list(read_rows(store, "a.parquet", ("key", "sends"))) == rows
    assert list(read_rows(store, "a.parquet", ("sends",))) == [(sends,) for _, sends in rows]
    assert out.count == len(rows)
    assert out.sha256 == hashlib.sha256(store.files["a.parquet"]).hexdigest()


OF_ANY_TYPE = {
    pa.string(): st.text(),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.decimal128(18, 9): st.decimals(-(10**9) + 1, 10**9 - 1, places=9),
    pa.timestamp("us", tz="UTC"): st.datetimes(
        *map(datetime.fromisoformat, ("1700-01-01", "2200-01-01")), timezones=st.just(UTC)
    ),
}


@pytest.mark.parametrize("type_", OF_ANY_TYPE, ids=str)
def test_values_are_those_that_arrow_itself_would_read(type_: pa.DataType) -> None:
    @UNHURRIED
    @given(st.lists(st.none() | OF_ANY_TYPE[type_]))
    def hold(values: list[Any]) -> None:
        batch = to_batch([(value,) for value in values], pa.schema([("a", type_)]))

        assert batch.column(0) == pa.array(values, type_)

    hold()


def test_many_rows_are_read_a_few_at_a_time() -> None:
    store, count = MemoryStore(), 2 * ROWS_AT_A_TIME + 1
    with row_writer(store, "a.parquet", SCHEMA) as out:
        for number in range(count):
            out.add((str(number), number))

    sizes = [batch.num_rows for batch in read_batches(store, "a.parquet")]

    assert sum(sizes) == count
    assert max(sizes) <= ROWS_AT_A_TIME


def test_a_file_is_read_one_row_group_after_the_other() -> None:
    store, count = _Watched(), 20_000
    with row_writer(store, "a.parquet", SCHEMA, at_a_time=TEXTS_AT_A_TIME) as out:
        for number in range(count):
            out.add((secrets.token_hex(100), number))
    whole = store.size_bytes("a.parquet")

    batches = read_batches(store, "a.parquet")
    sizes = [next(batches).num_rows]
    begun = list(store.reads)
    sizes += [batch.num_rows for batch in batches]

    assert sizes == [TEXTS_AT_A_TIME] * (count // TEXTS_AT_A_TIME)
    assert sum(size for _, size in begun) < whole / 4
    assert sum(size for _, size in store.reads) > whole / 2  # they do go through here
    places = [place for place, _ in store.reads[len(begun) :]]
    assert places == sorted(places)  # a file in a bucket is fetched again where one goes back


class _Watched(MemoryStore):
    """Notes where files are read, and how many bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int]] = []

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        with _WatchedFile(self.read(name)) as file:
            file.reads = self.reads
            yield file


class _WatchedFile(BytesIO):
    reads: list[tuple[int, int]]

    def read(self, size: int | None = -1) -> bytes:
        place = self.tell()
        piece = super().read(size)
        self.reads.append((place, len(piece)))
        return piece


def test_rows_of_long_texts_are_written_in_smaller_groups() -> None:
    store = MemoryStore()
    with row_writer(store, "a.parquet", SCHEMA, at_a_time=2) as out:
        out.extend([(str(number), number) for number in range(3)])
        out.add(("3", 3))
        out.add(("4", 4))

    file = pq.ParquetFile(BytesIO(store.files["a.parquet"]))

    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [2, 2, 1]
    assert file.read().column(1).to_pylist() == [0, 1, 2, 3, 4]


def test_a_writer_that_dies_leaves_no_file() -> None:
    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt), row_writer(store, "a.parquet", SCHEMA) as out:
        out.add(("k", 1))
        raise KeyboardInterrupt

    assert store.files == {}


def test_no_rows_make_a_batch_too() -> None:
    assert to_batch([], SCHEMA).num_rows == 0

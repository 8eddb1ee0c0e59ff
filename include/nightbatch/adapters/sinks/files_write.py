"""Writes one part of a file sink, as Parquet or JSON Lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.columns import ARROW_TYPES, Kind
from nightbatch.adapters.sinks.table import DEAD_LETTERS
from nightbatch.adapters.sinks.typed import context_texts
from nightbatch.adapters.sql_names import OURS
from nightbatch.core.arrow import constant_array
from nightbatch.ports import SinkContext

_GROUP_ROWS = 20_000
_GROUP_BYTES = 32 << 20
"""A row group of a Parquet file is written when it has as many rows or bytes, whichever comes first."""


def dead_schema(key_column: str) -> pa.Schema:
    """Give the columns of a file of dead letters; the same as those of a table."""
    kinds = {key_column: Kind.TEXT} | DEAD_LETTERS
    return pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()])


def dead_batch(batch: pa.RecordBatch, context: SinkContext, *, key_column: str) -> pa.RecordBatch:
    """Turn a batch of `DEAD_SCHEMA` into rows of a file of dead letters."""
    constants = context_texts(context)
    schema = dead_schema(key_column)
    arrays = []
    for field in schema:
        if field.name in constants:
            arrays.append(constant_array(constants[field.name], field.type, count=batch.num_rows))
        else:
            source = "key" if field.name == key_column else field.name.removeprefix(OURS)
            arrays.append(batch.column(source).cast(field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_part(
    store: ObjectStore,
    name: str,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    *,
    json_columns: frozenset[str],
) -> int:
    """
    Write a part's file, and count its rows; no rows, no file.

    Args:
        store: Where to.
        name: The file; its extension says the format.
        batches: The rows; where reading them raises, no file appears.
        schema: The columns.
        json_columns: Columns whose text is JSON: values of their own in JSON Lines, text in Parquet.
    """
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return 0
    rows = chain([first], filled)
    with store.writer(name) as file:
        if name.endswith(".jsonl"):
            return _write_lines(file, rows, json_columns)
        return _write_parquet(file, rows, schema)


def _write_parquet(file: BinaryIO, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> int:
    import pyarrow.parquet as pq

    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group, schema))
            count += sum(batch.num_rows for batch in group)
    return count


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Gather small batches, because each write makes a row group."""
    group: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        group.append(batch)
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
        if rows >= _GROUP_ROWS or size_bytes >= _GROUP_BYTES:
            yield group
            group, rows, size_bytes = [], 0, 0
    if group:
        yield group


def _write_lines(file: BinaryIO, batches: Iterable[pa.RecordBatch], json_columns: frozenset[str]) -> int:
    encoder = msgspec.json.Encoder(decimal_format="number")  # exact digits, where a float would round money
    count = 0
    for batch in batches:
        names = batch.schema.names
        values = [_values(batch, name, name in json_columns) for name in names]
        file.write(encoder.encode_lines([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]))
        count += batch.num_rows
    return count


def _values(batch: pa.RecordBatch, name: str, is_json: bool) -> list[Any]:
    values: list[Any] = batch.column(name).to_pylist()
    if not is_json:
        return values
    return [None if value is None else msgspec.Raw(value.encode()) for value in values]

"""Writes one part of a file sink, as Parquet or JSON Lines, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.ports import DEAD_SCHEMA, SinkContext

_GROUP_ROWS = 20_000
_GROUP_BYTES = 32 << 20
"""A row group of a Parquet file is written when it has as many rows or bytes, whichever comes first."""

_CONTEXT_FIELDS = [
    ("nb_window_start", pa.timestamp("us", tz="UTC")),
    ("nb_window_end", pa.timestamp("us", tz="UTC")),
    ("nb_generation", pa.int64()),
    ("nb_run", pa.string()),
    ("nb_job", pa.string()),
]


def dead_schema() -> pa.Schema:
    """Give the columns of a dead letter's file: `DEAD_SCHEMA`, and what the run is about."""
    return pa.schema([*DEAD_SCHEMA, *_CONTEXT_FIELDS])


def context_batch(batch: pa.RecordBatch, context: SinkContext) -> pa.RecordBatch:
    """Put what the run is about behind the columns of a batch of dead letters."""
    window = context.window
    values = (window.start, window.end, context.generation, context.run, context.job)
    constants = [
        pa.repeat(pa.scalar(value, type_), batch.num_rows)
        for value, (_, type_) in zip(values, _CONTEXT_FIELDS, strict=True)
    ]
    return pa.RecordBatch.from_arrays([*batch.columns, *constants], schema=dead_schema())


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

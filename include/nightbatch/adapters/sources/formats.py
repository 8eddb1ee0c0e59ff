"""Reads Parquet, JSON Lines and CSV as a stream of records, whole or with a clear complaint."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Literal

import msgspec

from nightbatch.adapters.sources.files_arrow import rows_of
from nightbatch.adapters.sources.formats_text import read_csv, read_jsonl
from nightbatch.adapters.sources.pieces import (
    BLOCK_BYTES,
    CODECS,
    Piece,
    Wanted,
    columns_of,
    complains,
    refuse,
    without_columns,
)

Format = Literal["parquet", "jsonl", "csv"]

_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


def format_of(name: str) -> Format | None:
    """Tell a format by a name's extension, below a compression's; None where it says nothing."""
    lower = name.lower()
    for suffix in CODECS:
        lower = lower.removesuffix(suffix)
    return next((found for suffix, found in _FORMATS.items() if lower.endswith(suffix)), None)


def read_records(file: BinaryIO, uri: str, format_: Format, wanted: Wanted) -> Iterator[Piece]:
    """
    Stream the records of an open file in order, in bounded memory.

    A damage that is one record's is told as an unreadable record. Raises BadSource, which names the file and the
    place, where it is cut off, of another format, or so damaged that what it held cannot be counted.
    """
    readers = {"parquet": _read_parquet, "jsonl": read_jsonl, "csv": read_csv}
    return readers[format_](file, uri, wanted)


def read_whole(file: BinaryIO, uri: str, format_: Format, wanted: Wanted) -> Iterator[Piece]:
    """Stream the records of a file that we wrote; one that cannot be read is a damage of the file: BadSource."""
    for piece in read_records(file, uri, format_, wanted):
        for bad in piece.unreadable:
            refuse(bad.place, bad.problem, "The file is damaged: restore it")
        yield piece


# --- Parquet ----------------------------------------------------------------------------------------------------


def _read_parquet(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    with complains(uri, lambda: "its footer"):
        # Unbuffered: Arrow keeps a buffer of its own for each column, and seeks between them.
        parquet = pq.ParquetFile(getattr(file, "raw", file), buffer_size=BLOCK_BYTES, pre_buffer=False)
    columns, missing = columns_of(uri, wanted, tuple(parquet.schema_arrow.names))
    groups = range(parquet.num_row_groups)[slice(*wanted.groups)]
    if missing:
        yield from without_columns(uri, wanted, missing, (f"row {at + 1}" for at in _rows_of(parquet.metadata, groups)))
        return
    for group in groups:
        place = f"row group {group + 1} of {parquet.num_row_groups}"
        with complains(uri, lambda place=place: place):  # type: ignore[misc]  # bound now, on purpose
            if _is_outside(parquet.metadata.row_group(group), wanted):
                continue
            for batch in parquet.iter_batches(
                wanted.chunk_rows, row_groups=[group], columns=list(columns), use_threads=False
            ):
                yield Piece(place, columns, rows_of(batch.select(columns)))


def _rows_of(metadata: Any, groups: range) -> range:
    """Give the numbers of the rows of some row groups in a row, from 0."""
    sizes = [metadata.row_group(group).num_rows for group in range(groups.stop)]
    return range(sum(sizes[: groups.start]), sum(sizes))


def _is_outside(group: Any, wanted: Wanted) -> bool:
    """Say whether a row group's statistics prove that it has no record of the window."""
    if wanted.may_skip is None:
        return False
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == wanted.time_column:
            found = column.statistics
            if found is None or not found.has_min_max or found.null_count != 0:
                return False
            times = [_instant(raw, found.logical_type) for raw in (found.min_raw, found.max_raw)]
            return wanted.may_skip(*times)
    return False


def _instant(raw: Any, logical_type: Any) -> datetime | None:
    """Read a raw statistic as a time in UTC; not by Arrow, which imports pandas for nanoseconds."""
    kind = msgspec.json.decode(logical_type.to_json())
    if not isinstance(raw, int) or kind.get("Type") != "Timestamp" or not kind.get("isAdjustedToUTC"):
        return None
    ticks_per_s = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}[kind["timeUnit"]]
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=raw * 10**6 // ticks_per_s)

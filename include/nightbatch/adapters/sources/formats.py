"""Reads Parquet, JSON Lines and CSV as a stream of records, whole or with a clear complaint."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, BinaryIO, Literal, NoReturn

import msgspec
import pyarrow as pa

from nightbatch.adapters.sources.files_arrow import rows_of
from nightbatch.errors import BadSource, StorageUnavailable

Format = Literal["parquet", "jsonl", "csv"]

MAX_LINE_BYTES = 64 << 20
"""Longest line or field, bytes; a longer one means that the file is not what it is said to be."""

_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}
_CODECS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BOM = b"\xef\xbb\xbf"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Some records of a file, and where they stand in it, for messages."""

    place: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a file: columns in order (None: all), how many records at once, and which to skip early."""

    columns: tuple[str, ...] | None
    chunk_rows: int
    seen: set[str]
    """Filled by the JSON Lines reader: the asked columns that some record had."""
    may_skip: Callable[[Any, Any], bool] | None = None
    """Says of the smallest and largest time of a Parquet row group that no record of it can be wanted."""
    time_column: str = ""


def format_of(name: str) -> Format | None:
    """Tell a format by a name's extension, below a compression's; None where it says nothing."""
    lower = name.lower()
    for suffix in _CODECS:
        lower = lower.removesuffix(suffix)
    return next((found for suffix, found in _FORMATS.items() if lower.endswith(suffix)), None)


def read_records(file: BinaryIO, uri: str, format_: Format, wanted: Wanted) -> Iterator[Piece]:
    """
    Stream the records of an open file in order, in bounded memory.

    Raises BadSource, which names the file and the place, where it is damaged, cut off, or lacks a column.
    """
    readers = {"parquet": _read_parquet, "jsonl": _read_jsonl, "csv": _read_csv}
    return readers[format_](file, uri, wanted)


# --- Parquet ----------------------------------------------------------------------------------------------------


def _read_parquet(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    import pyarrow.parquet as pq

    with _complains(uri, lambda: "its footer"):
        # Unbuffered: Arrow keeps a buffer of its own for each column, and seeks between them.
        parquet = pq.ParquetFile(getattr(file, "raw", file), buffer_size=_BLOCK_BYTES, pre_buffer=False)
    columns = _columns(uri, wanted, tuple(parquet.schema_arrow.names))
    for group in range(parquet.num_row_groups):
        place = f"row group {group + 1} of {parquet.num_row_groups}"
        with _complains(uri, lambda place=place: place):  # type: ignore[misc]  # bound now, on purpose
            if _is_outside(parquet.metadata.row_group(group), wanted):
                continue
            for batch in parquet.iter_batches(
                wanted.chunk_rows, row_groups=[group], columns=list(columns), use_threads=False
            ):
                yield Piece(place, columns, rows_of(batch.select(columns)))


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


# --- JSON Lines -------------------------------------------------------------------------------------------------


def _read_jsonl(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    stream = _decompressed(file, uri)
    decode = _projecting(wanted) if wanted.columns is not None else msgspec.json.Decoder(dict[str, Any]).decode
    number, first = 1, 1  # the line that is being read, and the first one of the piece
    records: list[Any] = []
    with _complains(uri, lambda: f"line {number}"):
        for line in _lines(stream):
            if line.strip():
                records.append(decode(line))
            if len(records) == wanted.chunk_rows:
                yield _piece(f"lines {first} to {number}", wanted, records)
                first, records = number + 1, []
            number += 1
    if records:
        yield _piece(f"lines {first} to {number - 1}", wanted, records)


def _lines(stream: Any) -> Iterator[bytes]:
    """Split on the newline byte only: U+2028 and its like may stand inside a JSON text."""
    rest = b""
    is_first = True
    while block := stream.read(_BLOCK_BYTES):
        if is_first:
            block, is_first = block.removeprefix(_BOM), False
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES:,} bytes")
        yield from lines
    if rest:
        yield rest


def _projecting(wanted: Wanted) -> Callable[[bytes], tuple[Any, ...]]:
    """Make a decoder that skips every field but the asked ones; an absent one is UNSET."""
    columns = wanted.columns or ()
    names = {f"c{index}": column for index, column in enumerate(columns)}
    record = msgspec.defstruct("Record", [(name, Any, msgspec.UNSET) for name in names], rename=names, gc=False)
    decode = msgspec.json.Decoder(record).decode
    astuple = msgspec.structs.astuple
    return lambda line: astuple(decode(line))


def _piece(place: str, wanted: Wanted, records: list[Any]) -> Piece:
    if wanted.columns is None:
        columns = tuple(dict.fromkeys(name for record in records for name in record))
        return Piece(place, columns, [tuple(record.get(name) for name in columns) for record in records])
    for index, column in enumerate(wanted.columns):
        if column not in wanted.seen and any(row[index] is not msgspec.UNSET for row in records):
            wanted.seen.add(column)
    rows = [
        tuple(None if value is msgspec.UNSET else value for value in row) if msgspec.UNSET in row else row
        for row in records
    ]
    return Piece(place, wanted.columns, rows)


# --- CSV --------------------------------------------------------------------------------------------------------


def _read_csv(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    """Read every value as text; an empty field is None. RFC 4180 quoting, UTF-8, a header line."""
    # The limit is the module's, so it is only ever raised.
    csv.field_size_limit(max(MAX_LINE_BYTES, csv.field_size_limit()))
    text = io.TextIOWrapper(_decompressed(file, uri), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    with _complains(uri, lambda: f"line {reader.line_num}"):
        header = next(reader, None)
        if header is None:
            _refuse(uri, "it is empty", "A CSV file needs a header line with the names of its columns")
        columns = _columns(uri, wanted, tuple(header))
        places = [header.index(column) for column in columns]
        pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        width, first, rows = len(header), 2, []
        for row in reader:
            if not row:
                continue
            if len(row) != width:
                raise ValueError(f"it has {len(row)} fields, and the header has {width}")
            values = pick(row)
            rows.append(tuple(value or None for value in values) if "" in values else values)
            if len(rows) == wanted.chunk_rows:
                yield Piece(f"lines {first} to {reader.line_num}", columns, rows)
                first, rows = reader.line_num + 1, []
        if rows:
            yield Piece(f"lines {first} to {reader.line_num}", columns, rows)


# --- what they share --------------------------------------------------------------------------------------------


def _columns(uri: str, wanted: Wanted, present: tuple[str, ...]) -> tuple[str, ...]:
    """Give the columns to read. Raises BadSource for one that is not there, or there twice."""
    columns = present if wanted.columns is None else wanted.columns
    if missing := [column for column in columns if column not in present]:
        there = ", ".join(present[:30])
        _refuse(uri, f"it has no column {', '.join(missing)}; it has {there}", "Correct the column's name, or the file")
    if twice := [column for column in columns if present.count(column) > 1]:
        _refuse(uri, f"it has the column {twice[0]!r} more than once", "Name each column differently")
    wanted.seen.update(columns)
    return columns


def _decompressed(file: BinaryIO, uri: str) -> Any:
    """Unpack by what the first bytes say; a name that promises a compression must keep it."""
    with _complains(uri, lambda: "its first bytes"):
        start = file.read(4)
        file.seek(0)
    codec = next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)
    named = next((codec for suffix, codec in _CODECS.items() if uri.lower().endswith(suffix)), None)
    if named and start and codec != named:
        _refuse(uri, f"its name says {named}, and its content is not", "Write the file again, or rename it")
    if codec is None:
        return file
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec), _BLOCK_BYTES)


@contextmanager
def _complains(uri: str, place: Callable[[], str]) -> Iterator[None]:
    """Turn what a parser raises into BadSource; an error of the disk itself is StorageUnavailable."""
    try:
        yield
    except (pa.ArrowException, msgspec.MsgspecError, csv.Error, ValueError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:
            raise StorageUnavailable(uri, cause=error.strerror or type(error).__name__) from error
        cause = str(error).strip().splitlines()[0][:300].rstrip(".") if str(error).strip() else type(error).__name__
        raise BadSource(
            uri,
            problem=f"{place()} cannot be read: {cause}",
            remedy="The file is damaged, cut off, or of another format: write it again, or set the source's format",
        ) from error


def _refuse(uri: str, problem: str, remedy: str) -> NoReturn:
    raise BadSource(uri, problem=problem, remedy=remedy)

"""Reads JSON Lines and CSV: line by line, so that a damage is one record's where that can be known."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, BinaryIO

import msgspec

from nightbatch.adapters.sources.pieces import (
    BLOCK_BYTES,
    Piece,
    Wanted,
    cause,
    columns_of,
    complains,
    decompressed,
    refuse,
    without_columns,
)
from nightbatch.ports import Unreadable

MAX_LINE_BYTES = 64 << 20
"""Longest line or field, bytes; a longer one means that the file is not what it is said to be."""
_BOM = b"\xef\xbb\xbf"


# --- JSON Lines -------------------------------------------------------------------------------------------------


def read_jsonl(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    """Read one JSON object a line, UTF-8; an asked field that a record lacks is None."""
    stream = decompressed(file, uri)
    decode = _projecting(wanted) if wanted.columns is not None else msgspec.json.Decoder(dict[str, Any]).decode
    number, first = 1, 1  # the line that is being read, and the first one of the piece
    records: list[Any] = []
    bad: list[Unreadable] = []
    is_jsonl, rest = False, list[bytes]()
    with complains(uri, lambda: f"line {number}"):
        for line in _lines(stream, rest):
            if line.strip():
                try:
                    records.append(decode(line))
                except (msgspec.MsgspecError, ValueError) as error:
                    if not is_jsonl:  # a file whose first line is no JSON is of another format
                        raise
                    bad.append(Unreadable(f"{uri} line {number}", f"no JSON object can be read: {cause(error)}"))
                is_jsonl = True
            if len(records) + len(bad) >= wanted.chunk_rows:
                yield _piece(f"lines {first} to {number}", wanted, records, bad)
                first, records, bad = number + 1, [], []
            number += 1
        # One that does not end is the last of a file that may be cut off, and then nobody knows what is missing.
        records += [decode(line) for line in rest if line.strip()]
    if records or bad:
        yield _piece(f"lines {first} to {number - (not rest)}", wanted, records, bad)


def _lines(stream: Any, rest: list[bytes]) -> Iterator[bytes]:
    """
    Split on the newline byte only: U+2028 and its like may stand inside a JSON text.

    What follows the last newline is put into `rest`.
    """
    left = b""
    is_first = True
    while block := stream.read(BLOCK_BYTES):
        if is_first:
            block, is_first = block.removeprefix(_BOM), False
        *lines, left = (left + block).split(b"\n")
        if len(left) > MAX_LINE_BYTES:
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES:,} bytes")
        yield from lines
    if left:
        rest.append(left)


def _projecting(wanted: Wanted) -> Callable[[bytes], tuple[Any, ...]]:
    """Make a decoder that skips every field but the asked ones; an absent one is UNSET."""
    columns = wanted.columns or ()
    names = {f"c{index}": column for index, column in enumerate(columns)}
    record = msgspec.defstruct("Record", [(name, Any, msgspec.UNSET) for name in names], rename=names, gc=False)
    decode = msgspec.json.Decoder(record).decode
    astuple = msgspec.structs.astuple
    return lambda line: astuple(decode(line))


def _piece(place: str, wanted: Wanted, records: list[Any], bad: list[Unreadable]) -> Piece:
    if wanted.columns is None:
        columns = tuple(dict.fromkeys(name for record in records for name in record))
        return Piece(place, columns, [tuple(record.get(name) for name in columns) for record in records], bad)
    for index, column in enumerate(wanted.columns):
        if column not in wanted.seen and any(row[index] is not msgspec.UNSET for row in records):
            wanted.seen.add(column)
    rows = [
        tuple(None if value is msgspec.UNSET else value for value in row) if msgspec.UNSET in row else row
        for row in records
    ]
    return Piece(place, wanted.columns, rows, bad)


# --- CSV --------------------------------------------------------------------------------------------------------


def read_csv(file: BinaryIO, uri: str, wanted: Wanted) -> Iterator[Piece]:
    """Read every value as text; an empty field is None. RFC 4180 quoting, UTF-8, a header line."""
    # The limit is the module's, so it is only ever raised.
    csv.field_size_limit(max(MAX_LINE_BYTES, csv.field_size_limit()))
    # What is no UTF-8 is one record's fault, and is found out below.
    text = io.TextIOWrapper(decompressed(file, uri), encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    with complains(uri, lambda: f"line {reader.line_num}"):
        header = next(reader, None)
        if header is None:
            refuse(uri, "it is empty", "A CSV file needs a header line with the names of its columns")
        if not _is_text("".join(header)):
            refuse(
                uri,
                "its first line is not UTF-8 text, so it is no CSV file that can be read",
                "Write it as UTF-8, or set the source's format to what it is",
            )
        columns, missing = columns_of(uri, wanted, tuple(header))
        if missing:
            yield from without_columns(uri, wanted, missing, (f"line {reader.line_num}" for row in reader if row))
            return
        places = [header.index(column) for column in columns]
        pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        first, rows, bad = 2, list[tuple[Any, ...]](), list[Unreadable]()
        for found in _csv_rows(reader, len(header), pick):
            if isinstance(found, str):
                bad.append(Unreadable(f"{uri} line {reader.line_num}", found))
            else:
                rows.append(tuple(value or None for value in found) if "" in found else found)
            if len(rows) + len(bad) >= wanted.chunk_rows:
                yield Piece(f"lines {first} to {reader.line_num}", columns, rows, bad)
                first, rows, bad = reader.line_num + 1, [], []
        if rows or bad:
            yield Piece(f"lines {first} to {reader.line_num}", columns, rows, bad)


def _csv_rows(reader: Any, width: int, pick: Callable[[list[str]], tuple[str, ...]]) -> Iterator[tuple[str, ...] | str]:
    """
    Give each record's values, or what is wrong with it.

    Raises what the parser raised where more than one line is concerned: a quote too many or too few may have swallowed
    other records, and nobody can count them.
    """
    while True:
        began = reader.line_num
        try:
            row = next(reader, None)
            if row is None:
                return
            if row and len(row) != width:
                raise csv.Error(f"it has {len(row)} fields, and the header has {width}")
        except csv.Error as error:
            if reader.line_num != began + 1 or "unexpected end" in str(error):
                raise
            yield cause(error)
            continue
        if row:
            values = pick(row)
            yield values if _is_text("".join(values)) else "it is not UTF-8"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True

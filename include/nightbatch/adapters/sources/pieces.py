"""What the readers of files share: pieces of records, what is asked of them, and how damage is told."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, NoReturn

import msgspec
import pyarrow as pa

from nightbatch.errors import BadSource, StorageUnavailable
from nightbatch.ports import Unreadable

CODECS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Extension to compression."""
BLOCK_BYTES = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Piece:
    """Some records of a file, and where they stand in it, for messages."""

    place: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    unreadable: list[Unreadable] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What is asked of a file: columns in order (None: all), how many records at once, and which to skip early."""

    columns: tuple[str, ...] | None
    chunk_rows: int
    seen: set[str]
    """Filled by the readers: the asked columns that some record had."""
    may_skip: Callable[[Any, Any], bool] | None = None
    """Says of the smallest and largest time of a Parquet row group that no record of it can be wanted."""
    time_column: str = ""
    present: list[str] = field(default_factory=list)
    """Filled by the readers: the columns of a file that lacked an asked one."""
    groups: tuple[int | None, int | None] = (None, None)
    """Which row groups of a Parquet file to read: from the first on, and before the second."""


def columns_of(uri: str, wanted: Wanted, present: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Give the columns to read, and those that this file lacks. Raises BadSource for one that is there twice."""
    columns = present if wanted.columns is None else wanted.columns
    if twice := [column for column in columns if present.count(column) > 1]:
        refuse(uri, f"it has the column {twice[0]!r} more than once", "Name each column differently")
    wanted.seen.update(column for column in columns if column in present)
    missing = [column for column in columns if column not in present]
    if missing:
        wanted.present[:] = present
    return columns, missing


def without_columns(uri: str, wanted: Wanted, missing: list[str], places: Iterator[str]) -> Iterator[Piece]:
    """Tell each record of a file that lacks columns as unreadable: what another file's records have, it has not."""
    problem = f"the file has no column {', '.join(missing)}"
    while bad := [Unreadable(f"{uri} {place}", problem) for place in islice(places, wanted.chunk_rows)]:
        yield Piece("the file", wanted.columns or (), [], bad)


def decompressed(file: BinaryIO, uri: str) -> Any:
    """Unpack by what the first bytes say; a name that promises a compression must keep it."""
    with complains(uri, lambda: "its first bytes"):
        start = file.read(4)
        file.seek(0)
    codec = next((codec for magic, codec in _MAGIC.items() if start.startswith(magic)), None)
    named = next((codec for suffix, codec in CODECS.items() if uri.lower().endswith(suffix)), None)
    if named and start and codec != named:
        refuse(uri, f"its name says {named}, and its content is not", "Write the file again, or rename it")
    if codec is None:
        return file
    return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, mode="r"), codec), BLOCK_BYTES)


@contextmanager
def complains(uri: str, place: Callable[[], str]) -> Iterator[None]:
    """Turn what a parser raises into BadSource; an error of the disk itself is StorageUnavailable."""
    try:
        yield
    except (pa.ArrowException, msgspec.MsgspecError, csv.Error, ValueError, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:
            raise StorageUnavailable(uri, cause=error.strerror or type(error).__name__) from error
        or_quote = ", or a quote was never closed" if isinstance(error, csv.Error) else ""
        ways = f"The file is damaged, cut off, or of another format{or_quote}"
        raise BadSource(
            uri,
            problem=f"{place()} cannot be read: {cause(error)}",
            remedy=f"{ways}: write it again, or set the source's format",
        ) from error


def cause(error: Exception) -> str:
    """Give the first line of what a parser said, or the name of its error."""
    said = str(error).strip()
    return said.splitlines()[0][:300].rstrip(".") if said else type(error).__name__


def refuse(uri: str, problem: str, remedy: str) -> NoReturn:
    """Raise BadSource."""
    raise BadSource(uri, problem=problem, remedy=remedy)

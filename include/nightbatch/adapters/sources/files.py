"""Records from files: Parquet, JSON Lines or CSV, in a bucket or a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sources.files_match import find_files, fixed_identity, render_uri
from nightbatch.adapters.sources.files_parts import check_size, parts_of
from nightbatch.adapters.sources.files_time import TimeFilter, ZoneUnknown
from nightbatch.adapters.sources.formats import Format, format_of, read_records
from nightbatch.adapters.sources.pieces import Piece, Wanted
from nightbatch.core.window import Window
from nightbatch.errors import BadSource, StorageUnavailable
from nightbatch.ports import Chunk, Connection, Unreadable


class FileSource:
    """
    Implements the port `Source` for one file, all files of a folder, or a glob.

    Files are read sorted by name, and records in the order of their file, so that two reads of the same files give
    the same stream. Memory: a few blocks of one file, whatever its size.
    """

    def __init__(
        self,
        uri: str,
        *,
        connection: Connection | None = None,
        format: Format | None = None,
        columns: Sequence[str] | None = None,
        time_column: str | None = None,
        timezone: str | None = None,
        chunk_rows: int = 500,
    ) -> None:
        """
        Set the source up; nothing is read yet.

        Args:
            uri: An address, a folder, or a glob; may be a template of the window (see `render_uri`).
            connection: How to reach the bucket; None for the machine's own credentials.
            format: What the files are; None tells each by its extension.
            columns: Which columns to give, in this order; None for all.
            time_column: Give only records whose time in this column is inside the window.
            timezone: The zone of times that carry none, for example `Europe/Berlin`.
            chunk_rows: How many records at once.
        """
        self._uri, self._connection, self._format = uri, connection, format
        self._columns = tuple(columns) if columns is not None else None
        self._time_column, self._timezone = time_column, timezone
        self._chunk_rows = chunk_rows

    @property
    def identity(self) -> str:
        """Name the file, or the folder that all windows have in common."""
        return fixed_identity(self._uri, self._connection)

    def read(self, window: Window) -> Iterator[Chunk]:
        """
        Stream the records of a window.

        A line that cannot be read, a record of a file without an asked column, and one whose time names no instant
        are told as unreadable. Yields nothing where no file matches. Raises BadSource for a file that is damaged or
        cut off, a column that no file has, and a time without a zone, and StorageUnavailable.
        """
        uri = render_uri(self._uri, window)
        store, names = find_files(uri, self._connection)
        filter_ = self._filter(window)
        wanted = self._wanted(filter_)
        seen: dict[str, bool] = {}
        yield from self._chunks(store, [(name, wanted) for name in names], filter_, seen)
        if not all(seen.values()):
            _refuse_missing(uri, wanted, [column for column, is_there in seen.items() if not is_there])

    def parts(self, window: Window, *, most: int, least_bytes: int) -> list[dict[str, Any]]:
        """Cut the files of a window into parts: files in a row, and row groups of Parquet files that are large."""
        store, names = find_files(render_uri(self._uri, window), self._connection)
        formats = {name: self._format or format_of(name) for name in names}
        return parts_of(store, formats, most=most, least_bytes=least_bytes)

    def read_part(self, window: Window, part: Mapping[str, Any], *, seen: dict[str, bool]) -> Iterator[Chunk]:
        """Stream the records of one part; see the port. Raises BadSource for a file that is not as it was."""
        store, _ = find_files(render_uri(self._uri, window), self._connection)
        filter_ = self._filter(window)
        wanted = self._wanted(filter_)
        files = []
        for name, size_bytes, first, end in part["files"]:
            check_size(store, name, size_bytes)
            files.append((name, replace(wanted, groups=(first, end))))
        yield from self._chunks(store, files, filter_, seen)

    def _filter(self, window: Window) -> TimeFilter | None:
        return TimeFilter(self._time_column, window, self._timezone) if self._time_column else None

    def _chunks(
        self, store: ObjectStore, files: list[tuple[str, Wanted]], filter_: TimeFilter | None, seen: dict[str, bool]
    ) -> Iterator[Chunk]:
        found_any = False
        for name, wanted in files:
            for piece in self._pieces(store, name, wanted):
                found_any = found_any or bool(piece.rows or piece.unreadable)
                chunk = _chunk(piece, self._columns, filter_, store.uri(name))
                if chunk.rows or chunk.unreadable:
                    yield chunk
        if found_any:
            wanted = files[0][1]  # what was seen is one set for all of them
            seen.update({column: column in wanted.seen for column in wanted.columns or ()})

    def _wanted(self, filter_: TimeFilter | None) -> Wanted:
        columns = self._columns
        if columns is not None and filter_ is not None and filter_.column not in columns:
            columns = (*columns, filter_.column)
        if filter_ is None:
            return Wanted(columns, self._chunk_rows, set())
        return Wanted(columns, self._chunk_rows, set(), filter_.excludes, filter_.column)

    def _pieces(self, store: ObjectStore, name: str, wanted: Wanted) -> Iterator[Piece]:
        uri = store.uri(name)
        format_ = self._format or format_of(name)
        try:
            if format_ is None:
                if store.size_bytes(name) == 0:  # what some tools leave in place of a folder
                    return
                raise BadSource(
                    uri,
                    problem="its name does not tell its format",
                    remedy="Set the source's format to parquet, jsonl or csv, or leave the file out by a glob",
                )
            with store.reader(name) as file:
                yield from read_records(file, uri, format_, wanted)
        except FileNotFoundError as error:
            raise StorageUnavailable(uri, cause="it was there when its folder was listed, and is gone") from error


def _chunk(piece: Piece, columns: tuple[str, ...] | None, filter_: TimeFilter | None, uri: str) -> Chunk:
    """Keep the records of the window, without a time column that was not asked for."""
    rows, unreadable = piece.rows, tuple(piece.unreadable)
    if filter_ is not None and rows:
        rows, timeless = _inside(piece, filter_, uri)
        unreadable += timeless
    if columns is None or len(columns) == len(piece.columns):
        return Chunk(piece.columns, rows, unreadable)
    return Chunk(columns, [row[: len(columns)] for row in rows], unreadable)


def _inside(piece: Piece, filter_: TimeFilter, uri: str) -> tuple[list[tuple[Any, ...]], tuple[Unreadable, ...]]:
    """Give the records of the window, and those that no window has, because their time is none."""
    if filter_.column not in piece.columns:
        raise BadSource(
            uri, problem=f"{piece.place}: no record has a column {filter_.column}", remedy="Correct the column's name"
        )
    at = piece.columns.index(filter_.column)
    inside, timeless = [], []
    for row in piece.rows:
        try:
            if filter_.contains(row[at]):
                inside.append(row)
        except ZoneUnknown as error:
            raise BadSource(
                uri, problem=f"{piece.place}: {error}", remedy="Set the source's timezone for times without one"
            ) from error
        except ValueError as error:
            timeless.append(Unreadable(f"{uri}, in {piece.place}", str(error)))
    return inside, tuple(timeless)


def _refuse_missing(uri: str, wanted: Wanted, missing: list[str]) -> None:
    """Refuse a column that not one record had: a misspelt name must not become a column of nulls."""
    there = f"; there are {', '.join(wanted.present[:30])}" if wanted.present else ""
    raise BadSource(
        uri,
        problem=f"not one record has a field {', '.join(missing)}{there}",
        remedy="Correct the column's name; where it may be absent, write it as null in at least one record",
    )

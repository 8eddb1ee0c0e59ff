"""Opens a DuckDB file from a connection as Airflow keeps it, and translates its errors."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TypeVar

import duckdb

from nightbatch.adapters.clock import SystemClock
from nightbatch.errors import BadSink, BadSource, ConnectionInvalid, StorageUnavailable
from nightbatch.logs import logger
from nightbatch.ports import Connection

log = logger(__name__)
T = TypeVar("T")

LOCK_WAIT_S = 60.0
"""How long to wait for another process that has the file open: DuckDB lets one process write."""

MEMORY, MORE_MEMORY, THREADS = "512MB", "2GB", 1
"""
What a session may take where the connection's extra does not say; what does not fit goes to disk.

A sort merges some 120,000 rows at a time in memory, for each thread, however many rows there are: measured with 2.0.0,
2026-11, four million rows of 1 KB in 512 MB, 600,000 of 5 KB in 1.5 GB.
"""

SCAN_MEMORY = "48MB"
"""
What reading narrow columns from front to back may take: DuckDB fills what it is given with what it has read.

Not for answers: 2,048 are read at once, and where long ones come late, it is too late to ask again with more.
"""

_NEEDS_MORE = (
    "%s: the query cannot do with %s of memory, and is asked again with %s. "
    "Say `memory_limit` in the extra of connection %s to decide how much it may take."
)
_DONE_AGAIN = (
    "%s: %s of memory are too little for this, and it is done again with more; say how much "
    "with `memory_limit` in the connection's extra"
)
_LOCK_POLL_S = 0.05

_WAITS = ("Could not set lock", "Conflicting lock")
_TRANSIENT = (
    duckdb.IOException,
    duckdb.ConnectionException,
    duckdb.TransactionException,
    duckdb.InterruptException,
    duckdb.OutOfMemoryException,
    duckdb.InternalException,
    duckdb.FatalException,
)
_LASTING = ("No files found", "Permission denied", "not a valid DuckDB database")
"""Input/output errors that come again however often one tries."""

_QUIET = (
    duckdb.ConversionException,
    duckdb.ConstraintException,
    duckdb.InvalidInputException,
    duckdb.OutOfRangeException,
)
"""Errors whose messages quote values."""


def file_of(connection: Connection) -> Path:
    """Give the database file: the host, the schema, or `host/schema` where both are set."""
    parts = [part for part in (connection.host, connection.schema) if part]
    if not parts or ":memory:" in parts:
        remedy = "Set its host or its schema to the path of a database file."
        raise ConnectionInvalid(connection.conn_id, problem="it names no file", remedy=remedy)
    return Path("/".join(parts)).expanduser().absolute()


def address(connection: Connection) -> str:
    """Name the database: `duckdb:///path/of/file`."""
    return f"duckdb://{file_of(connection).as_posix()}"


def memory_limits(connection: Connection) -> tuple[str | None, ...]:
    """
    Give what a query may take, and what it may take instead where that is too little; None is what DuckDB takes itself.

    Whoever says `memory_limit` in the connection's extra has decided.
    """
    return (MEMORY,) if "memory_limit" in connection.extra else (MEMORY, MORE_MEMORY, None)


def streamed(
    connection: Connection, read: Callable[[str | None], Iterator[T]], *, about: str, is_narrow: bool = False
) -> Iterator[T]:
    """
    Stream what `read` gives with so much memory; it is asked again with more where that was too little to begin.

    `is_narrow` says that it reads columns of short values from front to back, which takes little. Raises
    duckdb.OutOfMemoryException.
    """
    limits = memory_limits(connection)
    limits = (SCAN_MEMORY, *limits) if is_narrow and "memory_limit" not in connection.extra else limits
    for memory, more in zip(limits, [*limits[1:], ""], strict=True):
        began = False
        try:
            for some in read(memory):
                began = True
                yield some
        except duckdb.OutOfMemoryException:
            if began or more == "":
                raise
            log.warning(_NEEDS_MORE, about, memory, more or "what DuckDB takes", connection.conn_id)
        else:
            return


def in_transaction(
    database: duckdb.DuckDBPyConnection,
    connection: Connection,
    work: Callable[[duckdb.DuckDBPyConnection], T],
    *,
    about: str,
) -> T:
    """Do all of it or nothing; what cannot be done in so much memory is done again with more."""
    *limits, last = memory_limits(connection)
    for memory in limits:
        limit(database, connection, memory)
        try:
            return _at_once(database, work)
        except duckdb.OutOfMemoryException:
            database.execute("ROLLBACK").fetchall()
            log.warning(_DONE_AGAIN, about, memory)
    limit(database, connection, last)
    return _at_once(database, work)


def _at_once(database: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    database.execute("BEGIN TRANSACTION").fetchall()
    found = work(database)
    # Not after an error, where COMMIT would roll back in silence; closing rolls back too.
    database.execute("COMMIT").fetchall()
    return found


def limit(database: duckdb.DuckDBPyConnection, connection: Connection, memory: str | None) -> None:
    """
    Let a database take the memory and the threads that the connection's extra says, else `memory` and one thread.

    Without either it takes what DuckDB takes by itself: four fifths of the machine's memory, and all its cores.
    Raises ConnectionInvalid where the extra says what DuckDB does not know.
    """
    defaults = {"memory_limit": memory, "threads": THREADS if memory else None}
    for name, default in defaults.items():
        value = connection.extra.get(name, default)
        # SET takes no parameters.
        change = f"RESET {name}" if value is None else f"SET {name} = '{str(value).replace(chr(39), chr(39) * 2)}'"
        try:
            database.execute(change)
        except duckdb.Error as error:
            remedy = f"Correct `{name}` in its extra, for example 2GB of memory or 4 threads, or leave it out."
            raise ConnectionInvalid(connection.conn_id, problem=_said(error), remedy=remedy) from None


@contextmanager
def connected(
    connection: Connection, *, read_only: bool, memory: str | None = MEMORY
) -> Iterator[duckdb.DuckDBPyConnection]:
    """
    Open a database in UTC and close it after the block; waits up to `LOCK_WAIT_S` for other processes.

    Raises:
        ConnectionInvalid: When the file cannot be used, or the extra says what DuckDB does not know.
        StorageUnavailable: When the file stays locked, or this process has it open in the other mode.
    """
    with nullcontext() if read_only else _writer_of(file_of(connection)):
        yield from _session(connection, read_only=read_only, memory=memory)


@cache
def _writer_of(path: Path) -> threading.Lock:
    """Give the lock that lets one thread of this process write a file: DuckDB would refuse the second one."""
    return threading.Lock()


def _session(connection: Connection, *, read_only: bool, memory: str | None) -> Iterator[duckdb.DuckDBPyConnection]:
    with _spill_folder(file_of(connection)) as folder:
        try:
            database = _open(file_of(connection), read_only=read_only)
        except (duckdb.IOException, duckdb.ConnectionException) as error:
            if any(words in str(error) for words in _LASTING):
                remedy = "Set its host to a DuckDB file that this account may read and write."
                raise ConnectionInvalid(connection.conn_id, problem=_said(error), remedy=remedy) from None
            raise StorageUnavailable(address(connection), cause=_said(error)) from None
        try:
            database.execute("SET TimeZone = 'UTC'")
            # After two seconds it would draw into stdout, where `--json` promises one object.
            database.execute("SET enable_progress_bar = false")
            _spill_into(database, folder)
            limit(database, connection, memory)
            yield database
        finally:
            database.close()


def _spill_into(database: duckdb.DuckDBPyConnection, folder: str) -> None:
    # By itself it takes a folder beside the file, where processes that read it write over each other's spilled rows
    # (its names are numbers), and where a reader may have no right to write. It can be set until it is used.
    [now] = database.execute("SELECT current_setting('temp_directory')").fetchall()[0]
    if now != folder:
        database.execute(f"SET temp_directory = '{folder.replace(chr(39), chr(39) * 2)}'")


@contextmanager
def _spill_folder(path: Path) -> Iterator[str]:
    """Take a folder that all sessions of this process with one file share, and remove it with the last of them."""
    with _spills_lock:
        folder, sessions = _spills.get(path) or (tempfile.TemporaryDirectory(prefix="nightbatch-duckdb-"), 0)
        _spills[path] = (folder, sessions + 1)
    try:
        yield folder.name
    finally:
        with _spills_lock:
            _, sessions = _spills.pop(path)
            if sessions > 1:
                _spills[path] = (folder, sessions - 1)
            else:
                folder.cleanup()


_spills: dict[Path, tuple[tempfile.TemporaryDirectory[str], int]] = {}
_spills_lock = threading.Lock()


def _open(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    clock = SystemClock()
    for _ in range(int(LOCK_WAIT_S / _LOCK_POLL_S)):
        try:
            return duckdb.connect(str(path), read_only=read_only)
        except duckdb.IOException as error:
            if not any(words in str(error) for words in _WAITS):
                raise
        clock.sleep(_LOCK_POLL_S)
    return duckdb.connect(str(path), read_only=read_only)


@contextmanager
def translated(what: str, bad: type[BadSource] | type[BadSink]) -> Iterator[None]:
    """
    Turn errors of DuckDB into ours.

    Raises:
        BadSource, BadSink: The one given as `bad`, where trying again changes nothing.
        StorageUnavailable: Where it may.
    """
    try:
        yield
    except duckdb.Error as error:
        # Not chained: DuckDB's own words may quote a record or an answer, and a log shows the whole chain.
        if isinstance(error, _TRANSIENT) and not any(words in str(error) for words in _LASTING):
            raise StorageUnavailable(what, cause=_said(error)) from None
        remedy = "Correct the query in the job file." if bad is BadSource else "Mend the table, or name another one."
        raise bad(what, problem=_said(error), remedy=remedy) from None


def _said(error: duckdb.Error) -> str:
    if isinstance(error, duckdb.OutOfMemoryException):
        return "DuckDB was given too little memory for this: say more as `memory_limit` in the connection's extra"
    if isinstance(error, _QUIET):
        return f"DuckDB says {type(error).__name__}"
    return f"DuckDB says: {str(error).strip().splitlines()[0][:300]}".rstrip(".")

"""How the ledger reaches its database: PostgreSQL or SQLite, one transaction at a time, errors without secrets."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from nightbatch.adapters.extras import extras_told
from nightbatch.errors import ConnectionInvalid, LedgerMismatch, StorageUnavailable

CONNECT_TIMEOUT_S = 10
BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for another one's lock."""
FROZEN_AFTER_S = 60
"""PostgreSQL ends a transaction that says nothing for so long: a frozen process must not hold the others up."""

_MAY_NOT = ("42501", "3F000")
"""PostgreSQL's codes for a right that the role does not have; the second where it may use no schema at all."""

_NO_CONNECT = "permission denied for database"
"""What PostgreSQL says to a role that may not connect; an error of the connection carries no code."""

_UNREACHABLE = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError, exc.DisconnectionError)


class Database:
    """One ledger database. Usable from many threads; open it after a fork, not before."""

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        self.url = _parsed(url)
        if schema is not None and not self.is_postgresql:
            raise ConnectionInvalid("ledger", problem="SQLite has no schemas", remedy="Leave the schema out.")
        self.schema = schema
        self.name = f"the ledger {self.url.set(query={}).render_as_string(hide_password=True)}"
        with extras_told():
            self.engine = _postgresql(self.url, schema) if self.is_postgresql else _sqlite(self.url)
        # All threads share the one connection that an in-memory database has, so they take turns.
        self._turn: AbstractContextManager[Any] = threading.Lock() if self.is_memory else nullcontext()

    @property
    def is_postgresql(self) -> bool:
        """Say whether several machines may share it."""
        return self.url.get_backend_name() == "postgresql"

    @property
    def is_memory(self) -> bool:
        """Say whether it is gone with this object."""
        return not self.is_postgresql and self.url.database in (None, "", ":memory:")

    @property
    def file(self) -> Path | None:
        """Give SQLite's file."""
        return None if self.is_postgresql or self.is_memory else Path(self.url.database or "")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """
        Open a transaction that may write; it commits when the block ends well.

        Raises StorageUnavailable where the database cannot be reached, also when it is not known whether the
        commit got through: every write of the ledger may be repeated, or then finds itself done.
        """
        with self._translated(), self._turn, self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads; in SQLite it does not wait for writers."""
        with self._translated(), self._turn, self.engine.connect() as connection:
            reading = connection.execution_options(nb_reads=True)
            with reading.begin():
                yield reading

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _UNREACHABLE as error:
            if _NO_CONNECT in str(error.__cause__):
                raise self._may_not(error) from None
            raise StorageUnavailable(self.name, cause=self._cause(error)) from error
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                raise StorageUnavailable(self.name, cause=self._cause(error)) from error
            if getattr(error.orig, "sqlstate", "") in _MAY_NOT:
                raise self._may_not(error) from None
            raise
        except exc.StatementError as error:
            # A value that a column type refused: the caller's mistake, told without the statement around it.
            if isinstance(error.orig, (TypeError, ValueError)):
                raise error.orig from None
            raise

    def _may_not(self, error: exc.SQLAlchemyError) -> ConnectionInvalid:
        """Say which right the role lacks, without the statement that PostgreSQL quotes."""
        said = self._cause(error).partition(" LINE ")[0]
        remedy = "Grant its role what docs/security.md lists; the tables' owner runs `nightbatch migrate`."
        return ConnectionInvalid("ledger", problem=f"PostgreSQL says: {said}", remedy=remedy)

    def _cause(self, error: exc.SQLAlchemyError) -> str:
        """Say in one line what the driver said, without the password."""
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split())[:300]
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text or type(cause).__name__

    def _secrets(self) -> list[str]:
        values = [str(self.url.password or ""), *(str(value) for value in self.url.query.values())]
        return [form for value in values if value for form in (value, quote(value, safe=""))]


def _parsed(url: str) -> sa.URL:
    """Read the URL, and choose the driver."""
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (exc.ArgumentError, ValueError):
        # The error that is in flight quotes the URL, which may hold a password.
        raise _bad_url("its URL cannot be read") from None
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite")
    raise _bad_url(f"a ledger cannot live in {backend}")


def _bad_url(problem: str) -> ConnectionInvalid:
    remedy = "Use postgresql://user:password@host:port/database, or sqlite:////path/to/ledger.db."
    return ConnectionInvalid("ledger", problem=problem, remedy=remedy)


def _postgresql(url: sa.URL, schema: str | None) -> sa.Engine:
    engine = sa.create_engine(
        url,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "nightbatch"},
        isolation_level="READ COMMITTED",  # locks are taken first, and what is read after them must be fresh
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=15,
        hide_parameters=True,
    )
    settings = [
        f"SET lock_timeout = {int(BUSY_TIMEOUT_S * 1000)}",
        f"SET idle_in_transaction_session_timeout = {FROZEN_AFTER_S * 1000}",
    ]
    if schema is not None:
        settings.append(f"SET search_path TO {engine.dialect.identifier_preparer.quote(schema)}")

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: object) -> None:
        # Outside a transaction, or the first rollback would undo it.
        connection.autocommit = True
        for setting in settings:
            connection.execute(setting)
        connection.autocommit = False

    return engine


def _sqlite(url: sa.URL) -> sa.Engine:
    in_memory = url.database in (None, "", ":memory:")
    options: dict[str, Any] = {"poolclass": sa.StaticPool} if in_memory else {}
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,
        **options,
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: object) -> None:
        # The driver would begin on its own, too late: only at the first write, after the reads it rests on.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        if not in_memory:
            _use_wal(connection)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("nb_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _use_wal(connection: sqlite3.Connection) -> None:
    """Let readers read while somebody writes. The mode is kept in the file, so one connection needs to set it."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        # Another process uses the file at this moment. Everything is correct without, and the next one sets it.
        if "locked" not in str(error):
            raise


def insert_absent(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row unless one with its key is there; say whether it was inserted. Waits for a rival's commit."""
    insert = _insert(table, into=connection.dialect.name).values(**values)
    statement = insert.on_conflict_do_nothing().returning(*table.primary_key.columns)
    return connection.execute(statement).first() is not None


def _insert(table: sa.Table, *, into: str) -> Any:
    # Here, so that who has SQLite does not import the dialect of PostgreSQL: 20 ms.
    if into == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        return insert_postgresql(table)
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite

    return insert_sqlite(table)


def check_file(database: Database, *, expected: str) -> None:
    """Refuse an SQLite file that is not there, which the driver would create in silence."""
    if database.file is not None and not database.file.exists():
        raise LedgerMismatch(found="none (there is no file)", expected=expected)

"""Opens PostgreSQL from a connection as Airflow keeps it, and translates its errors; no message holds a value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from nightbatch.errors import BadSink, BadSource, ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection

CONNECT_TIMEOUT_S = 15
DEFAULT_PORT = 5432

_FROM_FIELDS = {"host", "port", "user", "password", "dbname"}
_UNUSABLE = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "invalid ",
    "permission denied",
)
"""What PostgreSQL says when it was reached and the connection's fields are wrong; these errors carry no code."""

_QUIET_CLASSES = {"22", "23", "P0"}
"""Error classes whose messages may quote values: data, violated constraints, what triggers raise."""

_BAD_CLASSES = {"0A", "21", "22", "23", "25", "2B", "3D", "3F", "42", "44", "54", "P0"}
"""Error classes that come again however often one tries."""

_WRONG_KIND = "55000"
"""A view that cannot be written to, say. The other codes of its class are of things in use, which end."""

_FROZEN = "25P03"
"""PostgreSQL ended the transaction of a process that said nothing for too long; the next one may do better."""

_REMEDIES: dict[type[BadSource] | type[BadSink], dict[str, str]] = {
    BadSource: {
        "42501": "Grant the connection's role the right to read it.",
        "42P01": "Create the table, or correct its name in the query.",
        "42P18": "Say the parameter's type in the query, for example `:window_start::timestamptz`.",
        "25006": "Use a query that only reads.",
        "": "Correct the query in the job file.",
    },
    BadSink: {
        "42501": "Grant the connection's role the rights to create, read, insert, update and delete there.",
        "42P01": "It was there when the run was prepared. Restore it, or run the window again.",
        "23502": "Give the column a default, or let it be null.",
        "25006": "Name a connection to a server that can be written to.",
        "": "Mend the table, or name another one in the job file.",
    },
}


def address(connection: Connection) -> str:
    """Name the database, without secrets: `postgresql://host:port/database`."""
    return f"postgresql://{connection.host or 'localhost'}:{connection.port or DEFAULT_PORT}/{connection.schema}"


def connect(connection: Connection) -> psycopg.Connection:
    """
    Open a database in autocommit mode; sessions work in UTC unless they say otherwise.

    Of the connection's extra, what libpq knows (`sslmode`, `options`, …) is used and the rest ignored.

    Raises:
        ConnectionInvalid: When the server was reached and refuses the login or has no such database.
        StorageUnavailable: When the server cannot be reached.
    """
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} - _FROM_FIELDS
    extra = {name: str(value) for name, value in connection.extra.items() if name in known and value is not None}
    fields = {
        "host": connection.host,
        "port": str(connection.port or DEFAULT_PORT),
        "user": connection.login,
        "password": connection.password,
        "dbname": connection.schema,
    }
    settings = {"connect_timeout": str(CONNECT_TIMEOUT_S), "application_name": "nightbatch"} | extra
    settings |= {name: value for name, value in fields.items() if value}
    try:
        database = psycopg.connect(psycopg.conninfo.make_conninfo(**settings), autocommit=True)
    except psycopg.OperationalError as error:
        said = _first_line(error)
        if any(words in said for words in _UNUSABLE):
            remedy = "Correct its login, password or schema (the database's name), or grant its role CONNECT."
            raise ConnectionInvalid(connection.conn_id, problem=said, remedy=remedy) from None
        raise StorageUnavailable(address(connection), cause=said) from None
    except psycopg.ProgrammingError:
        remedy = "Correct its fields and its extra."
        raise ConnectionInvalid(connection.conn_id, problem="it is not a valid one", remedy=remedy) from None
    database.execute("SELECT set_config('TimeZone', 'UTC', false)")
    return database


@contextmanager
def translated(what: str, bad: type[BadSource] | type[BadSink]) -> Iterator[None]:
    """
    Turn errors of psycopg into ours.

    Raises:
        BadSource, BadSink: The one given as `bad`, where trying again changes nothing.
        StorageUnavailable: Where it may: the server went away, is full, or broke a deadlock.
    """
    try:
        yield
    except psycopg.Error as error:
        # Not chained: the server's details quote whole rows, and a log shows the whole chain.
        code = error.sqlstate or ""
        is_bad = code == _WRONG_KIND or (code[:2] in _BAD_CLASSES and code != _FROZEN)
        if is_bad or (not code and not isinstance(error, psycopg.OperationalError)):
            remedies = _REMEDIES[bad]
            raise bad(what, problem=_said(error), remedy=remedies.get(code, remedies[""])) from None
        raise StorageUnavailable(what, cause=_said(error)) from None


def _said(error: psycopg.Error) -> str:
    """Tell an error without the values it may quote."""
    code = error.sqlstate or ""
    if isinstance(error, psycopg.OperationalError) and not code:
        return _first_line(error)
    if not code or code[:2] in _QUIET_CLASSES:
        name = error.diag.column_name or error.diag.constraint_name
        return f"PostgreSQL says {type(error).__name__}{f' ({name})' if name else ''}"
    return f"PostgreSQL says: {error.diag.message_primary}"


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")

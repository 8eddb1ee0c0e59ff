"""PostgreSQL and DuckDB as one thing for tests: a connection, a way to run SQL, and both adapters."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg

from nightbatch.adapters.sinks.duckdb import DuckDBSink
from nightbatch.adapters.sinks.postgres import PostgresSink
from nightbatch.adapters.sources.duckdb import DuckDBSource
from nightbatch.adapters.sources.postgres import PostgresSource
from nightbatch.core.window import Window
from nightbatch.ports import Connection, Sink, Source


@dataclass(frozen=True)
class Warehouse:
    """An empty database."""

    kind: str
    connection: Connection

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL; gives its rows, if it has any."""
        if self.kind == "duckdb":
            with duckdb.connect(self.connection.host or self.connection.schema) as database:
                database.execute("SET TimeZone = 'UTC'").fetchall()
                return database.execute(sql).fetchall()
        with psycopg.connect(url_of(self.connection), autocommit=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def source(self, sql: str, **settings: Any) -> Source:
        """Open a query."""
        return (DuckDBSource if self.kind == "duckdb" else PostgresSource)(self.connection, sql, **settings)

    def sink(self, table: str = "shop.answers", **settings: Any) -> Sink:
        """Open a table of answers."""
        settings = {"key_column": "id", "answer_schema": None} | settings
        return (DuckDBSink if self.kind == "duckdb" else PostgresSink)(self.connection, table, **settings)


def rows_of(source: Source, window: Window) -> list[tuple[Any, ...]]:
    """Read all rows of a source."""
    return [row for chunk in source.read(window) for row in chunk.rows]


def connection_to(url: str, **changes: Any) -> Connection:
    """Give the connection of a libpq URL, as Airflow would."""
    parts = urlsplit(url)
    facts: dict[str, Any] = {"host": parts.hostname, "port": parts.port, "login": parts.username}
    facts |= {"password": parts.password, "schema": parts.path.lstrip("/")} | changes
    return Connection("warehouse", "postgres", **facts)


def url_of(connection: Connection) -> str:
    """Give the libpq URL of a connection."""
    login = f"{connection.login}:{connection.password}"
    return f"postgresql://{login}@{connection.host}:{connection.port}/{connection.schema}"


@contextmanager
def open_warehouse(kind: str, server: Any, folder: Path) -> Iterator[Warehouse]:
    """Make an empty database of a kind."""
    if kind == "duckdb":
        file = folder / "warehouse.duckdb"
        duckdb.connect(str(file)).close()
        yield Warehouse(kind, Connection("warehouse", "duckdb", host=str(file)))
    else:
        yield Warehouse(kind, connection_to(server.new_database()))

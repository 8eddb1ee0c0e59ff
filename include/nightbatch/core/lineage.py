"""What a source or a sink is called in lineage: OpenLineage's namespace and name, read from its identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A dataset, by OpenLineage's rules (spec/Naming.md of OpenLineage/OpenLineage, read 2026-11-26)."""

    namespace: str
    name: str


def places_of(identity: str) -> list[Place]:
    """
    Give the datasets behind the identity of a source or a sink; none for what nobody else could find again.

    A table in PostgreSQL is `postgres://host:port` and `database.schema.table`, a file in S3 its bucket and its key; a
    local file is called as Airflow 3.3.2 calls its `file://` assets there. DuckDB's name is our own: its file is the
    namespace.
    """
    scheme, _, rest = identity.partition("://")
    match scheme:
        case "postgresql":
            address, database, tables = _split(rest)
            return [Place(f"postgres://{address}", f"{database}.{table}") for table in tables]
        case "duckdb":
            file, _, tables_text = rest.rpartition("/")
            return [Place(f"duckdb://{file}", table) for table in _tables(tables_text)]
        case "s3":
            bucket, _, key = rest.partition(" at ")[0].partition("/")
            return [Place(f"s3://{bucket}", key.rstrip("/") or "/")]
        case "file":
            return [Place("file", rest.rstrip("/") or "/")]
    return []


def _split(rest: str) -> tuple[str, str, list[str]]:
    address, _, path = rest.partition("/")
    database, _, tables = path.partition("/")
    return address, database, _tables(tables)


def _tables(text: str) -> list[str]:
    """Give the tables of an identity; a query that names none is called `query` there."""
    return [] if text == "query" else text.split(",")

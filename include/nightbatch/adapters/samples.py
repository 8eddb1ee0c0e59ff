"""The first records of a source that no job file describes yet."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from nightbatch.adapters.registry import open_files, open_query
from nightbatch.adapters.sql_names import TableName, table_name
from nightbatch.core.sample import Sample
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk, Connection, Source

ROWS = 1_000
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ANY = Window(_EPOCH, _EPOCH + timedelta(days=1))
"""Neither source is asked for the records of a window."""


def sample_files(uri: str, connection: Connection | None) -> Sample:
    """Read the first records of a file, a folder or a glob. Raises BadSource where there are none."""
    return _sampled(open_files(uri, connection), uri)


def sample_table(text: str, connection: Connection) -> tuple[str, Sample]:
    """Read the first records of a table; gives its name as SQL writes it too. Raises BadSource where there are none."""
    try:
        name = table_name(text, default_schema="")
    except ValueError as error:
        raise BadSource(text, problem=str(error), remedy="Write it like tickets, or schema.tickets") from error
    table = _in_sql(name)
    source = open_query(connection, f"select * from {table} limit {ROWS}")  # noqa: S608 - a name, quoted
    return table, _sampled(source, text)


def _in_sql(name: TableName) -> str:
    parts = (name.schema, name.name) if name.schema else (name.name,)
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _sampled(source: Source, what: str) -> Sample:
    columns: tuple[str, ...] = ()
    rows: list[tuple[Any, ...]] = []
    with closing(cast(Generator[Chunk], source.read(_ANY))) as chunks:
        for chunk in chunks:
            columns = columns or chunk.columns
            if chunk.columns != columns or len(rows) >= ROWS:
                break
            rows += chunk.rows
    if not rows:
        remedy = "Name one that has: the columns are learned from them."
        raise BadSource(what, problem="it is not there, or it has no records", remedy=remedy)
    return Sample(columns, rows[:ROWS])

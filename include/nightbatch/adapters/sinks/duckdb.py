"""Writes answers into a DuckDB file: a temporary table, then one keyed merge, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from nightbatch.adapters.duckdb_connection import address, connected, file_of, in_transaction, streamed, translated
from nightbatch.adapters.sinks.columns import Kind
from nightbatch.adapters.sinks.table import GIVEN, NEVER_NULL, ORDER, Found, Layout, Table, column_of, owner_of
from nightbatch.errors import BadSink
from nightbatch.ports import Connection, GivenAnswer, HeldAnswer, MergeCounts, SinkContext

T = TypeVar("T")

KNOWN_ROWS = 10_000
"""Rows of a chunk of `known`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TYPES: dict[Kind, str] = {
    Kind.TEXT: "VARCHAR",
    Kind.INTEGER: "BIGINT",
    Kind.NUMBER: "DOUBLE",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    Kind.DATE: "DATE",
    Kind.DECIMAL: "DECIMAL(18,9)",
    Kind.JSON: "JSON",
}
"""Types as DuckDB's catalogue spells them."""

_MERGE = """
INSERT INTO {table} AS held ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM nb_part ORDER BY {key}, nb_round DESC, nb_custom_id DESC
ON CONFLICT ({key}) DO UPDATE SET {assignments}
WHERE ({held_order}) <= ({offered_order}) AND ({held}) IS DISTINCT FROM ({offered})
"""
_COUNT = """
SELECT count(*), count(*) FILTER (WHERE ({held_order}) > ({part_order}))
FROM nb_part AS part JOIN {table} AS held USING ({key})
"""
_EXHUME = """
DELETE FROM {dead} AS buried WHERE EXISTS (
  SELECT 1 FROM nb_part AS part
  WHERE part.{key} = buried.{key} AND part.nb_job = buried.nb_job
    AND (buried.nb_window_end, buried.nb_generation) <= (part.nb_window_end, part.nb_generation))
"""
_OVERTAKEN = """
DELETE FROM nb_part AS part WHERE EXISTS (
  SELECT 1 FROM {answers} AS held
  WHERE held.{only_key} = part.{only_key} AND held.nb_job = part.nb_job AND ({held_order}) >= ({part_order}))
"""
# A round that is buried again must not bring a letter back whose record was answered meanwhile.
_HELD = """
SELECT {key}, nb_run, nb_fingerprint, nb_custom_id, nb_cost_usd FROM {table}
WHERE (epoch_us(nb_window_end), nb_generation) >= (?, ?) OR nb_run = ?
"""
_FIND = "SELECT table_type FROM information_schema.tables WHERE table_schema = ? AND table_name = ?"
_COMMENT = "SELECT comment FROM duckdb_tables() WHERE schema_name = ? AND table_name = ? AND NOT internal"
_COLUMNS = """
SELECT column_name, data_type, NOT is_nullable AND column_default IS NULL FROM duckdb_columns()
WHERE schema_name = ? AND table_name = ?
"""
_KEYS = """
SELECT constraint_column_names FROM duckdb_constraints()
WHERE schema_name = ? AND table_name = ? AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')
"""


class DuckDBSink:
    """
    A table of answers and one of dead letters; their columns are the contract in `docs/table-sinks.md`.

    DuckDB lets one process write: others wait for the file, up to `LOCK_WAIT_S` of `duckdb_connection`.
    """

    def __init__(
        self,
        connection: Connection,
        table: str,
        *,
        key_column: str,
        answer_schema: Mapping[str, Any] | None,
        dead_letters_table: str | None = None,
    ) -> None:
        """Write to `table` (`schema.name`; `main` where it says no schema). Raises BadSink for unusable names."""
        self._connection = connection
        self.layout = Layout.of(
            address(connection),
            table,
            default_schema="main",
            key_column=key_column,
            answer_schema=answer_schema,
            dead_letters_table=dead_letters_table,
        )

    @property
    def identity(self) -> str:
        """`duckdb:///path/of/file/schema.table`."""
        return self.layout.sink

    def prepare(self, context: SinkContext) -> None:
        """Create or extend both tables and check types and owner; see `Sink.prepare`."""
        file_of(self._connection).parent.mkdir(parents=True, exist_ok=True)
        with self._opened() as database:
            self._in_transaction(database, partial(self._prepare_tables, job=context.job))

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """Merge the answers of a part; see `Sink.merge`. Of two rows with one key the later round counts."""
        with self._opened() as database:
            rows = (self.layout.answer_rows(batch, context) for batch in batches)
            _copy(database, self.layout.answers, rows)
            offered, newer = self._in_transaction(database, self._merge)
        return MergeCounts(offered=offered, merged=offered - newer, newer_kept=newer)

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write dead letters; gives how many there were in the part. See `Sink.bury`."""
        with self._opened() as database:
            rows = (self.layout.dead_rows(batch, context) for batch in batches)
            offered = _copy(database, self.layout.dead, rows)
            self._in_transaction(database, self._bury)
        return offered

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """Stream (key, fingerprint, window end) of every answer; see `Sink.known`."""
        key, table = _quoted(self.layout.key_column), _identifier(self.layout.answers)
        # As a number, because DuckDB makes a time with a zone only with the help of pytz.
        query = f"SELECT {key}, nb_fingerprint, epoch_us(nb_window_end) FROM {table}"  # noqa: S608 - quoted names, no values
        for chunk in self._stream(query, is_narrow=True):
            yield [(key, print_, _EPOCH + timedelta(microseconds=end_us)) for key, print_, end_us in chunk]

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """Stream the answers of this run and of those that are not older; see `Sink.held`."""
        query = _HELD.format(key=_quoted(self.layout.key_column), table=_identifier(self.layout.answers))
        end_us = (since.window.end - _EPOCH) // timedelta(microseconds=1)
        for chunk in self._stream(query, [end_us, since.generation, since.run], is_narrow=True):
            yield [HeldAnswer(*row) for row in chunk]

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """Stream one field of every answer; see `Sink.given`."""
        names = [self.layout.key_column, column_of(self.layout.answer_fields, field, sink=self.identity), *GIVEN]
        query = f"SELECT {', '.join(map(_quoted, names))} FROM {_identifier(self.layout.answers)}"  # noqa: S608 - quoted
        for chunk in self._stream(query):
            yield [GivenAnswer(*row) for row in chunk]

    def _stream(
        self, query: str, values: Sequence[Any] = (), *, is_narrow: bool = False
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Stream what a query says of the answers; nothing where there is no table of them yet."""
        if file_of(self._connection).exists():
            with translated(self.identity, BadSink):
                ask = partial(self._ask, query, values)
                yield from streamed(self._connection, ask, about=self.identity, is_narrow=is_narrow)

    def _ask(self, query: str, values: Sequence[Any], memory: str | None) -> Iterator[list[tuple[Any, ...]]]:
        with connected(self._connection, read_only=True, memory=memory) as database:
            if database.execute(_FIND, _names(self.layout.answers)).fetchall():
                rows = database.execute(query, values)
                yield from iter(lambda: rows.fetchmany(KNOWN_ROWS), [])

    def _prepare_tables(self, database: duckdb.DuckDBPyConnection, job: str) -> None:
        for table in (self.layout.answers, self.layout.dead):
            self._prepare_table(database, table, job)

    def _merge(self, database: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        database.execute(self._filled(_MERGE, self.layout.answers)).fetchall()
        database.execute(self._filled(_EXHUME, self.layout.answers)).fetchall()
        offered, newer = database.execute(self._filled(_COUNT, self.layout.answers)).fetchall()[0]
        return offered, newer

    def _bury(self, database: duckdb.DuckDBPyConnection) -> None:
        database.execute(self._filled(_OVERTAKEN, self.layout.dead)).fetchall()
        database.execute(self._filled(_MERGE, self.layout.dead)).fetchall()

    def _prepare_table(self, database: duckdb.DuckDBPyConnection, table: Table, job: str) -> None:
        kind = database.execute(_FIND, _names(table)).fetchall()
        if not kind:
            _create(database, table, job)
            return
        comment = next((row[0] for row in database.execute(_COMMENT, _names(table)).fetchall()), None)
        keys = [set(row[0]) for row in database.execute(_KEYS, _names(table)).fetchall()]
        columns = database.execute(_COLUMNS, _names(table)).fetchall()
        found = Found(
            is_table=kind[0][0] == "BASE TABLE",
            comment=comment,
            types={name: type_ for name, type_, _ in columns},
            is_keyed=set(table.key) in keys,
            to_fill=frozenset(name for name, _, must_be_filled in columns if must_be_filled),
        )
        self.layout.check_usable(table, found)
        self.layout.check_owner(table, owner_of(comment) or _job_of_rows(database, table, job), job)
        for name in self.layout.missing(table, found, TYPES):
            column = f"{_quoted(name)} {TYPES[table.columns[name]]}"
            database.execute(f"ALTER TABLE {_identifier(table)} ADD COLUMN {column}").fetchall()
        if comment is None:
            _mark(database, table, job)

    @contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with translated(self.identity, BadSink), connected(self._connection, read_only=False) as database:
            yield database

    def _in_transaction(self, database: duckdb.DuckDBPyConnection, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return in_transaction(database, self._connection, work, about=self.identity)

    def _filled(self, template: str, table: Table) -> str:
        columns = [_quoted(name) for name in table.columns]
        return template.format(
            table=_identifier(table),
            answers=_identifier(self.layout.answers),
            dead=_identifier(self.layout.dead),
            only_key=_quoted(self.layout.key_column),
            key=", ".join(_quoted(name) for name in table.key),
            columns=", ".join(columns),
            assignments=", ".join(f"{column} = EXCLUDED.{column}" for column in columns if not _is_key(column, table)),
            held=", ".join(f"held.{column}" for column in columns),
            offered=", ".join(f"EXCLUDED.{column}" for column in columns),
            held_order=", ".join(f"held.{name}" for name in ORDER),
            offered_order=", ".join(f"EXCLUDED.{name}" for name in ORDER),
            part_order=", ".join(f"part.{name}" for name in ORDER),
        )


def _copy(database: duckdb.DuckDBPyConnection, table: Table, batches: Iterable[pa.RecordBatch]) -> int:
    """Put rows into a temporary table `nb_part` of this connection; gives their number."""
    columns = ", ".join(f"{_quoted(name)} {TYPES[kind]}" for name, kind in table.columns.items())
    database.execute(f"CREATE TEMPORARY TABLE nb_part ({columns})").fetchall()
    count = 0
    # Batch by batch and not as one stream: what reading the next batch raises then comes out as it is.
    for batch in batches:
        count += batch.num_rows
        database.register("nb_batch", pa.Table.from_batches([batch]))
        database.execute("INSERT INTO nb_part SELECT * FROM nb_batch").fetchall()
        database.unregister("nb_batch")
    return count


def _create(database: duckdb.DuckDBPyConnection, table: Table, job: str) -> None:
    database.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(table.name.schema)}").fetchall()
    columns = [
        f"{_quoted(name)} {TYPES[kind]}{' NOT NULL' if name in NEVER_NULL else ''}"
        for name, kind in table.columns.items()
    ]
    key = f"PRIMARY KEY ({', '.join(_quoted(name) for name in table.key)})"
    database.execute(f"CREATE TABLE {_identifier(table)} ({', '.join([*columns, key])})").fetchall()
    _mark(database, table, job)


def _mark(database: duckdb.DuckDBPyConnection, table: Table, job: str) -> None:
    text = table.mark(job).replace("'", "''")
    database.execute(f"COMMENT ON TABLE {_identifier(table)} IS '{text}'").fetchall()


def _job_of_rows(database: duckdb.DuckDBPyConnection, table: Table, job: str) -> str | None:
    """Give another job that has rows in a table whose comment names none."""
    query = f"SELECT nb_job FROM {_identifier(table)} WHERE nb_job <> ? LIMIT 1"  # noqa: S608 - quoted names, no values
    rows = database.execute(query, [job]).fetchall()
    return str(rows[0][0]) if rows else None


def _identifier(table: Table) -> str:
    return f"{_quoted(table.name.schema)}.{_quoted(table.name.name)}"


def _names(table: Table) -> list[str]:
    return [table.name.schema, table.name.name]


def _is_key(column: str, table: Table) -> bool:
    return column in {_quoted(name) for name in table.key}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

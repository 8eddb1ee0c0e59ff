"""Writes answers into PostgreSQL: COPY into a temporary table, then one keyed merge, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg
import pyarrow as pa
from psycopg import sql

from nightbatch.adapters.postgres_connection import address, connect, translated
from nightbatch.adapters.sinks.postgres_copy import copy_lines
from nightbatch.adapters.sinks.postgres_tables import prepare_table
from nightbatch.adapters.sinks.table import GIVEN, ORDER, Layout, Table, column_of
from nightbatch.errors import BadSink
from nightbatch.ports import Connection, GivenAnswer, HeldAnswer, MergeCounts, SinkContext

KNOWN_ROWS = 10_000
"""Rows of a chunk of `known`."""

_PREPARING = 0x6E62_7461_626C_6573
"""Advisory lock that tasks hold while they create or alter tables of one database."""

_PART = sql.Identifier("nb_part")

_LET_GO = """
SELECT set_config('idle_in_transaction_session_timeout', '60s', true)
WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""
"""A process that is frozen between its merge and its commit holds rows that its successor waits for; PostgreSQL ends
its transaction after a minute, or after what the connection or the server says."""

_COPY_ROWS = 2_000
"""Rows that go to COPY at once."""

_MERGE = """
INSERT INTO {table} AS held ({columns})
SELECT DISTINCT ON ({key}) {columns} FROM {part} ORDER BY {key}, {last}
ON CONFLICT ({key}) DO UPDATE SET {assignments}
WHERE {in_order} AND ({held}) IS DISTINCT FROM ({offered})
"""
# Rows are locked in the order of their keys, so that two merges never wait for each other in a circle. An equal row
# is left alone: a merge that is done again writes nothing.

_COUNT = """
SELECT count(*), count(*) FILTER (WHERE {is_newer}) FROM {part} AS part JOIN {table} AS held USING ({key})
"""

_OVERTAKEN = """
DELETE FROM {part} AS part USING {answers} AS held
WHERE held.{only_key} = part.{only_key} AND held.nb_job = part.nb_job AND ({held_order}) >= ({part_order})
"""
# A round that is buried again must not bring a letter back whose record was answered meanwhile.

_HELD = """
SELECT {key}, nb_run, nb_fingerprint, nb_custom_id, nb_cost_usd FROM {table}
WHERE (nb_window_end, nb_generation) >= (%s, %s) OR nb_run = %s
"""

_EXHUME = """
WITH answered AS (
  SELECT buried.nb_run, buried.{key} FROM {dead} AS buried JOIN {part} AS part USING ({key})
  WHERE buried.nb_job = part.nb_job
    AND (buried.nb_window_end, buried.nb_generation) <= (part.nb_window_end, part.nb_generation)
  ORDER BY buried.nb_run, buried.{key} FOR UPDATE OF buried
)
DELETE FROM {dead} AS buried USING answered WHERE buried.nb_run = answered.nb_run AND buried.{key} = answered.{key}
"""


class PostgresSink:
    """
    A table of answers and one of dead letters; their columns are the contract in `docs/table-sinks.md`.

    Safe under any number of processes: merges of one table wait for each other only where they share keys.
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
        """Write to `table` (`schema.name`; `public` where it says no schema). Raises BadSink for unusable names."""
        self._connection = connection
        self.layout = Layout.of(
            address(connection),
            table,
            default_schema="public",
            key_column=key_column,
            answer_schema=answer_schema,
            dead_letters_table=dead_letters_table,
        )

    @property
    def identity(self) -> str:
        """`postgresql://host:port/database/schema.table`."""
        return self.layout.sink

    def prepare(self, context: SinkContext) -> None:
        """Create or extend both tables and check rights, types and owner; see `Sink.prepare`."""
        with self._transaction() as database:
            self._check_may_copy(database)
            database.execute("SELECT pg_advisory_xact_lock(%s)", [_PREPARING])
            for table in (self.layout.answers, self.layout.dead):
                prepare_table(database, self.layout, table, context.job)

    def _check_may_copy(self, database: psycopg.Connection) -> None:
        """Raise BadSink where no answers could be loaded, for want of a place to copy them to."""
        may = database.execute("SELECT has_database_privilege(current_database(), 'TEMPORARY')").fetchone()
        if may != (True,):
            remedy = f"GRANT TEMPORARY ON DATABASE {self._connection.schema} to that role."
            raise BadSink(self.identity, problem="the connection's role may not make temporary tables", remedy=remedy)

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """Merge the answers of a part; see `Sink.merge`. Of two rows with one key the later round counts."""
        with self._transaction() as database:
            rows = (self.layout.answer_rows(batch, context) for batch in batches)
            _copy(database, self.layout.answers, rows)
            database.execute(self._upsert(self.layout.answers))
            database.execute(self._filled(_EXHUME, self.layout.answers))
            counted = database.execute(self._filled(_COUNT, self.layout.answers)).fetchone() or (0, 0)
        return MergeCounts(offered=counted[0], merged=counted[0] - counted[1], newer_kept=counted[1])

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write dead letters; gives how many there were in the part. See `Sink.bury`."""
        with self._transaction() as database:
            rows = (self.layout.dead_rows(batch, context) for batch in batches)
            offered = _copy(database, self.layout.dead, rows)
            database.execute(self._filled(_OVERTAKEN, self.layout.dead))
            database.execute(self._upsert(self.layout.dead))
        return offered

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """Stream (key, fingerprint, window end) of every answer through a server cursor; see `Sink.known`."""
        query = sql.SQL("SELECT {}, nb_fingerprint, nb_window_end FROM {}").format(
            sql.Identifier(self.layout.key_column), _identifier(self.layout.answers)
        )
        with self._transaction(read_only=True) as database:
            if not _is_there(database, self.layout.answers):
                return
            with database.cursor(name="nb_known") as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(KNOWN_ROWS):
                    yield rows

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """Stream answers of this run and of those that are not older through a server cursor; see `Sink.held`."""
        query = sql.SQL(_HELD).format(
            key=sql.Identifier(self.layout.key_column), table=_identifier(self.layout.answers)
        )
        with self._transaction(read_only=True) as database:
            if not _is_there(database, self.layout.answers):
                return
            with database.cursor(name="nb_held") as cursor:
                cursor.execute(query, [since.window.end, since.generation, since.run])
                while rows := cursor.fetchmany(KNOWN_ROWS):
                    yield [HeldAnswer(*row) for row in rows]

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """Stream one field of every answer through a server cursor; see `Sink.given`."""
        names = [self.layout.key_column, column_of(self.layout.answer_fields, field, sink=self.identity), *GIVEN]
        columns = _list(sql.Identifier(name) for name in names)
        query = sql.SQL("SELECT {} FROM {}").format(columns, _identifier(self.layout.answers))
        with self._transaction(read_only=True) as database:
            if not _is_there(database, self.layout.answers):
                return
            with database.cursor(name="nb_given") as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(KNOWN_ROWS):
                    yield [GivenAnswer(*row) for row in rows]

    @contextmanager
    def _transaction(self, *, read_only: bool = False) -> Iterator[psycopg.Connection]:
        with translated(self.identity, BadSink), connect(self._connection) as database:
            database.read_only = read_only
            with database.transaction():
                if not read_only:
                    database.execute(_LET_GO)
                yield database

    def _upsert(self, table: Table) -> sql.Composed:
        # Within one run, rows of one key and order differ only when their round does.
        return self._filled(_MERGE, table)

    def _filled(self, template: str, table: Table) -> sql.Composed:
        columns = [sql.Identifier(name) for name in table.columns]
        return sql.SQL(template).format(
            table=_identifier(table),
            answers=_identifier(self.layout.answers),
            dead=_identifier(self.layout.dead),
            part=_PART,
            only_key=sql.Identifier(self.layout.key_column),
            held_order=_order("held"),
            part_order=_order("part"),
            key=_list(sql.Identifier(name) for name in table.key),
            columns=_list(columns),
            last=sql.SQL("nb_round DESC, nb_custom_id DESC"),
            assignments=_list(sql.SQL("{0} = EXCLUDED.{0}").format(column) for column in columns),
            held=_list(sql.SQL("held.{}").format(column) for column in columns),
            offered=_list(sql.SQL("EXCLUDED.{}").format(column) for column in columns),
            in_order=sql.SQL("({}) <= ({})").format(_order("held"), _order("EXCLUDED")),
            is_newer=sql.SQL("({}) > ({})").format(_order("held"), _order("part")),
        )


def _identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(table.name.schema, table.name.name)


def _list(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _order(row: str) -> sql.Composed:
    return _list(sql.SQL(row + ".{}").format(sql.Identifier(name)) for name in ORDER)


def _is_there(database: psycopg.Connection, table: Table) -> bool:
    found = database.execute(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = %s AND relname = %s",
        [table.name.schema, table.name.name],
    )
    return found.fetchone() is not None


def _copy(database: psycopg.Connection, table: Table, batches: Iterable[pa.RecordBatch]) -> int:
    """Put rows into a temporary table `nb_part` that ends with the transaction; gives their number."""
    columns = _list(sql.Identifier(name) for name in table.columns)
    database.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA").format(
            _PART, columns, _identifier(table)
        )
    )
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(_PART, columns)
    count = 0
    with database.cursor() as cursor, cursor.copy(copy) as target:
        for batch in batches:
            count += batch.num_rows
            for start in range(0, batch.num_rows, _COPY_ROWS):
                target.write(copy_lines(batch.slice(start, _COPY_ROWS), list(table.columns.values())))
    # Of the key alone, by which it is joined: of every column, answers too, it would take longer than the merge.
    key = _list(sql.Identifier(name) for name in table.key)
    database.execute(sql.SQL("ANALYZE {} ({})").format(_PART, key))
    return count

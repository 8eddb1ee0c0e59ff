"""Reads records from a DuckDB file: one read-only query, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Self

import duckdb
import pyarrow as pa

from nightbatch.adapters.duckdb_connection import address, connected, file_of, streamed, translated
from nightbatch.adapters.sources.key_ranges import ends_query, key_range, key_ranges, quoted
from nightbatch.adapters.sources.query import WindowQuery, chunks
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk, Connection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PROBE = datetime(1971, 1, 1, 0, 0, 0, 123457, tzinfo=UTC)
"""Times bound only to be found again in a plan, one second apart for each mention."""

_NEEDS_ZONE = re.compile(r"AS TIMESTAMP WITH TIME ZONE\)|'1971-01-01 [^']*'::TIMESTAMP WITH TIME ZONE AS ")
"""In a plan with instants bound: a conversion to an instant, or of one of ours to something else."""

_SAYS_ZONE = re.compile(r"CAST\('[^']*(?:[+-]\d\d(?::?\d\d)?|Z)' AS TIMESTAMP WITH TIME ZONE\)")
"""A literal that says its offset is converted alike in every zone."""

_PERCENTILES = (
    "CASE WHEN any_value(typeof({key})) LIKE 'ENUM(%' THEN [] ELSE quantile_disc({key}, [{shares}])::VARCHAR[] END"
)
"""How sorted keys are cut, as texts; not those of an enum, which sort by its order and compare with texts by theirs."""


class DuckDBSource:
    """
    The rows of a query; the same rules as for PostgreSQL.

    The connection is of type `duckdb`; its host or schema is the path of the file. Nanoseconds are cut off.
    """

    def __init__(
        self,
        connection: Connection,
        sql: str,
        *,
        chunk_rows: int = 500,
        timezone: str | None = None,
        columns: Iterable[str] | None = None,
        whole_table: bool = False,
        key_ranges: bool = False,
    ) -> None:
        """
        Read only `columns`, if given; with `key_ranges`, parts are cut by the first of them.

        Raises BadSource for a query that does not use both parameters.
        """
        self._connection, self._chunk_rows, self._has_ranges = connection, chunk_rows, key_ranges
        self._query = WindowQuery.of(
            sql,
            address=address(connection),
            default_schema="main",
            timezone=timezone,
            columns=columns,
            whole_table=whole_table,
        )

    @property
    def identity(self) -> str:
        """`duckdb:///path/of/file/schema.table`, with a comma between several tables."""
        return self._query.source

    def read(self, window: Window) -> Iterator[Chunk]:
        """
        Stream the query's rows; see `Source.read`.

        A query that cannot be answered in so much memory is asked again with more; see `streamed`.
        """
        with translated(self.identity, BadSource):
            yield from streamed(self._connection, partial(self._read, window), about=self.identity)

    def _read(self, window: Window, memory: str | None) -> Iterator[Chunk]:
        if not file_of(self._connection).exists():
            remedy = f"Create it, or correct the connection {self._connection.conn_id}."
            raise BadSource(self.identity, problem="the database file does not exist", remedy=remedy)
        with connected(self._connection, read_only=True, memory=memory) as database:
            self._check_statement(database)
            values = self._query.values(window, self._local_parameters(database))
            # The zone's name was checked against the IANA database; SET takes no parameters.
            database.execute(f"SET TimeZone = '{self._query.session_zone}'")
            # Not `execute`, whose Arrow reader holds the whole result.
            relation = database.sql(self._query.query.text, params=values)
            picks = self._query.picks(relation.columns)
            reader = relation.to_arrow_reader(self._chunk_rows)
            naive = [index for index in picks if _is_naive(reader.schema.field(index).type)]
            self._query.check_naive([relation.columns[index] for index in naive])
            names = tuple(relation.columns[index] for index in picks)
            yield from chunks(names, self._rows(reader, picks), self._chunk_rows)

    def parts(self, window: Window, *, most: int, least_bytes: int) -> list[dict[str, Any]]:
        """Cut the rows by a hash or by ranges of their key; each part runs the query, which must give the same rows."""
        if not self._has_ranges or most < 2:
            return self._query.hash_parts(most)
        ends = self._asking(ends_query(self._query, _PERCENTILES, most)).read(window)
        return key_ranges(self._query, ends, least_bytes=least_bytes)

    def read_part(self, window: Window, part: Mapping[str, Any], *, seen: dict[str, bool]) -> Iterator[Chunk]:
        """Stream the rows of one part; see the port. A column that is missing is refused at once, as by `read`."""
        query = key_range(self._query, part) if "from" in part else self._of_hash(part)
        yield from self._asking(query).read(window)

    def _asking(self, query: WindowQuery) -> Self:
        one = copy(self)
        one._query = query
        return one

    def _of_hash(self, part: Mapping[str, Any]) -> WindowQuery:
        key = quoted(part["key"])
        test = f"coalesce(hash({key}::VARCHAR), 0) % {int(part['of'])} = {int(part['part'])}"
        return self._query.part(test)

    def _rows(self, reader: pa.RecordBatchReader, picks: list[int]) -> Iterator[tuple[Any, ...]]:
        for batch in reader:
            yield from zip(*[self._values(batch.column(index)) for index in picks], strict=True)

    def _values(self, column: pa.Array) -> list[Any]:
        if pa.types.is_timestamp(column.type):
            return self._times(column)
        values: list[Any] = column.to_pylist()
        return [self._query.aware(value) for value in values] if _is_naive(column.type) else values

    def _times(self, column: pa.Array) -> list[datetime | None]:
        # By counting from 1970, because Arrow's own way imports pandas and pytz where they are installed.
        zone = self._query.zone or UTC
        counts = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64()).to_pylist()
        is_clock = column.type.tz is None
        times: list[datetime | None] = []
        try:
            for count in counts:
                time = None if count is None else _EPOCH + timedelta(microseconds=count)
                times.append(time and (time.replace(tzinfo=zone) if is_clock else time.astimezone(zone)))
        except OverflowError as error:
            remedy = "Leave such records out in the query."
            raise BadSource(self.identity, problem="a time is outside the years 1 to 9999", remedy=remedy) from error
        return times

    def _check_statement(self, database: duckdb.DuckDBPyConnection) -> None:
        statements = database.extract_statements(self._query.query.text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            remedy = "Use one SELECT that only reads."
            raise BadSource(self.identity, problem="the query is not a single SELECT", remedy=remedy)

    def _local_parameters(self, database: duckdb.DuckDBPyConnection) -> list[bool]:
        """
        Say of each mention whether it is compared with local time.

        DuckDB tells no types of parameters, so its plan is asked what it would convert: with local times bound,
        those that it turns into instants are compared with instants. Without a declared zone, nothing in the
        plan may need one.
        """
        if not self._query.query.mentions:
            return []
        if self._query.zone is None:
            return [self._plan_needs_zone(database)] * len(self._query.query.mentions)
        probes = [
            _PROBE.replace(tzinfo=None) + timedelta(seconds=index) for index in range(len(self._query.query.mentions))
        ]
        plan = _plan(database, self._query.query.text, [*probes, *self._query.bounds])
        return [f"CAST('{probe}'::TIMESTAMP AS TIMESTAMP WITH TIME ZONE)" not in plan for probe in probes]

    def _plan_needs_zone(self, database: duckdb.DuckDBPyConnection) -> bool:
        count = len(self._query.query.mentions)
        plan = _plan(
            database,
            self._query.query.text,
            [*(_PROBE + timedelta(seconds=index) for index in range(count)), *self._query.bounds],
        )
        return _NEEDS_ZONE.search(_SAYS_ZONE.sub("", plan)) is not None


def _plan(database: duckdb.DuckDBPyConnection, text: str, values: Sequence[datetime | str]) -> str:
    """Give the plan before it is optimised, with every conversion in it."""
    database.execute("SET explain_output = 'all'").fetchall()
    rows = database.execute(f"EXPLAIN (FORMAT JSON) {text}", values).fetchall()
    return next(str(plan) for name, plan in rows if name == "logical_plan")


def _is_naive(type_: pa.DataType) -> bool:
    if pa.types.is_list(type_):
        return _is_naive(type_.value_type)
    return bool(pa.types.is_timestamp(type_) and type_.tz is None)

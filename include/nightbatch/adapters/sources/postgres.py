"""Reads records from PostgreSQL: one read-only query, streamed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from typing import Any, Self

import psycopg
from psycopg import pq

from nightbatch.adapters.postgres_connection import address, connect, translated
from nightbatch.adapters.sources.key_ranges import ends_query, key_range, key_ranges, quoted
from nightbatch.adapters.sources.query import WindowQuery, chunks
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Chunk, Connection

STREAM_ROWS = 200
"""Rows that libpq hands over at once: 120-150 k rows/s in 36 MB; more costs memory and gains nothing."""

_INSTANT = psycopg.postgres.types["timestamptz"].oid
_LOCAL = psycopg.postgres.types["timestamp"].oid
_LOCAL_LISTS = psycopg.postgres.types["timestamp"].array_oid
_DATE = psycopg.postgres.types["date"].oid

_PERCENTILES = "(percentile_disc(ARRAY[{shares}]::float8[]) WITHIN GROUP (ORDER BY {key}))::text[]"
"""How sorted keys are cut, as texts."""


class PostgresSource:
    """
    The rows of a query. `:window_start` and `:window_end` in it are bound, never pasted.

    Compared with `timestamptz` they are UTC instants; compared with `timestamp` or `date` they are clock times of
    `timezone`, which then must be given. Times in the result are aware: in `timezone`, else in UTC. For a stable
    order the query needs an ORDER BY.
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
            default_schema="public",
            timezone=timezone,
            columns=columns,
            whole_table=whole_table,
        )

    @property
    def identity(self) -> str:
        """`postgresql://host:port/database/schema.table`, with a comma between several tables."""
        return self._query.source

    def read(self, window: Window) -> Iterator[Chunk]:
        """Stream the query's rows; see `Source.read`."""
        with translated(self.identity, BadSource), connect(self._connection) as database:
            database.read_only = True
            with database.transaction():
                database.execute("SELECT set_config('TimeZone', %s, true)", [self._query.session_zone])
                yield from self._stream(database, window)

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
        test = f"(coalesce(hashtext({key}::text), 0)::bigint & 2147483647) % {int(part['of'])} = {int(part['part'])}"
        return self._query.part(test)

    def _stream(self, database: psycopg.Connection, window: Window) -> Iterator[Chunk]:
        described = _describe(database, self._query.query.text)
        values = self._query.values(window, self._local_parameters(described))
        names = [(described.fname(index) or b"").decode() for index in range(described.nfields)]
        picks = self._query.picks(names)
        naive = {index for index in picks if described.ftype(index) in (_LOCAL, _LOCAL_LISTS)}
        self._query.check_naive([names[index] for index in sorted(naive)])
        with psycopg.RawCursor(database) as cursor:
            rows: Iterator[tuple[Any, ...]] = cursor.stream(self._query.query.text, values, size=STREAM_ROWS)
            if naive:
                aware = self._query.aware
                rows = (tuple(aware(row[index]) if index in naive else row[index] for index in picks) for row in rows)
            elif picks != list(range(len(names))):
                rows = (tuple(row[index] for index in picks) for row in rows)
            yield from chunks(tuple(names[index] for index in picks), rows, self._chunk_rows)

    def _local_parameters(self, described: pq.abc.PGresult) -> list[bool]:
        """Say of each mention whether it is compared with local time; PostgreSQL told us the types it expects."""
        is_local = []
        for index, name in enumerate(self._query.query.mentions):
            oid = described.param_type(index)
            if oid not in (_INSTANT, _LOCAL, _DATE):
                known = psycopg.postgres.types.get(oid)
                raise BadSource(
                    self.identity,
                    problem=f"the query uses :{name} as {known.name if known else 'another type'}, not as a time",
                    remedy=f"Say its type: `:{name}::timestamptz`, or `:{name}::timestamp` for clock times.",
                )
            is_local.append(oid != _INSTANT)
        return is_local


def _describe(database: psycopg.Connection, text: str) -> pq.abc.PGresult:
    """Ask PostgreSQL for the types of a query's parameters and columns, without running it."""
    prepared = database.pgconn.prepare(b"", text.encode(), None)
    for result in (prepared, database.pgconn.describe_prepared(b"")):
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(prepared)
    if result.nfields == 0:
        raise psycopg.ProgrammingError("the query gives no rows")
    return result

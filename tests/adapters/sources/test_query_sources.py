"""PostgreSQL and DuckDB give the records of a window: bound, typed, streamed, and never anything else."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.warehouses import Warehouse, connection_to, open_warehouse, rows_of
from tests.servers import PostgresForTests, postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.sources.postgres import PostgresSource
from nightbatch.core.window import Window
from nightbatch.errors import BadSource, ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection

MIDNIGHT = datetime(2026, 10, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
OF_WINDOW = "seen >= :window_start AND seen < :window_end"


@pytest.fixture(params=["postgres", "duckdb"])
def warehouse(request: pytest.FixtureRequest, postgres_server: Any, tmp_path: Path) -> Iterator[Warehouse]:  # noqa: F811
    with open_warehouse(request.param, postgres_server, tmp_path) as empty:
        yield empty


@pytest.fixture
def events(warehouse: Warehouse) -> Warehouse:
    """Three events, at either end of the window and in it, with and without a zone."""
    warehouse.run("CREATE TABLE events (id bigint, seen timestamp with time zone, clock timestamp, day date)")
    warehouse.run(
        """
        INSERT INTO events VALUES
          (1, '2026-10-25 00:00:00+00', '2026-10-25 02:00:00', '2026-10-25'),
          (2, '2026-10-25 23:59:59.999999+00', '2026-10-26 00:59:59.999999', '2026-10-26'),
          (3, '2026-10-26 00:00:00+00', '2026-10-26 01:00:00', '2026-10-26')
        """
    )
    return warehouse


def test_the_records_of_a_window_come_in_chunks(events: Warehouse) -> None:
    source = events.source(f"SELECT id, seen FROM events WHERE {OF_WINDOW} ORDER BY id", chunk_rows=1)

    chunks = list(source.read(DAY))

    assert [chunk.columns for chunk in chunks] == [("id", "seen")] * 2
    assert [chunk.rows for chunk in chunks] == [[(1, MIDNIGHT)], [(2, DAY.end - timedelta(microseconds=1))]]


def test_a_window_without_records_gives_no_chunk(events: Warehouse) -> None:
    source = events.source(f"SELECT id FROM events WHERE {OF_WINDOW}")

    assert list(source.read(Window(MIDNIGHT - HOUR, MIDNIGHT))) == []


def test_only_asked_columns_come_in_the_asked_order(events: Warehouse) -> None:
    source = events.source(f"SELECT id, seen, day FROM events WHERE {OF_WINDOW} ORDER BY id", columns=["day", "id"])

    assert rows_of(source, DAY)[0] == (date(2026, 10, 25), 1)


def test_percent_signs_casts_quotes_and_comments_are_left_alone(events: Warehouse) -> None:
    source = events.source(
        """
        SELECT id::text AS id, '100% of :window_start' AS "a % b", 5 % 3 AS rest, '%s %(x)s' AS marks -- 5% :window_end
        FROM events /* 'it is /* :window_end */ */
        WHERE seen >= :window_start::timestamptz AND seen < :window_end AND 'a''b' LIKE '%''%' ORDER BY id;
        """
    )

    assert rows_of(source, DAY)[0] == ("1", "100% of :window_start", 2, "%s %(x)s")


def test_a_parameter_may_be_used_often_and_in_any_order(events: Warehouse) -> None:
    source = events.source(
        f"SELECT :window_end::timestamptz AS till, id FROM events WHERE {OF_WINDOW} AND seen <> :window_start"
    )

    assert rows_of(source, DAY) == [(DAY.end, 2)]


def test_a_whole_table_is_read_only_on_request(events: Warehouse) -> None:
    assert len(rows_of(events.source("SELECT id FROM events", whole_table=True), DAY)) == 3
    late = events.source("SELECT id FROM events WHERE seen >= :window_end", whole_table=True)
    assert rows_of(late, DAY) == [(3,)]
    with pytest.raises(BadSource, match="so every run would read the same rows"):
        events.source("SELECT id FROM events")


class Hostile(datetime):
    """A time that says something else when it becomes a text."""

    def __str__(self) -> str:
        return "'; DROP TABLE events; --"

    __format__ = __repr__ = isoformat = lambda self, *_: str(self)


def test_a_window_is_never_pasted_into_the_query(events: Warehouse) -> None:
    start, end = (Hostile(2026, 10, day, tzinfo=UTC) for day in (25, 26))
    window = Window(start, end)
    object.__setattr__(window, "start", start)
    object.__setattr__(window, "end", end)

    try:
        rows = rows_of(events.source(f"SELECT id FROM events WHERE {OF_WINDOW} ORDER BY id"), window)
    except BadSource:
        rows = [(1,), (2,)]

    assert rows == [(1,), (2,)]
    assert events.run("SELECT count(*) FROM events") == [(3,)]


CLOCK_QUERY = "SELECT id FROM events WHERE clock >= :window_start AND clock < :window_end ORDER BY id"


@pytest.mark.parametrize(
    "sql",
    [
        CLOCK_QUERY,
        "SELECT id FROM events WHERE seen >= :window_start AND clock < :window_end",
        "SELECT id FROM events WHERE day >= :window_start AND day < :window_end",
        "SELECT id FROM events WHERE seen >= :window_start AND clock < :window_end::timestamp",
        f"SELECT id, clock FROM events WHERE {OF_WINDOW}",
        f"SELECT id, clock AS c FROM (SELECT * FROM events WHERE {OF_WINDOW}) AS e",
    ],
)
def test_clock_times_need_a_declared_zone(events: Warehouse, sql: str) -> None:
    with pytest.raises(BadSource, match=r"Say `timezone:` in the source"):
        list(events.source(sql).read(DAY))

    assert rows_of(events.source(sql, timezone="UTC"), DAY)


def test_a_clock_column_that_is_not_asked_for_needs_no_zone(events: Warehouse) -> None:
    source = events.source(f"SELECT * FROM events WHERE {OF_WINDOW} ORDER BY id", columns=["id"])

    assert rows_of(source, DAY) == [(1,), (2,)]


def test_clock_times_are_compared_in_their_zone_and_come_with_it(events: Warehouse) -> None:
    sql = "SELECT id, clock, seen FROM events WHERE clock >= :window_start AND clock < :window_end ORDER BY id"
    source = events.source(sql, timezone="Europe/Berlin")

    rows = rows_of(source, Window(MIDNIGHT + 22 * HOUR, MIDNIGHT + 24 * HOUR))

    assert [row[0] for row in rows] == [2]
    assert [value.utcoffset() for value in rows[0][1:]] == [HOUR, HOUR]
    assert rows[0][1] == DAY.end - timedelta(microseconds=1)


def test_in_the_doubled_hour_no_record_is_left_out(warehouse: Warehouse) -> None:
    """Each record is written at some instant, with the clock time of Berlin only; hourly windows find all."""
    berlin_midnight = MIDNIGHT - 2 * HOUR
    warehouse.run("CREATE TABLE ticks (id bigint, clock timestamp, seen timestamp with time zone)")
    first_winter = MIDNIGHT + HOUR
    minutes = [berlin_midnight + timedelta(minutes=10 * number) for number in range(6 * 6)]
    values = [
        f"({number}, '{(at + HOUR * (2 if at < first_winter else 1)):%Y-%m-%d %H:%M}', '{at:%Y-%m-%d %H:%M}+00')"
        for number, at in enumerate(minutes)
    ]
    warehouse.run(f"INSERT INTO ticks VALUES {', '.join(values)}")
    by_clock = warehouse.source(
        "SELECT id FROM ticks WHERE clock >= :window_start AND clock < :window_end", timezone="Europe/Berlin"
    )
    by_instant = warehouse.source(f"SELECT id FROM ticks WHERE {OF_WINDOW}", timezone="Europe/Berlin")

    for hour in range(6):
        start = berlin_midnight + timedelta(minutes=60 * hour)
        window = Window(start, start + HOUR)
        expected = {(number,) for number, at in enumerate(minutes) if window.start <= at < window.end}
        assert expected <= set(rows_of(by_clock, window))
        assert expected == set(rows_of(by_instant, window))


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        (f"SELECT id, id FROM events WHERE {OF_WINDOW}", "more than one column named id"),
        (f"SELECT id, seen AS id FROM events WHERE {OF_WINDOW}", "more than one column named id"),
        (f"SELECT id FROM missing WHERE {OF_WINDOW}", "missing"),
        (f"SELECT missing FROM events WHERE {OF_WINDOW}", "missing"),
        (f"SELEC id FROM events WHERE {OF_WINDOW}", "(?i)syntax error"),
        (f"DELETE FROM events WHERE {OF_WINDOW} RETURNING id", "only reads"),
        (f"SELECT 1; DELETE FROM events WHERE {OF_WINDOW}", "source"),
        ("SELECT id FROM events WHERE id >= :window_start AND seen < :window_end", "source"),
    ],
)
def test_a_query_that_cannot_be_used_is_told(events: Warehouse, sql: str, problem: str) -> None:
    with pytest.raises(BadSource, match=problem):
        list(events.source(sql).read(DAY))
    assert events.run("SELECT count(*) FROM events") == [(3,)]


def test_a_missing_column_is_told(events: Warehouse) -> None:
    source = events.source(f"SELECT id FROM events WHERE {OF_WINDOW}", columns=["id", "body"])

    with pytest.raises(BadSource, match="gives no column body, only id"):
        list(source.read(DAY))


def test_an_error_in_the_middle_is_told_without_values(events: Warehouse) -> None:
    cast = f"SELECT CAST(CASE WHEN id = 2 THEN 'secret text' ELSE '1' END AS integer) n FROM events WHERE {OF_WINDOW}"

    with pytest.raises(BadSource) as told:
        list(events.source(cast).read(DAY))

    assert "secret" not in str(told.value)


def test_a_reader_that_stops_early_leaves_nothing_open(events: Warehouse) -> None:
    source = events.source(f"SELECT id FROM events WHERE {OF_WINDOW}", chunk_rows=1)

    chunks = source.read(DAY)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined] -- it is a generator

    events.run("DROP TABLE events")


def test_values_keep_their_types(warehouse: Warehouse) -> None:
    source = warehouse.source(
        """
        SELECT CAST(1.50 AS decimal(10, 2)) AS price, NULL AS nothing, true AS yes, DATE '2026-01-02' AS day,
               'ä\n' AS text, CAST(0.5 AS double precision) AS share
        """,
        whole_table=True,
    )

    assert rows_of(source, DAY) == [(Decimal("1.50"), None, True, date(2026, 1, 2), "ä\n", 0.5)]


def test_a_source_and_a_sink_of_one_table_have_one_identity(warehouse: Warehouse) -> None:
    source = warehouse.source("SELECT 1 FROM shop.Answers", whole_table=True)

    assert source.identity == warehouse.sink("shop.answers").identity
    assert warehouse.connection.password not in (source.identity, "") or not warehouse.connection.password


READ_ALL = """
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from nightbatch.core.window import Window
from nightbatch.ports import Connection
where, host, port, login, password, schema, sql = sys.argv[1:]
module, _, name = where.partition(":")
connection = Connection("c", "c", host=host, port=int(port), login=login, password=password, schema=schema)
start = datetime(2026, 10, 25, tzinfo=UTC)
source = getattr(import_module(module), name)(connection, sql)
rows = sum(len(chunk.rows) for chunk in source.read(Window(start, start + timedelta(days=1))))
# Not getrusage, which counts the size of the process that forked this one.
peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
print(rows, peak_kb // 1024, "pandas" in sys.modules, "pytz" in sys.modules)
"""


@pytest.mark.parametrize("seconds", [200_000])
def test_memory_does_not_grow_with_the_number_of_records(warehouse: Warehouse, seconds: int) -> None:
    """200,000 records of 2 KB are 400 MB; the process stays below half of that, Python and Arrow included."""
    series = "generate_series(1, 200000)" if warehouse.kind == "postgres" else "range(1, 200001)"
    sql = f"""
        SELECT id, repeat('x', 2000) AS body, seen
        FROM (SELECT g AS id, TIMESTAMPTZ '2026-10-25 00:00:00+00' AS seen FROM {series} AS s(g)) AS events
        WHERE {OF_WINDOW}
    """
    class_ = type(warehouse.source("SELECT 1", whole_table=True))
    to = warehouse.connection
    argv = [f"{class_.__module__}:{class_.__qualname__}", to.host, str(to.port or 0), to.login, to.password, to.schema]

    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *argv, sql], capture_output=True, text=True, check=False, timeout=120
    )

    assert done.returncode == 0, done.stderr
    rows, peak_mb, *imports = done.stdout.split()
    assert (int(rows), imports) == (seconds, ["False", "False"])
    assert int(peak_mb) < 200


def test_what_cannot_be_reached_is_tried_again_and_a_wrong_login_is_not(postgres_server: PostgresForTests) -> None:  # noqa: F811
    url = postgres_server.new_database()
    sql = "SELECT 1 AS one"

    with pytest.raises(StorageUnavailable):
        rows_of(PostgresSource(connection_to(url, port=1), sql, whole_table=True), DAY)
    with pytest.raises(ConnectionInvalid, match="authentication failed") as told:
        rows_of(PostgresSource(connection_to(url, password="wr0ng-secret"), sql, whole_table=True), DAY)
    assert "wr0ng-secret" not in str(told.value)
    with pytest.raises(ConnectionInvalid, match="does not exist"):
        rows_of(PostgresSource(connection_to(url, schema="nowhere"), sql, whole_table=True), DAY)
    with pytest.raises(ConnectionInvalid):
        rows_of(PostgresSource(connection_to(url, extra={"sslmode": "sideways"}), sql, whole_table=True), DAY)
    extra = {"options": "-c application_name=chosen", "cursor": "dictcursor"}
    named = PostgresSource(
        connection_to(url, extra=extra), "SELECT current_setting('application_name') AS n", whole_table=True
    )
    assert rows_of(named, DAY) == [("nightbatch",)]


def test_missing_rights_are_told(postgres_server: PostgresForTests) -> None:  # noqa: F811
    url = postgres_server.new_database()
    owner = Warehouse("postgres", connection_to(url))
    owner.run("CREATE TABLE secrets (id int); CREATE ROLE reader LOGIN PASSWORD 'reader'")
    reader = connection_to(url, login="reader", password="reader")
    source = PostgresSource(reader, "SELECT id FROM secrets", whole_table=True)

    with pytest.raises(BadSource, match=r"permission denied.*Grant the connection's role"):
        rows_of(source, DAY)


def test_parameters_of_no_time_are_told_with_the_cast_to_write(postgres_server: PostgresForTests) -> None:  # noqa: F811
    to = connection_to(postgres_server.new_database())
    source = PostgresSource(to, "SELECT 1 WHERE 'x' < :window_start AND now() < :window_end")

    with pytest.raises(BadSource, match=r"uses :window_start as text.*`:window_start::timestamptz`"):
        rows_of(source, DAY)


def test_a_duckdb_file_that_is_absent_or_none_is_told(tmp_path: Path) -> None:
    absent = Warehouse("duckdb", Connection("warehouse", "duckdb", schema=str(tmp_path / "absent.duckdb")))
    with pytest.raises(BadSource, match="does not exist"):
        rows_of(absent.source("SELECT 1", whole_table=True), DAY)
    with pytest.raises(ConnectionInvalid, match="names no file"):
        Warehouse("duckdb", Connection("warehouse", "duckdb")).source("SELECT 1", whole_table=True)
    (tmp_path / "other").write_text("not a database, whatever its name says" * 1000)
    other = Warehouse("duckdb", Connection("warehouse", "duckdb", host=str(tmp_path), schema="other"))
    with pytest.raises(ConnectionInvalid, match="not a valid DuckDB database"):
        rows_of(other.source("SELECT 1", whole_table=True), DAY)

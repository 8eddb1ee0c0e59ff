"""A query bounded by a watermark: new records in a stable order, those without a time too, and a sentence otherwise."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.warehouses import Warehouse, open_warehouse, rows_of
from tests.servers import postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.registry import open_source
from nightbatch.adapters.sources.query import bounded
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.job import Job, Watermark
from nightbatch.ports import PartedSource

MIDNIGHT = datetime(2026, 10, 25, tzinfo=UTC)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))


@pytest.fixture(params=["postgres", "duckdb"])
def tickets(request: pytest.FixtureRequest, postgres_server: Any, tmp_path: Path) -> Iterator[Warehouse]:  # noqa: F811
    """Give tickets at either edge of a day, one without a time, and two of one instant in the wrong order."""
    with open_warehouse(request.param, postgres_server, tmp_path) as warehouse:
        warehouse.run("CREATE TABLE tickets (id bigint, body text, added timestamptz, clock timestamp, day date)")
        warehouse.run(
            """
            INSERT INTO tickets VALUES
              (6, 'last', '2026-10-25 23:59:59.999999+00', '2026-10-26 00:59:59.999999', '2026-10-25'),
              (1, 'before', '2026-10-24 23:59:59.999999+00', '2026-10-25 01:59:59.999999', '2026-10-24'),
              (5, 'same', '2026-10-25 12:00:00+00', '2026-10-25 13:00:00', '2026-10-25'),
              (2, 'first', '2026-10-25 00:00:00+00', '2026-10-25 02:00:00', '2026-10-25'),
              (4, 'same', '2026-10-25 12:00:00+00', '2026-10-25 13:00:00', '2026-10-25'),
              (7, 'next', '2026-10-26 00:00:00+00', '2026-10-26 01:00:00', '2026-10-26'),
              (3, 'timeless', NULL, NULL, NULL)
            """
        )
        yield warehouse


def job_of(query: str, column: str = "added", **source: Any) -> Job:
    watermark = {"column": column, "grace": "2h"}
    return Job.model_validate(
        {
            "name": "tickets",
            "source": {"query": query, "connection": "w", "key": "id", "watermark": watermark, **source},
            "prompt": {"user": "{{ body }}"},
            "models": [{"provider": "openai", "model": "m", "connection": "c"}],
            "sink": {"files": "answers"},
        }
    )


def keys(tickets: Warehouse, query: str, column: str = "added", **source: Any) -> list[int]:
    job = job_of(query, column, **source)
    return [row[0] for row in rows_of(open_source(job, lambda _: tickets.connection), DAY)]


@pytest.mark.parametrize(
    "query",
    [
        "select * from tickets",
        "SELECT id, body, added FROM tickets ORDER BY body;  -- all of them\n",
        "with open_ones as (select * from tickets) select id, body, added from open_ones -- and a comment",
        "select id, body, added from tickets where body <> ';' /* not :a parameter */",
    ],
)
def test_a_query_gives_what_is_in_the_time_by_time_and_key_and_what_has_none(tickets: Warehouse, query: str) -> None:
    assert keys(tickets, query) == [2, 4, 5, 6, 3]


def test_the_column_is_read_beside_what_the_job_asks_about(tickets: Warehouse) -> None:
    source = open_source(job_of("select * from tickets where id = 3"), lambda _: tickets.connection)

    [chunk] = source.read(DAY)

    assert (chunk.columns, chunk.rows) == (("id", "body", "added"), [(3, "timeless", None)])


@pytest.mark.parametrize("by", ["hash", "key_range"])
def test_parts_together_hold_what_is_read_as_one(tickets: Warehouse, by: str) -> None:
    job = job_of("select * from tickets; -- all", parts=3, parts_by=by)
    source = open_source(job, lambda _: tickets.connection)
    assert isinstance(source, PartedSource)

    parts = source.parts(DAY, most=3, least_bytes=1)
    found = [row for part in parts for chunk in source.read_part(DAY, part, seen={}) for row in chunk.rows]

    assert (len(parts), [("until" in part) for part in parts]) == (3, [by == "key_range"] * 3)
    assert sorted(row[0] for row in found) == sorted(row[0] for row in rows_of(source, DAY)) == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("column", ["clock", "day"])
def test_times_without_a_zone_are_in_one_of_the_windows_that_follow_each_other(tickets: Warehouse, column: str) -> None:
    """Clocks in Berlin show two o'clock twice on this night."""
    job = job_of("select * from tickets", column, timezone="Europe/Berlin")
    source = open_source(job, lambda _: tickets.connection)
    day = timedelta(days=1)
    days = [Window(DAY.start + number * day, DAY.end + number * day) for number in (-2, -1, 0, 1)]

    assert {row[0] for one in days for row in rows_of(source, one)} == set(range(1, 8))
    with pytest.raises(BadSource, match="Say `timezone:` in the source"):
        keys(tickets, "select * from tickets", column)


def test_a_column_that_is_no_time_or_not_there_is_a_sentence(tickets: Warehouse) -> None:
    with pytest.raises(BadSource, match="added"):
        keys(tickets, "select id, body from tickets")
    with pytest.raises(BadSource):
        keys(tickets, "select * from tickets", "id")


def test_names_are_quoted() -> None:
    assert bounded("select 1", column='a"b', key="Key").endswith(
        'WHERE "a""b" IS NULL OR ("a""b" >= :window_start AND "a""b" < :window_end) ORDER BY "a""b", "Key"'
    )


def test_a_frame_and_files_go_by_the_watermarks_column(tmp_path: Path) -> None:
    """A record of files without a time is told, as one whose time_column holds none."""
    (tmp_path / "in.jsonl").write_text(
        '{"id": 1, "body": "a", "added": "2026-10-24T23:59:59Z"}\n'
        '{"id": 2, "body": "b", "added": "2026-10-25T00:00:00Z"}\n'
        '{"id": 3, "body": "c", "added": null}\n'
    )
    source = {"files": f"{tmp_path}/in.jsonl", "key": "id", "watermark": Watermark(column="added", grace=timedelta(0))}
    job = job_of("select 1").model_dump(by_alias=True) | {"source": source}

    [chunk] = open_source(Job.model_validate(job), lambda _: pytest.fail("no connection")).read(DAY)

    assert chunk.rows == [(2, "b")]
    assert ["holds no value, so the record belongs to no window" in bad.problem for bad in chunk.unreadable] == [True]

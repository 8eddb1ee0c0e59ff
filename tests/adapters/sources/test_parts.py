"""A source that is read in parts gives what it gives as a whole: each record once, whatever is cut where."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.adapters.warehouses import Warehouse, open_warehouse, rows_of
from tests.servers import postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.sources.files import FileSource
from nightbatch.adapters.sources.key_ranges import key_range
from nightbatch.core.window import ANY
from nightbatch.errors import BadSource
from nightbatch.ports import PartedSource

ROWS = [(f"k{number:02d}", f"text {number}") for number in range(40)]


def in_parts(source: Any, most: int, least_bytes: int = 1) -> list[list[tuple[Any, ...]]]:
    """Read every part by itself, in order."""
    assert isinstance(source, PartedSource)
    parts = json.loads(json.dumps(source.parts(ANY, most=most, least_bytes=least_bytes)))
    return [[row for chunk in source.read_part(ANY, part, seen={}) for row in chunk.rows] for part in parts]


def write_files(folder: Path, kind: str) -> None:
    """Write the rows to ten files, or to one Parquet file of ten row groups."""
    if kind == "row groups":
        table = pa.table({"id": pa.array([key for key, _ in ROWS]), "text": pa.array([text for _, text in ROWS])})
        pq.write_table(table, folder / "all.parquet", row_group_size=4)
        return
    for start in range(0, 40, 4):
        some, name = ROWS[start : start + 4], folder / f"{start:02d}.{kind}"
        if kind == "jsonl":
            name.write_text("".join(json.dumps({"id": key, "text": text}) + "\n" for key, text in some))
        elif kind == "csv":
            name.write_text("id,text\n" + "".join(f"{key},{text}\n" for key, text in some))
        else:
            pq.write_table(pa.table({"id": [key for key, _ in some], "text": [text for _, text in some]}), name)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "row groups"])
@pytest.mark.parametrize("most", [2, 3, 7, 50])
def test_parts_of_files_give_the_whole_in_its_order(tmp_path: Path, kind: str, most: int) -> None:
    write_files(tmp_path, kind)
    source = FileSource(str(tmp_path), columns=("id", "text"))

    parts = in_parts(source, most)

    assert [row for part in parts for row in part] == rows_of(source, ANY) == ROWS
    assert len(parts) == min(most, 10)
    assert all(parts)


def test_small_parts_are_merged(tmp_path: Path) -> None:
    write_files(tmp_path, "jsonl")
    whole = sum(file.stat().st_size for file in tmp_path.iterdir())

    assert [len(part) for part in in_parts(FileSource(str(tmp_path)), 10, whole // 2)] == [20, 20]
    assert [len(part) for part in in_parts(FileSource(str(tmp_path)), 10, whole)] == [40]


def test_a_large_file_and_small_ones_are_cut_by_their_bytes(tmp_path: Path) -> None:
    write_files(tmp_path, "row groups")
    (tmp_path / "last.jsonl").write_text('{"id": "z", "text": "z"}\n')

    parts = in_parts(FileSource(str(tmp_path), columns=("id", "text")), 4)

    assert len(parts) == 4
    assert all(len(part) >= 8 for part in parts)
    assert [row for part in parts for row in part] == [*ROWS, ("z", "z")]


def test_a_part_says_which_columns_no_record_of_it_had(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2, "note": "n"}\n')
    source = FileSource(str(tmp_path), columns=("id", "note"))
    seen: list[dict[str, bool]] = []
    for part in source.parts(ANY, most=2, least_bytes=1):
        seen.append({})
        list(source.read_part(ANY, part, seen=seen[-1]))

    assert seen == [{"id": True, "note": False}, {"id": True, "note": True}]


def test_a_row_group_without_an_asked_column_is_told_once_for_each_row(tmp_path: Path) -> None:
    write_files(tmp_path, "row groups")
    source = FileSource(str(tmp_path), columns=("id", "absent"))
    parts = source.parts(ANY, most=5, least_bytes=1)

    places = [bad.place for part in parts for chunk in source.read_part(ANY, part, seen={}) for bad in chunk.unreadable]

    assert places == [f"file://{tmp_path}/all.parquet row {number}" for number in range(1, 41)]


def test_a_file_that_was_written_anew_since_the_parts_were_cut_is_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "row groups")
    source = FileSource(str(tmp_path))
    part = source.parts(ANY, most=2, least_bytes=1)[1]
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["k00"]}), file)
    (tmp_path / "all.parquet").write_bytes(file.getvalue())

    with pytest.raises(BadSource, match=r"bytes when its folder was cut into parts"):
        list(source.read_part(ANY, part, seen={}))


@pytest.fixture(params=["postgres", "duckdb"])
def warehouse(request: pytest.FixtureRequest, postgres_server: Any, tmp_path: Path) -> Iterator[Warehouse]:  # noqa: F811
    with open_warehouse(request.param, postgres_server, tmp_path) as empty:
        yield empty


def test_parts_of_a_query_hold_each_row_once_also_those_without_a_key(warehouse: Warehouse) -> None:
    warehouse.run('CREATE TABLE items ("Item Id" bigint, text text)')
    warehouse.run("INSERT INTO items SELECT i, 'text ' || i FROM generate_series(1, 500) AS s(i)")
    warehouse.run("INSERT INTO items VALUES (NULL, 'no key'), (NULL, 'none either'), (7, 'again')")
    query = 'SELECT "Item Id", text FROM items ORDER BY 1; -- all of them'
    source = warehouse.source(query, columns=["Item Id", "text"], whole_table=True)

    parts = in_parts(source, 4)

    assert sorted(map(repr, rows_of(source, ANY))) == sorted(repr(row) for part in parts for row in part)
    assert all(len(part) > 60 for part in parts)
    assert all(part == sorted(part, key=lambda row: (row[0] is None, row[0])) for part in parts)


def test_parts_of_a_query_are_bound_to_the_window(warehouse: Warehouse) -> None:
    warehouse.run("CREATE TABLE events (id bigint, seen timestamp with time zone)")
    warehouse.run("INSERT INTO events SELECT i, timestamptz '2000-01-01 00:00:00+00' FROM generate_series(1, 20) s(i)")
    warehouse.run("INSERT INTO events SELECT i, timestamptz '2000-01-03 00:00:00+00' FROM generate_series(30, 40) s(i)")
    source = warehouse.source(
        "WITH recent AS (SELECT * FROM events) "
        "SELECT id FROM recent WHERE seen >= :window_start AND seen < :window_end",
        columns=["id"],
    )

    assert sorted(key for part in in_parts(source, 3) for (key,) in part) == list(range(1, 21))


KEYS = {
    "bigint": "(i * 1000003) % 700001",
    "numeric(12, 3)": "i * 0.125 - 20",
    "double precision": "i * 1.1 - 20",
    "text": "'k''é' || i",
    "uuid": "cast('00000000-0000-0000-0000-' || right('00000000000' || i, 12) as uuid)",
    "timestamp": "timestamp '2026-03-29 00:00:00' + i * interval '1 minute'",
    "timestamp with time zone": "timestamptz '2026-03-29 00:00:00+00' + i * interval '1 minute'",
}


@pytest.mark.parametrize("kind", KEYS)
def test_ranges_of_a_key_hold_each_row_once_and_are_as_large_as_each_other(warehouse: Warehouse, kind: str) -> None:
    """Also rows without a key, keys that come twice, and hours in which clocks are put on."""
    warehouse.run(f'CREATE TABLE items ("Item ""Id" {kind}, seen timestamp with time zone, text text)')
    rows = f"SELECT {KEYS[kind]}, timestamptz '2000-01-01 00:00:00+00', 'text ' || i FROM generate_series(1, 400) s(i)"
    warehouse.run(f"INSERT INTO items {rows}")
    warehouse.run("INSERT INTO items SELECT NULL, seen, 'no key' FROM items LIMIT 3")
    twice = """SELECT "Item ""Id", seen, 'again' FROM items WHERE "Item ""Id" IS NOT NULL LIMIT 9"""
    warehouse.run(f"INSERT INTO items {twice}")
    warehouse.run(f"INSERT INTO items {rows.replace('2000', '2001')}")
    source = warehouse.source(
        "SELECT * FROM items WHERE seen >= :window_start AND seen < :window_end -- all of them",
        columns=['Item "Id', "text"],
        timezone="Europe/Berlin",
        key_ranges=True,
    )

    parts = in_parts(source, 4)

    assert sum(map(len, parts)) == 412
    assert sorted(map(repr, rows_of(source, ANY))) == sorted(repr(row) for part in parts for row in part)
    assert [90 < len(part) < 120 for part in parts] == [True] * 4
    assert [sum(key is None for key, _ in part) for part in parts] == [3, 0, 0, 0]
    assert source.parts(ANY, most=4, least_bytes=1) == source.parts(ANY, most=4, least_bytes=1)


def test_ranges_are_merged_where_there_are_few_rows_and_no_two_have_one_key(warehouse: Warehouse) -> None:
    warehouse.run("CREATE TABLE items (id bigint, text text)")
    source = warehouse.source("SELECT * FROM items", columns=["id", "text"], whole_table=True, key_ranges=True)
    assert in_parts(source, 8) == [[]]

    warehouse.run("INSERT INTO items SELECT i, 'text' FROM generate_series(1, 80) s(i)")
    assert [len(part) for part in in_parts(source, 8, 20_000)] == [19, 20, 20, 21]
    assert [len(part) for part in in_parts(source, 8, 80_000)] == [80]

    warehouse.run("UPDATE items SET id = 7")
    assert sorted(map(len, in_parts(source, 8))) == [0, 80]
    warehouse.run("UPDATE items SET id = NULL")
    assert in_parts(source, 8) == [rows_of(source, ANY)]


def test_ranges_of_a_key_whose_words_have_an_order_of_their_own_hold_each_row_once(warehouse: Warehouse) -> None:
    """DuckDB sorts an enum by that order, and compares it with a text by the alphabet."""
    warehouse.run("CREATE TYPE grade AS ENUM ('z', 'm', 'a', 'q')")
    warehouse.run("CREATE TABLE items (id grade)")
    warehouse.run(
        "INSERT INTO items SELECT (ARRAY['z', 'm', 'a', 'q'])[1 + i % 4]::grade FROM generate_series(0, 199) s(i)"
    )
    source = warehouse.source("SELECT * FROM items", columns=["id"], whole_table=True, key_ranges=True)

    assert sorted(row for part in in_parts(source, 4) for row in part) == sorted(rows_of(source, ANY))


def test_an_index_of_the_key_serves_a_range(postgres_server: Any, tmp_path: Path) -> None:  # noqa: F811
    """Which is what ranges are for: a part then reads its own rows, and not those of all."""
    with open_warehouse("postgres", postgres_server, tmp_path) as warehouse:
        warehouse.run("CREATE TABLE items (id bigint PRIMARY KEY, text text)")
        warehouse.run("INSERT INTO items SELECT i, repeat('x', 500) FROM generate_series(1, 5000) s(i)")
        warehouse.run("ANALYZE items")
        query = "SELECT * FROM items ORDER BY id"
        source: Any = warehouse.source(query, columns=["id", "text"], whole_table=True, key_ranges=True)

        plans = []
        for part in source.parts(ANY, most=10, least_bytes=1):
            bound = key_range(source._query, part)
            text = bound.query.text.replace("$1", f"'{bound.bounds[0]}'").replace("$2", f"'{bound.bounds[-1]}'")
            plans.append(str(warehouse.run(f"EXPLAIN {text}")))

    assert ["Index Cond" in plan for plan in plans] == [True] * 10

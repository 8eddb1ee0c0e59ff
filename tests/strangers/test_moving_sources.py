"""Sources that change under the reader, from the command line: read as they were, or told, and never half."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import duckdb
import obstore
import psycopg
import pytest

from nightbatch.adapters.object_store_connect import open_bucket
from nightbatch.adapters.object_store_names import parse_uri
from nightbatch.adapters.sources import files as file_source
from nightbatch.adapters.sources import postgres as postgres_source
from tests.servers import PostgresForTests, postgres_server
from tests.strangers.desk import Desk, Ended, desk, parrot, spent

__all__ = ["desk", "parrot", "postgres_server"]

MANY = 4_000
LARGE = "".join(json.dumps({"id": f"k{number}", "text": "wide " * 120}) + "\n" for number in range(MANY))
"""More than a reader takes at once."""


def once_during(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[[], object]) -> None:
    """Let something happen when a stream has given its first piece."""
    real, left = getattr(where, name), [act]

    def streamed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for piece in real(*args, **kwargs):
            yield piece
            while left:
                left.pop()()

    monkeypatch.setattr(where, name, streamed)


def once_listed(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let something happen between the listing of a source's files and their reading."""
    real, left = file_source.find_files, [act]

    def listed(*args: Any) -> Any:
        found = real(*args)
        while left:
            left.pop()()
        return found

    monkeypatch.setattr(file_source, "find_files", listed)


def requests(ended: Ended) -> int:
    return int(ended.answer["counts"]["requests"])


def told(ended: Ended, code: int, *words: str) -> None:
    assert (ended.code, [word for word in words if word not in ended.answer["message"]]) == (code, []), ended


# --- files ----------------------------------------------------------------------------------------------------


def test_a_file_that_vanishes_after_it_was_listed_is_told_and_the_next_try_reads_what_is_there(
    desk: Desk, parrot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.job(files="in/*.jsonl")
    for name in ("a", "b"):
        desk.put(f"in/{name}.jsonl", json.dumps({"id": name, "text": "hello"}) + "\n")
    before = spent(parrot)
    once_listed(monkeypatch, (desk.folder / "in" / "b.jsonl").unlink)

    ended = desk.run()
    told(ended, 75, "in/b.jsonl", "it was there when its folder was listed, and is gone")
    assert (spent(parrot), desk.answers()) == (before, {})

    again = desk.run()
    assert (again.code, again.books["pulled"], desk.answers()) == (0, 1, {"a": "hello"}), again


def test_a_file_that_is_deleted_or_replaced_while_it_is_read_is_read_to_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.folder / "records.jsonl"

    def replace() -> None:
        file.unlink()
        desk.records("another")

    for act in (file.unlink, replace):
        file.write_text(LARGE)
        with monkeypatch.context() as during:
            once_during(during, file_source, "read_records", act)
            ended = desk.type("plan", "tickets.yaml")
        assert (ended.code, ended.answer["counts"]["pulled"]) == (0, MANY), ended


def test_a_file_that_is_cut_short_while_it_is_read_is_no_smaller_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut between two lines, so that what is left looks whole."""
    file = desk.folder / "records.jsonl"
    file.write_text(LARGE)

    def cut() -> None:
        with file.open("r+b") as opened:
            opened.truncate(len(LARGE) // MANY * 10)
            opened.seek(0)
            lines = opened.read().splitlines(keepends=True)
            opened.truncate(sum(map(len, lines[:-1])))

    once_during(monkeypatch, file_source, "read_records", cut)

    told(desk.run(), 75, "records.jsonl", "it became shorter while it was read")
    assert desk.answers() == {}


@pytest.mark.parametrize("what", ["vanishes", "is replaced"])
def test_an_object_that_changes_while_it_is_read_is_told_and_not_read_half(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    uri = f"memory://moving-{what.replace(' ', '-')}"
    bucket = open_bucket(parse_uri(uri), None)
    large = (LARGE * 3).encode()
    obstore.put(bucket, "records.jsonl", large)
    desk.job(files=f"{uri}/*.jsonl")

    def act() -> None:
        obstore.delete(bucket, "records.jsonl")
        if what == "is replaced":
            obstore.put(bucket, "records.jsonl", large[: len(large) // 2])

    once_during(monkeypatch, file_source, "read_records", act)

    told(desk.run(), 75, "records.jsonl", "it was deleted or replaced while it was read")
    assert desk.answers() == {}


# --- tables ---------------------------------------------------------------------------------------------------


class Warehouse:
    """The table that the records come from."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, *statements: str) -> None:
        """Run SQL as somebody else."""
        with psycopg.connect(self.url, autocommit=True) as database:
            for statement in statements:
                database.execute(statement.encode())


WIDE = ("--from", "2020-01-01", "--to", "2100-01-01")
QUERY = "select id, text from tickets where arrived >= :window_start and arrived < :window_end order by id"


def job(desk: Desk, query: str) -> None:
    desk.job()
    text = (desk.folder / "tickets.yaml").read_text()
    source = f'{{connection: warehouse, query: "{query}", key: id}}'
    desk.put("tickets.yaml", text.replace("{files: records.jsonl, key: id}", source))


@pytest.fixture
def warehouse(desk: Desk, postgres_server: PostgresForTests, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    url = postgres_server.new_database()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", url)
    job(desk, QUERY)
    found = Warehouse(url)
    found.run(
        "create table tickets (id text primary key, text text, arrived timestamptz)",
        "insert into tickets select 'k' || n, 'text ' || n, now() - interval '1 day' from generate_series(1, 3000) n",
    )
    return found


@pytest.mark.parametrize(
    "statement",
    [
        "delete from tickets",
        "insert into tickets select 'new' || n, 'x', now() - interval '1 day' from generate_series(1, 3000) n",
        "update tickets set id = 'a' || id",
    ],
)
def test_a_table_whose_rows_change_while_it_is_read_is_read_as_it_was(
    desk: Desk, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    once_during(monkeypatch, postgres_source, "chunks", lambda: warehouse.run(statement))

    ended = desk.type("plan", "tickets.yaml", *WIDE)

    assert (ended.code, requests(ended)) == (0, 3_000), ended


def test_a_column_that_is_dropped_while_it_is_read_waits_for_the_reader(
    desk: Desk, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def drop() -> None:
        with suppress(psycopg.errors.LockNotAvailable):
            warehouse.run("set lock_timeout = '50ms'", "alter table tickets drop column text")
            waited.append("it did not")

    once_during(monkeypatch, postgres_source, "chunks", drop)

    ended = desk.type("plan", "tickets.yaml", *WIDE)

    assert (ended.code, requests(ended), waited) == (0, 3_000, []), ended


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("alter table tickets drop column text", "text"),
        ("alter table tickets rename column id to key", "id"),
        ("drop table tickets", "tickets"),
    ],
)
def test_a_table_that_changed_between_a_look_and_the_run_is_told_before_anything_is_spent(
    desk: Desk, warehouse: Warehouse, parrot: str, statement: str, words: str
) -> None:
    before = spent(parrot)
    assert desk.type("plan", "tickets.yaml", *WIDE).code == 0
    warehouse.run(statement)

    ended = desk.type("run", "tickets.yaml", *WIDE)

    told(ended, 2, "PostgreSQL says", words)
    assert (ended.answer["error"], spent(parrot)) == ("BadSource", before)


def test_a_query_that_gives_two_columns_of_one_name_is_told_before_anything_is_spent(
    desk: Desk, warehouse: Warehouse, parrot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = spent(parrot)
    doubled = QUERY.replace("id, text", "id, text, upper(text) as text")
    file = desk.folder / "warehouse.duckdb"
    with duckdb.connect(str(file)) as database:
        database.execute("create table tickets as select 'k1' as id, 'x' as text, now() as arrived")

    for address in (warehouse.url, json.dumps({"conn_type": "duckdb", "host": str(file)})):
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", address)
        job(desk, doubled)
        told(desk.type("run", "tickets.yaml", *WIDE), 2, "more than one column named text", "different names with AS")
    assert spent(parrot) == before

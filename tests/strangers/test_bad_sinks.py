"""Bad sinks, from the command line: told before anything is spent, or loaded later without being paid again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from nightbatch import flow
from tests.servers import PostgresForTests, postgres_server
from tests.strangers.desk import Desk, desk, parrot, spent

__all__ = ["desk", "parrot", "postgres_server"]

SCHEMA = """
answer:
  schema: {type: object, properties: {score: {type: integer}}, required: [score], additionalProperties: false}
"""


@dataclass
class Table:
    """The table that the answers go to, and the database it is in."""

    url: str

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run SQL as its owner, and give the rows of the last statement."""
        with psycopg.connect(self.url, autocommit=True) as database:
            for statement in statements:
                cursor = database.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def scores(self) -> dict[str, Any]:
        """Give key -> score."""
        return dict(self.run("select id, score from scores"))


@pytest.fixture
def table(desk: Desk, postgres_server: PostgresForTests, monkeypatch: pytest.MonkeyPatch) -> Table:
    url = postgres_server.new_database()
    monkeypatch.setenv("AIRFLOW_CONN_ANSWERS", url)
    desk.job(more=SCHEMA)
    text = (desk.folder / "tickets.yaml").read_text()
    desk.put("tickets.yaml", text.replace("{files: answers/, format: jsonl}", "{table: scores, connection: answers}"))
    desk.records('{"score": 1}', '{"score": 2}')
    return Table(url)


def made(desk: Desk, table: Table) -> None:
    """Make the tables as a night does, empty."""
    records = (desk.folder / "records.jsonl").read_text()
    desk.put("records.jsonl", "")
    assert desk.run().code == 0
    desk.put("records.jsonl", records)
    table.run("truncate scores")


BAD = {
    "a view": ("drop table scores; create view scores as select 1 as id", "is a view"),
    "a table of others": ("drop table scores; create table scores (id text primary key)", "did not make"),
    "a column of another type": ("alter table scores alter score type text", "score is text and should be bigint"),
    "a column that must be filled": ("alter table scores add owner text not null", "must be filled: owner"),
    "a column that the database computes": (
        "alter table scores drop score; alter table scores add score bigint generated always as (1) stored",
        "computed by the database: score",
    ),
    "no unique key": ("alter table scores drop constraint scores_pkey", "no unique key"),
    "a role without rights": ("revoke update, delete on scores from guest", "GRANT UPDATE ON"),
    "a role that may not even look": ("revoke all on scores from guest", "GRANT"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_written_is_told_before_anything_is_spent(
    desk: Desk, table: Table, parrot: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    statements, sentence = BAD[name]
    made(desk, table)
    if "guest" in statements:
        role = f"guest_{urlsplit(table.url).path[1:]}"
        table.run(
            f"create role {role} login password 'guest'",
            f"grant usage on schema public to {role}",
            f"grant select, insert, update, delete on scores, scores_dead_letters to {role}",
        )
        statements = statements.replace("guest", role)
        address = urlsplit(table.url)
        monkeypatch.setenv(
            "AIRFLOW_CONN_ANSWERS", urlunsplit(address._replace(netloc=f"{role}:guest@127.0.0.1:{address.port}"))
        )
    table.run(*statements.split("; "))
    before = spent(parrot)

    ended = desk.type("run", "tickets.yaml", "--force")

    assert (ended.code, ended.answer["error"], sentence in ended.answer["message"]) == (2, "BadSink", True), ended
    assert spent(parrot) == before


def once_before(monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> None:
    """Let something happen in the world just before a step is taken for the first time."""
    real, left = getattr(flow, step), [act]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        while left:
            left.pop()()
        return real(*args, **kwargs)

    monkeypatch.setattr(flow, step, wrapped)


MID_RUN = {
    "gone": "drop table scores",
    "a view": "alter table scores rename to moved; create view scores as select distinct * from moved",
    "full of what does not fit": "alter table scores add check (score > 1)",
}


@pytest.mark.parametrize("name", MID_RUN)
def test_a_table_that_changes_mid_run_keeps_its_answers_and_the_next_run_loads_them_unpaid(
    desk: Desk, table: Table, parrot: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = spent(parrot)
    once_before(monkeypatch, "load", lambda: table.run(*MID_RUN[name].split("; ")))

    ended = desk.run()

    assert (ended.code, ended.answer["error"], ended.books["good"]) == (1, "RunUnloaded", 2), ended
    assert "public.scores: PostgreSQL says" in ended.answer["message"], ended
    assert spent(parrot) == before + 1

    if name == "a view":
        table.run("drop view scores", "alter table moved rename to scores")
    elif name != "gone":
        table.run("alter table scores drop constraint scores_score_check")
    again = desk.run()

    assert (again.code, again.books["state"], table.scores()) == (0, "complete", {"k0": 1, "k1": 2}), again
    assert spent(parrot) == before + 1


def test_a_value_that_does_not_fit_its_column_is_null_and_the_whole_answer_is_kept(desk: Desk, table: Table) -> None:
    desk.records('{"score": 1}', '{"score": 99999999999999999999999999}')

    ended = desk.run()

    assert (ended.code, table.scores()) == (0, {"k0": 1, "k1": None}), ended
    assert table.run("select nb_answer ->> 'score' from scores where id = 'k1'") == [("99999999999999999999999999",)]


@pytest.mark.parametrize("folder", ["/proc/nope/answers/", "/sys/answers/", "records.jsonl/answers/"])
def test_a_folder_that_can_never_be_made_is_told_before_anything_is_spent(desk: Desk, parrot: str, folder: str) -> None:
    text = (desk.folder / "tickets.yaml").read_text()
    desk.put("tickets.yaml", text.replace("{files: answers/, format", f"{{files: {folder}, format"))
    desk.records("hello")
    before = spent(parrot)

    ended = desk.run()

    assert (ended.code, ended.answer["error"]) == (2, "BadSink"), ended
    said = ended.answer["message"]
    assert f"{folder.rstrip('/')}/ cannot be made: " in said, ended
    assert said.endswith(". Choose a folder that this user may write to."), ended
    assert spent(parrot) == before


def test_a_folder_that_a_full_disk_keeps_from_being_made_is_tried_again(
    desk: Desk, parrot: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.records("hello")
    make = Path.mkdir

    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.name == "answers":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(self, *args, **kwargs)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "mkdir", full)
        ended = desk.run()

    assert (ended.code, ended.answer["error"]) == (75, "StorageUnavailable"), ended
    assert desk.run().code == 0

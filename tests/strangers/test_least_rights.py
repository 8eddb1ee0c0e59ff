"""A job runs with the grants that docs/security.md lists, and with one less it ends in a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from typer.testing import CliRunner

from nightbatch.cli import app
from tests.servers import PostgresForTests, postgres_server
from tests.strangers.desk import Desk, Ended, desk, parrot

__all__ = ["desk", "parrot", "postgres_server"]

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
GRANT = re.compile(r"GRANT (?P<rights>[A-Z, ]+) ON (?P<what>.+) TO (?P<role>\w+);")
JOB = """
name: tickets
source: {query: "select id, body from sales.tickets", connection: source, key: id, whole_table: true}
prompt: {user: "{{ body }}"}
models: [{provider: openai, model: gpt-5-mini, connection: openai_default, max_output_tokens: 2000}]
sink: {table: answers.tickets, connection: sink}
"""


class Databases:
    """The two databases of docs/security.md, closed to everybody but for its grants."""

    def __init__(self, server: PostgresForTests) -> None:
        self.urls = {name: server.new_database() for name in ("shop", "nightbatch")}
        self.grants = [
            (database, right.strip(), found["what"].replace(f"DATABASE {database}", f"DATABASE {self.name(database)}"))
            for database, role in (("shop", "nb_source"), ("shop", "nb_sink"), ("nightbatch", "nb_ledger"))
            for found in GRANT.finditer(PAGE)
            if found["role"] == role
            for right in found["rights"].split(",")
        ]
        self.roles = [found["role"] for found in GRANT.finditer(PAGE) for _ in found["rights"].split(",")]
        for role in (*sorted(set(self.roles)), "nb_owner"):
            self.run("shop", f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
        for database in self.urls:
            self.run(database, f"REVOKE ALL ON DATABASE {self.name(database)} FROM PUBLIC")
            self.run(database, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        self.run("shop", "CREATE SCHEMA sales; CREATE SCHEMA answers; CREATE TABLE sales.tickets (id text, body text)")
        self.run("shop", "INSERT INTO sales.tickets VALUES ('k1', 'hello')")
        self.run("nightbatch", f"GRANT CONNECT ON DATABASE {self.name('nightbatch')} TO nb_owner")
        self.run("nightbatch", "GRANT USAGE, CREATE ON SCHEMA public TO nb_owner")

    def name(self, database: str) -> str:
        """Give the name that a database of the page has here."""
        return urlsplit(self.urls[database]).path.strip("/")

    def run(self, database: str, sql: str) -> None:
        """Carry out SQL as the superuser."""
        with psycopg.connect(self.urls[database], autocommit=True) as connection:
            connection.execute(sql)

    def grant(self, number: int) -> None:
        """Grant one right."""
        database, right, what = self.grants[number]
        self.run(database, f"GRANT {right} ON {what} TO {self.roles[number]}")

    def revoke(self, number: int) -> None:
        """Take one right away."""
        database, right, what = self.grants[number]
        self.run(database, f"REVOKE {right} ON {what} FROM {self.roles[number]}")

    def url(self, database: str, role: str) -> str:
        """Give the URL of a database for a role."""
        parts = urlsplit(self.urls[database])
        return parts._replace(netloc=f"{role}:{role}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def databases(postgres_server: PostgresForTests) -> Iterator[Databases]:
    """Databases with roles that may do nothing yet."""
    found = Databases(postgres_server)
    yield found
    for database in found.urls:
        for role in (*sorted(set(found.roles)), "nb_owner"):
            found.run(database, f"DROP OWNED BY {role}")
    for role in (*sorted(set(found.roles)), "nb_owner"):
        found.run("shop", f"DROP ROLE {role}")


@pytest.fixture
def night(desk: Desk, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Ended]:
    """Give what runs the job for the next day."""
    for name in ("source", "sink"):
        url = databases.url("shop", f"nb_{name}").replace("postgresql://", "postgres://")
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", url)
    monkeypatch.setenv("NIGHTBATCH_LEDGER_URL", databases.url("nightbatch", "nb_ledger"))
    (desk.folder / "tickets.yaml").write_text(JOB)
    days = iter(range(1, 29))
    return lambda: desk.type("run", "tickets.yaml", "--from", f"2026-10-{next(days):02d}", "--refresh")


def test_a_job_runs_with_the_grants_of_the_page_and_with_one_less_ends_in_a_sentence(
    desk: Desk, databases: Databases, night: Callable[[], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as owner:
        owner.setenv("NIGHTBATCH_LEDGER_URL", databases.url("nightbatch", "nb_owner"))
        assert CliRunner().invoke(app, ["migrate"]).exit_code == 0
    numbers = range(len(databases.grants))
    for number in numbers:
        databases.grant(number)
    # The right to create is missed only as long as there is nothing.
    order = sorted(numbers, key=lambda number: databases.grants[number][1] != "CREATE")
    unneeded, unclear = [], {}
    for number in order:
        databases.revoke(number)
        ended = night()
        said = json.dumps(ended.answer) + ended.said
        if ended.code == 0:
            unneeded.append(databases.grants[number])
        elif (
            ended.code == 75
            or "Unexpected" in said
            or not re.search("permission denied|may not|no schema has been selected", said)
        ):
            unclear[databases.grants[number]] = said
        databases.grant(number)
        if number == order[0]:
            ended = night()
            assert (ended.code, ended.books["state"]) == (0, "complete"), ended

    assert (unneeded, unclear) == ([], {})
    assert len(databases.grants) == 14

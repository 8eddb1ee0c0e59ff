"""`nightbatch audit`: what a run left behind is added up again, and what does not hold is named; on real servers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from nightbatch.core.proof import LINKS
from nightbatch.emulator import EmulatorSettings, running
from tests.test_cli import folder, reach, typed
from tests.test_night_cli import Desk, warehouse_night, window

__all__ = ["folder"]

pytest_plugins = ["tests.servers"]


def audited(*words: str) -> tuple[int, dict[str, Any]]:
    answer = typed("audit", *words, "--json")
    return answer.exit_code, json.loads(answer.stdout)


def test_a_complete_run_adds_up_in_a_table_and_as_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        books = json.loads(typed("run", "tickets.yaml", "--from", "2026-11-21", "--json").stdout)

    shown, listed = typed("audit", "tickets"), typed("audit", books["run"], "--all")
    code, told = audited("tickets")

    assert (shown.exit_code, listed.exit_code, code) == (0, 0, 0)
    assert (told["run"], told["state"], told["adds_up"]) == (books["run"], "complete", True)
    assert {link["name"] for link in told["links"]} == {*LINKS}
    assert all(link["holds"] for link in told["links"])
    assert f"It adds up: {len(told['links'])} links looked at, none is broken." in " ".join(shown.output.split())
    hashes = [link["found"] for link in told["links"] if link["name"] == "file"]
    assert len(hashes) == 4
    assert [sha256 for sha256 in hashes if sha256 not in " ".join(listed.output.split())] == []


def test_a_run_that_fails_to_add_up_says_where_and_audit_shows_it_all(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", "2026-11-21").exit_code == 0
        (file,) = (folder / ".nightbatch/staging").rglob("output.jsonl")
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(lines[1:]))
        again = typed("run", "tickets.yaml", "--from", "2026-11-21")

    said = " ".join(again.output.split())
    assert again.exit_code == 1
    assert "does not add up: file of tickets/" in said
    assert "lines of r0-s000 (batch_" in said
    shown = typed("audit", "tickets")
    assert shown.exit_code == 1
    words = " ".join(shown.output.split())
    assert f"✗ file {file.relative_to(folder / '.nightbatch/staging')}: expected" in words
    assert "do not hold; see DoesNotAddUp in docs/runbook.md." in words


def test_a_run_or_job_that_nobody_knows_is_answered_with_a_sentence(folder: Path) -> None:
    answer = typed("audit", "nobody")

    assert answer.exit_code == 2
    assert "there is no run or job 'nobody' in this ledger" in answer.output


def test_a_run_without_a_plan_has_nothing_to_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTBATCH_LEDGER_URL", f"sqlite:///{folder}/ledger.db")
    from nightbatch.adapters.clock import SystemClock
    from nightbatch.adapters.ledger_sql import SqlLedger
    from nightbatch.core.window import Window

    ledger = SqlLedger.open_or_migrate(f"sqlite:///{folder}/ledger.db")
    ledger.open_run("tickets", Window.from_key("20261121T000000Z-20261122T000000Z"), now=SystemClock().now())
    ledger.close()

    assert "has no plan: nothing was sent" in typed("audit", "tickets").output
    assert audited("tickets")[1]["links"] == []


# --- a night on PostgreSQL, with every fault ------------------------------------------------------------------


@pytest.fixture(scope="module")
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    postgres = request.getfixturevalue("postgres_server")
    with warehouse_night(tmp_path_factory.mktemp("audit"), postgres) as put_up:
        put_up.json("run", "night_sentiment.yaml", *window())
        yield put_up


@pytest.fixture
def at_desk(night: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN", "NIGHTBATCH"))]:
        monkeypatch.delenv(name)
    for name, value in night.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(night.folder)
    return night


def test_a_night_of_faults_adds_up(at_desk: Desk) -> None:
    code, told = audited("night_sentiment")

    assert [link for link in told["links"] if link["holds"] is False] == []
    assert (code, told["adds_up"]) == (0, True)
    assert {link["name"] for link in told["links"]} == set(LINKS)


FIRST, LAST = (f"sentence_id = (select {which}(sentence_id) from night_sentiment)" for which in ("min", "max"))
ON_SINK = {
    f"delete from night_sentiment where {FIRST}": "; none for nb_",
    f"update night_sentiment set nb_cost_usd = nb_cost_usd + 0.000000001 where {FIRST}": "; another custom_id, ",
    f"update night_sentiment set nb_custom_id = 'nb_x' where {LAST}": "; another custom_id, ",
    'insert into night_sentiment select (jsonb_populate_record(one, \'{"sentence_id": "stray"}\')).* '
    "from night_sentiment one limit 1": "1 rows of this run without a good verdict",
}
ON_LEDGER = {
    "update nb_shards set merged = merged + 1 where round = 0 and shard = 0": "loaded of r0-s000",
    "update nb_shards set batch_usd = 1 where round = 0 and shard = 0": "cost of r0-s000",
    "update nb_shards set rates = jsonb_set(rates::jsonb, '{batch,output_usd}', '\"77\"')::json where shard = 0":
        "rates of r0-s000",
    "update nb_attempts set batch_id = 'batch_x' where round = 0 and shard = 0 and state = 'ended'": "batch of r0-s000",
}  # fmt: skip


@pytest.mark.parametrize("statement", [*ON_SINK, *ON_LEDGER])
def test_a_row_that_was_changed_in_postgresql_is_named(at_desk: Desk, statement: str) -> None:
    is_sink, said = statement in ON_SINK, (ON_SINK | ON_LEDGER)[statement]
    table = next(name for name in ("night_sentiment", "nb_shards", "nb_attempts") if name in statement)
    where = at_desk.environ["AIRFLOW_CONN_WAREHOUSE" if is_sink else "NIGHTBATCH_LEDGER_URL"]
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"create table kept as table {table}".encode())
        try:
            assert connection.execute(statement.encode()).rowcount > 0
            code, told = audited("night_sentiment")
        finally:
            restore(connection, table)

    wrong = [f"{link['name']} of {link['place']}: {link['found']}" for link in told["links"] if link["holds"] is False]
    assert code == 1
    assert any(said in text for text in wrong), wrong
    # A cost that was changed is wrong beside its rates and beside the money, and nothing else is.
    blamed = {"sink"} if is_sink else {said.partition(" ")[0], "rates", "money"}
    assert {text.partition(" ")[0] for text in wrong} <= blamed


def restore(connection: psycopg.Connection[Any], table: str) -> None:
    """Put a table back as it was."""
    connection.execute("set session_replication_role = replica")
    connection.execute(f"delete from {table}".encode())
    connection.execute(f"insert into {table} select * from kept".encode())
    connection.execute("drop table kept")

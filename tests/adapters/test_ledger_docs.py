"""The page about the ledger's tables says what the database has, and the views add up."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.adapters.ledger_builders import COST, NOW, collected, intent, opened, sealed_run

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import metadata
from nightbatch.adapters.ledger_types import Usd, UtcTime
from nightbatch.core.ids import ShardRef

pytest_plugins = ["tests.servers"]

PAGE = Path(__file__).parents[2] / "docs" / "ledger.md"
WORDS: dict[type[Any], str] = {
    Usd: "usd",
    UtcTime: "time",
    sa.JSON: "json",
    sa.Text: "text",
    sa.Integer: "integer",
    sa.BigInteger: "integer",
    sa.Boolean: "boolean",
    sa.Date: "date",
}


@pytest.fixture(params=["postgresql", "sqlite"])
def ledger(request: pytest.FixtureRequest) -> Iterator[SqlLedger]:
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    ledger = SqlLedger.open_or_migrate(url)
    yield ledger
    ledger.close()


def documented() -> dict[str, list[tuple[str, str]]]:
    """Read (column, type) of each table and view from the page."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"###? (\w+)", line):
            name = heading[1]
        elif cells := re.fullmatch(r"\| (\w+) \| (\w+) \| (\S.*) \|", line):
            found.setdefault(name, []).append((cells[1], cells[2]))
    return {name: rows[1:] for name, rows in found.items()}


def rows_of(ledger: SqlLedger, view: str) -> list[dict[str, Any]]:
    with ledger._database.read() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {view}")).mappings()]


def test_the_page_names_every_table_column_and_type() -> None:
    tables = {
        table.name: [(column.name, WORDS[type(column.type)]) for column in table.columns]
        for table in metadata.tables.values()
    }

    assert {name: rows for name, rows in documented().items() if not name.startswith("nb_v_")} == tables


def test_the_page_names_every_view_and_its_columns(ledger: SqlLedger) -> None:
    with ledger._database.read() as connection:
        inspector = sa.inspect(connection)
        views = {
            name: [column["name"] for column in inspector.get_columns(name)] for name in inspector.get_view_names()
        }

    pages = documented()
    assert {name: [column for column, _ in pages[name]] for name in pages if name.startswith("nb_v_")} == views


def test_the_views_add_up_exactly(ledger: SqlLedger) -> None:
    run = sealed_run(ledger, shards=4).run
    for number in range(2):
        collected(ledger, ShardRef(run, 0, number), f"batch-{number}")
    ledger.note_loaded(ShardRef(run, 0, 0), merged=98, now=NOW)
    opened(ledger, ShardRef(run, 0, 2), "batch-2")
    refused = ledger.begin(intent(ShardRef(run, 0, 3)), now=NOW)
    ledger.end_attempt(refused.attempt_id, "refused", reason="queue full", retry_at=None, now=NOW)
    ledger.hold(ShardRef(run, 0, 3), "budget", now=NOW)
    sealed_run(ledger, job="idle")

    (costs,) = rows_of(ledger, "nb_v_costs")
    by_job = {row["job"]: row for row in rows_of(ledger, "nb_v_runs")}
    batches = {row["shard"]: row for row in rows_of(ledger, "nb_v_batches")}

    assert (str(costs["day"]), costs["job"], costs["model"], costs["rows"]) == ("2026-11-22", "job", "model-a", 201)
    assert (costs["input_tokens"], costs["output_tokens"]) == (2000, 800)
    assert (usd(costs["batch_usd"]), usd(costs["realtime_usd"])) == (2 * COST.batch_usd, 2 * COST.realtime_usd)
    row = by_job["job"]
    counts = [
        row[name] for name in ("rounds", "shards", "shards_open", "shards_held", "shards_loaded", "rows", "merged")
    ]
    assert counts == [1, 4, 1, 1, 1, 406, 98]
    assert (usd(row["reserved_usd"]), usd(row["actual_usd"])) == ledger.spent(run)
    assert (usd(by_job["idle"]["reserved_usd"]), by_job["idle"]["shards"]) == (0, 1)
    assert [(n, batches[n]["state"], batches[n]["batch_id"]) for n in range(4)] == [
        (0, "ended", "batch-0"),
        (1, "ended", "batch-1"),
        (2, "open", "batch-2"),
        (3, "refused", None),
    ]
    assert [usd(batches[n]["actual_usd"]) for n in range(4)] == [COST.batch_usd, COST.batch_usd, None, None]


def test_the_questions_on_the_page_are_sql(ledger: SqlLedger) -> None:
    questions = re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(questions) == 3
    for question in questions:
        if "DATE '" in question and not ledger._database.is_postgresql:
            continue
        with ledger._database.read() as connection:
            connection.execute(sa.text(question))


def usd(value: Any) -> Decimal | None:
    return None if value is None else Decimal(value)

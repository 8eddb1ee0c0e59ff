"""Two versions of the library on one ledger: they go on side by side, or one of them is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from tests.adapters.ledger_builders import NIGHT, NOW, sealed_run
from typer.testing import CliRunner

from nightbatch.adapters import ledger_tables
from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_migrate import HEAD, version
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.cli import app
from nightbatch.errors import LedgerInUse, LedgerMismatch

pytest_plugins = ["tests.servers"]

NEWER = "9999"


@pytest.fixture(params=["postgresql", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgres_server").new_database())


def run_sql(url: str, *statements: str) -> None:
    database = Database(url)
    with database.write() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    database.close()


def upgraded_to(url: str, revision: str) -> dict[str, dict[str, Any]]:
    """Bring the tables to one version, as its own library does; gives table -> column -> what it is."""
    config = Config()
    config.set_main_option("script_location", "nightbatch.adapters:ledger_migrations")
    database = Database(url)
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    with database.read() as connection:
        inspector = sa.inspect(connection)
        found = {
            table: {column["name"]: dict(column) for column in inspector.get_columns(table)}
            for table in inspector.get_table_names()
        }
    database.close()
    return found


def version_of(url: str) -> str | None:
    database = Database(url)
    with database.read() as connection:
        found = version(connection)
    database.close()
    return found


def grown(url: str, *, works_from: str) -> None:
    """Make the tables as a later version would: one more table, one more column that has a default."""
    SqlLedger.open_or_migrate(url).close()
    run_sql(
        url,
        "CREATE TABLE nb_later (name TEXT PRIMARY KEY)",
        "ALTER TABLE nb_shards ADD COLUMN later TEXT NOT NULL DEFAULT ''",
        f"UPDATE nb_alembic_version SET version_num = '{NEWER}'",
        f"UPDATE nb_meta SET value = '{works_from}' WHERE name = 'works_from'",
    )


def test_an_older_library_goes_on_beside_tables_that_only_grew(url: str) -> None:
    grown(url, works_from=HEAD)

    for open_ledger in (SqlLedger.open, SqlLedger.open_or_migrate):
        ledger = open_ledger(url)
        run = sealed_run(ledger)
        assert [shard.plan.ref.run for shard in ledger.shards(run.run)] == [run.run]
        ledger.close()

    assert version_of(url) == NEWER


def test_an_older_library_is_refused_where_it_could_not_go_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(url, works_from=NEWER)
    monkeypatch.setenv("NIGHTBATCH_LEDGER_URL", url)

    for open_ledger in (SqlLedger.open, SqlLedger.open_or_migrate):
        with pytest.raises(LedgerMismatch, match="Nothing was changed"):
            open_ledger(url)

    said = CliRunner().invoke(app, ["status"])
    assert (said.exit_code, version_of(url)) == (2, NEWER)
    assert f"at version {NEWER}" in said.stderr
    assert "Traceback" not in said.output


def test_an_upgrade_that_older_libraries_cannot_go_on_beside_waits_for_open_runs(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgraded_to(url, "0001")
    run_sql(
        url,
        "INSERT INTO nb_jobs VALUES ('job')",
        "INSERT INTO nb_runs (run, job, window_start_utc, window_end_utc, generation, state, started_utc)"
        " VALUES ('job/1/g1', 'job', '2026-11-21 00:00:00', '2026-11-22 00:00:00', 1, 'open', '2026-11-22 00:00:00')",
    )
    monkeypatch.setenv("NIGHTBATCH_LEDGER_URL", url)

    with pytest.raises(LedgerInUse, match="1 runs are open"):
        SqlLedger.open_or_migrate(url)
    refused = CliRunner().invoke(app, ["migrate"])
    assert (refused.exit_code, version_of(url)) == (2, "0001"), refused.output
    assert "nightbatch migrate --anyway" in refused.stderr

    done = CliRunner().invoke(app, ["migrate", "--anyway"])

    assert (done.exit_code, version_of(url)) == (0, HEAD)
    assert SqlLedger.open(url).run("job/1/g1").state == "open"


def test_an_upgrade_beside_no_open_run_asks_nobody(url: str) -> None:
    upgraded_to(url, "0001")

    ledger = SqlLedger.open_or_migrate(url)

    assert (version_of(url), ledger.open_run("job", NIGHT, now=NOW).state) == (HEAD, "open")


def test_since_the_version_that_it_says_the_tables_only_grew(tmp_path: Path) -> None:
    """What an older library writes must still be whole: no column is gone, and a new one needs no value."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    first = ledger_tables.REVISIONS.index(ledger_tables.WORKS_FROM)
    before = upgraded_to(url, ledger_tables.WORKS_FROM)

    for revision in ledger_tables.REVISIONS[first + 1 :]:
        after = upgraded_to(url, revision)
        assert {table: columns.keys() - after.get(table, {}).keys() for table, columns in before.items()} == {
            table: set() for table in before
        }, f"{revision} takes something away: raise WORKS_FROM to it"
        needed = {
            f"{table}.{name}"
            for table, columns in before.items()
            for name, column in after[table].items()
            if name not in columns and not column["nullable"] and column["default"] is None
        }
        assert needed == set(), f"{revision} asks older libraries for values: give defaults, or raise WORKS_FROM to it"
        before = after
    assert version_of(url) == HEAD

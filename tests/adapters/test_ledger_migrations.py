"""The ledger's tables come into being once, in whatever database, and newer ones are left alone."""

import multiprocessing
import sqlite3
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.adapters.ledger_builders import NIGHT, NOW
from tests.servers import PostgresForTests

from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_migrate import VERSION_TABLE
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import REVISIONS, metadata
from nightbatch.errors import ConnectionInvalid, LedgerMismatch, StorageUnavailable

pytest_plugins = ["tests.servers"]


@pytest.fixture(params=["postgresql", "sqlite-file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite-file":
        return f"sqlite:///{tmp_path}/ledger.db"
    return str(request.getfixturevalue("postgres_server").new_database())


def run_sql(url: str, *statements: str) -> None:
    database = Database(url)
    with database.write() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    database.close()


def test_an_empty_database_gets_its_tables_once(url: str) -> None:
    first = SqlLedger.open_or_migrate(url)
    run = first.open_run("job", NIGHT, now=NOW)
    first.close()

    for again in (SqlLedger.open_or_migrate(url), SqlLedger.open(url)):
        assert again.ledger_id == first.ledger_id
        assert again.runs() == [run]
        again.close()


def test_a_ledger_in_a_file_gets_its_folder(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new folder/100%/ledger.db"
    SqlLedger.open_or_migrate(url).close()

    assert (tmp_path / "new folder" / "100%" / "ledger.db").is_file()


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    SqlLedger.open_or_migrate(url).close()
    database = Database(url)

    def is_ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "table" or name != VERSION_TABLE

    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours})
        difference = compare_metadata(context, metadata)
    database.close()

    assert difference == []


def test_the_versions_are_those_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", "nightbatch.adapters:ledger_migrations")
    script = ScriptDirectory.from_config(config)

    assert [revision.revision for revision in script.walk_revisions()] == list(reversed(REVISIONS))


def test_tables_are_never_made_in_silence(url: str) -> None:
    with pytest.raises(LedgerMismatch, match="at version none"):
        SqlLedger.open(url)

    if url.startswith("sqlite"):
        assert not Path(url.removeprefix("sqlite:///")).exists()


def test_a_newer_ledger_is_left_alone(url: str) -> None:
    SqlLedger.open_or_migrate(url).close()
    run_sql(
        url,
        "UPDATE nb_alembic_version SET version_num = '9999'",
        "UPDATE nb_meta SET value = '9999' WHERE name = 'works_from'",
    )

    for open_ledger in (SqlLedger.open, SqlLedger.open_or_migrate):
        with pytest.raises(LedgerMismatch) as mismatch:
            open_ledger(url)
        assert (mismatch.value.found, mismatch.value.expected) == ("9999", REVISIONS[-1])


def test_a_migration_that_fails_leaves_nothing(url: str) -> None:
    run_sql(url, "CREATE TABLE nb_deliveries (somebody_elses INTEGER)")

    with pytest.raises((sa.exc.DBAPIError, StorageUnavailable), match="nb_deliveries"):
        SqlLedger.open_or_migrate(url)

    assert table_names(url) == {"nb_deliveries"}


def test_it_shares_a_database_with_others(url: str) -> None:
    """Another Alembic's version table is not touched, and not taken for ours."""
    run_sql(url, "CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('theirs')")

    SqlLedger.open_or_migrate(url).close()

    assert {name for name in table_names(url) if not name.startswith("nb_")} == {"alembic_version"}
    assert SqlLedger.open(url).runs() == []


def table_names(url: str) -> set[str]:
    database = Database(url)
    with database.read() as connection:
        names = set(sa.inspect(connection).get_table_names())
    database.close()
    return names


def ledger_id_of(url: str) -> str:
    ledger = SqlLedger.open_or_migrate(url)
    ledger.close()
    return ledger.ledger_id


def test_many_may_start_at_once(url: str) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        ids = set(pool.map(ledger_id_of, [url] * 3))
    with ThreadPoolExecutor(4) as pool:
        ids |= set(pool.map(ledger_id_of, [url] * 4))

    assert len(ids) == 1


def test_threads_may_start_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(ledger_id_of, [url] * 8))

    assert len(ids) == 1


def test_two_ledgers_live_in_two_schemas_of_one_database(postgres_server: PostgresForTests) -> None:
    url = postgres_server.new_database()
    ledgers = [SqlLedger.open_or_migrate(url, schema=schema) for schema in ("one", "The Other", None)]
    runs = [ledger.open_run("job", NIGHT, now=NOW) for ledger in ledgers]

    assert len({ledger.ledger_id for ledger in ledgers}) == 3
    assert [ledger.runs() for ledger in ledgers] == [[run] for run in runs]
    assert SqlLedger.open(url, schema="The Other").ledger_id == ledgers[1].ledger_id
    for ledger in ledgers:
        ledger.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_urls_of_other_drivers_are_understood(postgres_server: PostgresForTests, scheme: str) -> None:
    url = postgres_server.new_database()

    ledger = SqlLedger.open_or_migrate(url.replace("postgresql", scheme, 1))

    assert SqlLedger.open(url).ledger_id == ledger.ledger_id


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("no url: geheim", "cannot be read"),
        ("postgresql://u:geheim@host:port/db", "cannot be read"),
        ("mysql://u:geheim@host/db", "cannot live in mysql"),
    ],
)
def test_an_unusable_url_is_told_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(ConnectionInvalid, match=problem) as invalid:
        SqlLedger.open(url)

    assert "geheim" not in str(invalid.value)


def test_sqlite_has_no_schemas(tmp_path: Path) -> None:
    with pytest.raises(ConnectionInvalid, match="no schemas"):
        SqlLedger.open_or_migrate(f"sqlite:///{tmp_path}/ledger.db", schema="x")


def everything_said(error: BaseException | None) -> str:
    said = []
    while error is not None:
        said.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    return " ".join(said)


def test_a_database_out_of_reach_is_told_without_its_password(postgres_server: PostgresForTests) -> None:
    server = postgres_server.server
    wrong = f"postgresql://nobody:ge%2Fheim@127.0.0.1:{server.port}/postgres?sslpassword=hush"
    refused = "postgresql://u:geheim@127.0.0.1:1/db"

    for url in (wrong, refused):
        with pytest.raises(StorageUnavailable) as unavailable:
            SqlLedger.open_or_migrate(url)
        said = everything_said(unavailable.value)
        assert not [secret for secret in ("geheim", "ge/heim", "ge%2Fheim", "hush") if secret in said]
        assert "127.0.0.1" in str(unavailable.value)


def test_a_server_that_goes_away_is_unavailable_and_then_there_again(postgres_server: PostgresForTests) -> None:
    url = postgres_server.new_database()
    ledger = SqlLedger.open_or_migrate(url)
    run = ledger.open_run("job", NIGHT, now=NOW)

    with (
        pytest.raises(StorageUnavailable, match="cannot be reached"),
        ledger._database.write() as connection,
    ):
        kill_others(url)
        connection.execute(sa.text("DELETE FROM nb_runs"))

    assert ledger.runs() == [run]
    kill_others(url)
    assert ledger.runs() == [run]
    ledger.close()


def kill_others(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_broken_file_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "folder.db"
    file.mkdir()

    with pytest.raises(StorageUnavailable, match="unable to open"):
        SqlLedger.open_or_migrate(f"sqlite:///{file}")


def test_a_writer_does_not_keep_readers_waiting(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    ledger = SqlLedger.open_or_migrate(f"sqlite:///{file}")
    writer = sqlite3.connect(file, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")

    assert ledger.runs() == []

    writer.close()
    ledger.close()


def test_opening_a_ledger_imports_no_alembic(tmp_path: Path) -> None:
    """It takes half a second of a short task, and only a migration needs it."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    SqlLedger.open_or_migrate(url).close()
    script = (
        "import sys; from nightbatch.adapters.ledger_sql import SqlLedger\n"
        "SqlLedger.open_or_migrate(sys.argv[1])\n"
        "print([name for name in ('alembic', 'airflow', 'psycopg') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script, url], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

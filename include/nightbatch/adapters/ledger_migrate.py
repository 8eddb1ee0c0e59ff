"""Bring the ledger's tables to the version of this library, once, whoever else tries or goes on at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database, check_file
from nightbatch.adapters.ledger_tables import REVISIONS, WORKS_FROM, meta, runs
from nightbatch.errors import ConnectionInvalid, LedgerInUse, LedgerMismatch

HEAD = REVISIONS[-1]
VERSION_TABLE = "nb_alembic_version"
_WORKS_FROM_KEY = "works_from"
_LOCK_KEY = 0x6E_69_67_68_74_62_61_74
"""Names the advisory lock in PostgreSQL: "nightbat" in ASCII."""

# Alembic keeps the migration that runs in a global variable.
_one_at_a_time = threading.Lock()


def migrate(database: Database, *, anyway: bool = False) -> None:
    """
    Create the tables, or bring older ones up to date, in one transaction; the rest of the database is left alone.

    Newer tables are left as they are, and used where they say that this library may. Raises LedgerMismatch where they
    say that it may not, and LedgerInUse where runs are open beside which the older library could not go on, unless
    this is to be done `anyway`; both change nothing.
    """
    if database.file is not None:
        _make_folder(database.file.parent)
    with _one_at_a_time, database.write() as connection:
        # SQLite took its only write lock when the transaction began.
        if database.is_postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            _create_schema(connection, database.schema)
        found = version(connection)
        if _is_usable(connection, found):
            return
        if found is not None and found < WORKS_FROM and not anyway:
            _check_idle(connection, found)
        _upgrade(connection)
        connection.execute(sa.delete(meta).where(meta.c.name == _WORKS_FROM_KEY))
        connection.execute(sa.insert(meta).values(name=_WORKS_FROM_KEY, value=WORKS_FROM))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConnectionInvalid(
            "ledger",
            problem=f"its folder {folder} cannot be made ({error.strerror})",
            remedy="Set NIGHTBATCH_HOME to a folder that can be written, or NIGHTBATCH_LEDGER_URL to a database",
        ) from None


def check_version(database: Database) -> None:
    """Raise LedgerMismatch unless this library may work with the tables."""
    check_file(database, expected=HEAD)
    with database.read() as connection:
        found = version(connection)
        if not _is_usable(connection, found):
            raise LedgerMismatch(found=found or "none (there are no tables)", expected=HEAD)


def _is_usable(connection: sa.Connection, found: str | None) -> bool:
    """Say whether the tables can be used as they are, and not only after an upgrade. Raises LedgerMismatch."""
    if found is None or found in REVISIONS:
        return found == HEAD
    works_from = connection.execute(sa.select(meta.c.value).where(meta.c.name == _WORKS_FROM_KEY)).scalar()
    if works_from is None or works_from > HEAD:
        raise LedgerMismatch(found=found, expected=HEAD)
    return True


def _check_idle(connection: sa.Connection, found: str) -> None:
    is_open = sa.select(sa.func.count()).select_from(runs).where(runs.c.state == "open")
    count = connection.execute(is_open).scalar_one()
    if count:
        raise LedgerInUse(found=found, expected=HEAD, open_runs=count)


def version(connection: sa.Connection) -> str | None:
    """Read the version of the tables; None where there are none."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608 - a constant
    return "+".join(sorted(found)) or None


def _create_schema(connection: sa.Connection, schema: str | None) -> None:
    # "IF NOT EXISTS" still asks for the right to create one, which an ordinary user does not have.
    if schema is not None and not sa.inspect(connection).has_schema(schema):
        connection.execute(sa.schema.CreateSchema(schema))


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command  # here: half a second that only a migration needs
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "nightbatch.adapters:ledger_migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

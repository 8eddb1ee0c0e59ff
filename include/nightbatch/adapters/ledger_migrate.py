"""Bring the ledger's tables to the version of this library, once, whoever else tries at the same time."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database, check_file
from nightbatch.adapters.ledger_tables import REVISIONS
from nightbatch.errors import LedgerMismatch

HEAD = REVISIONS[-1]
VERSION_TABLE = "nb_alembic_version"
_LOCK_KEY = 0x6E_69_67_68_74_62_61_74
"""Names the advisory lock in PostgreSQL: "nightbat" in ASCII."""

# Alembic keeps the migration that runs in a global variable.
_one_at_a_time = threading.Lock()


def migrate(database: Database) -> None:
    """
    Create the tables, or bring older ones up to date, in one transaction; the rest of the database is left alone.

    Raises LedgerMismatch, and changes nothing, where the tables are newer than this library.
    """
    if database.file is not None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time, database.write() as connection:
        # SQLite took its only write lock when the transaction began.
        if database.is_postgresql:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            _create_schema(connection, database.schema)
        found = version(connection)
        if found == HEAD:
            return
        if found is not None and found not in REVISIONS:
            raise LedgerMismatch(found=found, expected=HEAD)
        _upgrade(connection)


def check_version(database: Database) -> None:
    """Raise LedgerMismatch unless the tables are of this library's version."""
    check_file(database, expected=HEAD)
    with database.read() as connection:
        found = version(connection)
    if found != HEAD:
        raise LedgerMismatch(found=found or "none (there are no tables)", expected=HEAD)


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

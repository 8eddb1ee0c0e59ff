"""Alembic runs this file: it migrates over the connection, and in the transaction, that it is handed."""

from alembic import context

from nightbatch.adapters.ledger_migrate import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()

"""The ledger's migrations, run by Alembic from within the package: there is no ini file."""

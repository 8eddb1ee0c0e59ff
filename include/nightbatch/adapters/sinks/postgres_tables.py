"""Creates and checks a job's tables in PostgreSQL, before any money is spent."""

from __future__ import annotations

import psycopg
from psycopg import sql

from nightbatch.adapters.sinks.columns import Kind
from nightbatch.adapters.sinks.table import NEVER_NULL, Found, Layout, Table, owner_of
from nightbatch.errors import BadSink

TYPES: dict[Kind, str] = {
    Kind.TEXT: "text",
    Kind.INTEGER: "bigint",
    Kind.NUMBER: "double precision",
    Kind.BOOLEAN: "boolean",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.DATE: "date",
    Kind.DECIMAL: "numeric(18,9)",
    Kind.JSON: "jsonb",
}
"""Types as `format_type` spells them."""

RIGHTS = ("SELECT", "INSERT", "UPDATE")
"""What merging takes; on dead letters also DELETE, for those that an answer takes the place of."""

_FIND = """
SELECT c.oid, c.relkind IN ('r', 'p'), obj_description(c.oid, 'pg_class'), pg_has_role(c.relowner, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod),
       attnotnull AND NOT atthasdef AND attidentity = '', attgenerated <> '' OR attidentity = 'a'
FROM pg_attribute
WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_UNIQUE_KEYS = """
SELECT array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid
             AND a.attnum = ANY ((string_to_array(i.indkey::text, ' ')::int[])[1:i.indnkeyatts]))
FROM pg_index i
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
"""


def prepare_table(database: psycopg.Connection, layout: Layout, table: Table, job: str) -> None:
    """
    Create a table, or check it and add the columns that it lacks. Runs inside the caller's transaction.

    Raises:
        BadSink: When it is no table of ours, another job's, has columns of other types, or rights are missing.
    """
    row = database.execute(_FIND, [table.name.schema, table.name.name]).fetchone()
    if row is None:
        _create(database, table, job)
        return
    oid, is_table, comment, is_ours_to_alter = row
    columns = database.execute(_COLUMNS, [oid]).fetchall()
    found = Found(
        is_table=is_table,
        comment=comment,
        types={name: type_ for name, type_, *_ in columns},
        is_keyed=any(set(key) == set(table.key) for (key,) in database.execute(_UNIQUE_KEYS, [oid])),
        to_fill=frozenset(name for name, _, must_be_filled, _ in columns if must_be_filled),
        computed=frozenset(name for name, _, _, is_computed in columns if is_computed),
    )
    layout.check_usable(table, found)
    _check_rights(database, layout, table, oid)
    layout.check_owner(table, owner_of(comment) or _job_of_rows(database, table, job), job)
    missing = layout.missing(table, found, TYPES)
    for name in missing:
        database.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                _identifier(table), sql.Identifier(name), sql.SQL(TYPES[table.columns[name]])
            )
        )
    if comment is None and is_ours_to_alter:
        _mark(database, table, job)


def _create(database: psycopg.Connection, table: Table, job: str) -> None:
    # CREATE SCHEMA IF NOT EXISTS would need the right to create one even where it is there.
    if not database.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [table.name.schema]).fetchone():
        database.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(table.name.schema)))
    columns = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(name), sql.SQL(TYPES[kind]), sql.SQL(" NOT NULL" if name in NEVER_NULL else "")
        )
        for name, kind in table.columns.items()
    ]
    key = sql.SQL("PRIMARY KEY ({})").format(sql.SQL(", ").join(sql.Identifier(name) for name in table.key))
    database.execute(sql.SQL("CREATE TABLE {} ({})").format(_identifier(table), sql.SQL(", ").join([*columns, key])))
    _mark(database, table, job)


def _mark(database: psycopg.Connection, table: Table, job: str) -> None:
    database.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(_identifier(table), sql.Literal(table.mark(job))))


def _check_rights(database: psycopg.Connection, layout: Layout, table: Table, oid: int) -> None:
    needed = (*RIGHTS, "DELETE") if table.name == layout.dead.name else RIGHTS
    lacking = [
        right
        for right in needed
        for row in database.execute("SELECT has_table_privilege(%s::oid, %s)", [oid, right])
        if not row[0]
    ]
    if lacking:
        rights = ", ".join(lacking)
        remedy = f"GRANT {rights} ON {table.name} to that role."
        raise BadSink(layout.sink, problem=f"the connection's role may not {rights} on {table.name}", remedy=remedy)


def _job_of_rows(database: psycopg.Connection, table: Table, job: str) -> str | None:
    """Give another job that has rows in a table whose comment names none."""
    query = sql.SQL("SELECT nb_job FROM {} WHERE nb_job <> %s LIMIT 1").format(_identifier(table))
    row = database.execute(query, [job]).fetchone()
    return str(row[0]) if row else None


def _identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(table.name.schema, table.name.name)

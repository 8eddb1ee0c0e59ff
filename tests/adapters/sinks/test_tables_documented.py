"""The page that users rely on says what the code does."""

import re
from pathlib import Path

from nightbatch.adapters.sinks import duckdb, postgres_tables
from nightbatch.adapters.sinks.columns import ARROW_TYPES, BOOKKEEPING, Kind
from nightbatch.adapters.sinks.table import DEAD_LETTERS, NEVER_NULL
from nightbatch.adapters.sql_names import MAX_NAME_BYTES, SYSTEM_NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "table-sinks.md").read_text()


def table_under(heading: str) -> list[list[str]]:
    """Give the cells of the first table of a section, without its head."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_types_are_those_of_the_code() -> None:
    said = {row[0]: tuple(row[2:]) for row in table_under("Types")}

    assert said == {
        str(kind): (postgres_tables.TYPES[kind], duckdb.TYPES[kind], str(ARROW_TYPES[kind])) for kind in Kind
    }


def test_the_columns_are_those_of_the_code() -> None:
    for heading, columns in (("Columns of answers", BOOKKEEPING), ("Columns of dead letters", DEAD_LETTERS)):
        assert [(row[0], row[1]) for row in table_under(heading)] == [
            (name, str(kind)) for name, kind in columns.items()
        ]


def test_what_is_never_null_is_said() -> None:
    assert {row[0] for row in table_under("Columns of answers") if "never null" in row[2]} == NEVER_NULL


def test_the_rules_of_names_are_those_of_the_code() -> None:
    assert f"cut at {MAX_NAME_BYTES} bytes" in PAGE
    said = re.search(r"system column of the database \(([^)]*)\)", PAGE)
    assert said is not None
    assert set(re.findall(r"`(\w+)`", said[1])) == SYSTEM_NAMES

"""Names of columns and tables: which ones we choose, and how a table is written in a job file."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

MAX_NAME_BYTES = 63
"""Longest name of a column or table, UTF-8 bytes. Source: PostgreSQL, NAMEDATALEN - 1; the others take longer ones."""

OURS = "nb_"
"""How the names of the bookkeeping columns begin; no answer column begins so."""

NAME = r'(?:"(?:[^"\x00]|"")+"|[^\W\d][\w$]*)'
"""A regular expression for a name as SQL writes it, quoted or not."""

SYSTEM_NAMES = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid", "rowid"}
"""Names that PostgreSQL or DuckDB use for columns of their own."""


def column_names(fields: Iterable[str], key_column: str) -> dict[str, str]:
    """
    Name a column for every field of an answer; no two names are equal, also where case does not count.

    A field whose name needs no change keeps it. Of fields that collide, each of the others gets a suffix made of
    its own name, so that the order of the fields decides nothing.
    """
    wanted = {field: free_name(_normal(field), key_column) for field in fields}
    names = {field: name for field, name in wanted.items() if field == name}
    taken = set(names.values()) | {key_column.lower()}
    claims = list(wanted.values())
    for field in sorted(wanted.keys() - names.keys()):
        name = wanted[field]
        if claims.count(name) > 1 or name in taken:
            name = _suffixed(field, name, taken)
        names[field] = name
        taken.add(name)
    return names


def free_name(name: str, key_column: str) -> str:
    """Prefix a column's name with `answer_` where the key, bookkeeping or the database itself uses it."""
    if name == key_column.lower() or name.startswith(OURS) or name in SYSTEM_NAMES:
        return _cut(f"answer_{name}", MAX_NAME_BYTES)
    return name


def _suffixed(field: str, name: str, taken: set[str]) -> str:
    digest = hashlib.sha256(field.encode("utf-8", "surrogatepass")).hexdigest()
    for digits in range(6, 33):
        suffix = f"_{digest[:digits]}"
        candidate = _cut(name, MAX_NAME_BYTES - len(suffix)) + suffix
        if candidate not in taken:
            return candidate
    raise ValueError(f"no free column name for the field {field!r}")


def _normal(field: str) -> str:
    """Lower case, anything but letters, digits and `_` as `_`, no digit in front, at most 63 bytes."""
    name = re.sub(r"\W", "_", unicodedata.normalize("NFC", field).lower())
    if not name or name[0].isnumeric():
        name = f"_{name}"
    return _cut(name, MAX_NAME_BYTES)


def _cut(name: str, max_bytes: int) -> str:
    return name.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


@dataclass(frozen=True)
class TableName:
    """A table, by the names that the database keeps."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


def table_name(text: str, *, default_schema: str) -> TableName:
    """
    Read `table`, `schema.table` or `"Schema"."Table"`; what is not quoted is lower case, as in SQL.

    Raises ValueError for anything else, and for names that are too long.
    """
    parts = [part[1:-1].replace('""', '"') if part.startswith('"') else part.lower() for part in _split(text)]
    if len(parts) not in (1, 2):
        raise ValueError(f"{text!r} is not a table's name")
    for part in parts:
        if len(part.encode()) > MAX_NAME_BYTES:
            raise ValueError(f"the name {part!r} is longer than {MAX_NAME_BYTES} bytes")
    return TableName(*parts) if len(parts) == 2 else TableName(default_schema, parts[0])


def _split(text: str) -> list[str]:
    if not re.fullmatch(rf"\s*{NAME}(?:\s*\.\s*{NAME})*\s*", text):
        return []
    return re.findall(NAME, text)

"""What warehouse sinks share: the two tables of a job, who owns them, and what goes into them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from nightbatch.adapters.sinks.columns import ARROW_TYPES, BOOKKEEPING, WHOLE, AnswerColumn, Kind, answer_columns
from nightbatch.adapters.sinks.typed import context_texts, typed_batch
from nightbatch.adapters.sql_names import MAX_NAME_BYTES, OURS, TableName, free_name, table_name
from nightbatch.core.arrow import constant_array
from nightbatch.errors import BadSink
from nightbatch.ports import SinkContext

GIVEN = ("nb_prompt_version", "nb_model", "nb_cost_usd")
"""The columns that stand beside a field in `Sink.given`."""


def column_of(columns: Iterable[AnswerColumn], field: str, *, sink: str) -> str:
    """Name the column of an answer's field. Raises BadSink."""
    found = {column.field or WHOLE: column.name for column in columns}
    if field not in found:
        problem = f"it has no column of a field {field} of the answer"
        raise BadSink(sink, problem=problem, remedy=f"Name one of: {', '.join(found)}")
    return found[field]


DEAD_LETTERS: dict[str, Kind] = {
    "nb_reason": Kind.TEXT,
    "nb_detail": Kind.TEXT,
    "nb_raw_answer": Kind.TEXT,
    "nb_fingerprint": Kind.TEXT,
    "nb_model": Kind.TEXT,
    "nb_round": Kind.INTEGER,
    "nb_custom_id": Kind.TEXT,
    "nb_duplicate_of": Kind.TEXT,
    "nb_cost_usd": Kind.DECIMAL,
    "nb_window_start": Kind.TIMESTAMP,
    "nb_window_end": Kind.TIMESTAMP,
    "nb_generation": Kind.INTEGER,
    "nb_run": Kind.TEXT,
    "nb_job": Kind.TEXT,
}
"""The columns of the dead-letter table behind its key column, in order."""

DEAD_SUFFIX = "_dead_letters"

NEVER_NULL = {"nb_window_start", "nb_window_end", "nb_generation", "nb_run", "nb_job"}
"""What the order of rows and their owner rest on."""

SIGNATURE = {"nb_job", "nb_run", "nb_fingerprint"}
"""A table with these columns was made for answers; no column is added to any other."""

ORDER = ("nb_window_end", "nb_generation")
"""A row replaces another only if these, compared in this order, are not older."""

_MARK = re.compile(r"nightbatch: (?:answers|dead letters) of job (?P<job>.+)")


@dataclass(frozen=True)
class Table:
    """One of a job's tables, as it should be."""

    name: TableName
    content: str
    """`answers` or `dead letters`."""
    columns: Mapping[str, Kind]
    key: tuple[str, ...]

    def mark(self, job: str) -> str:
        """Give the comment that says whose table it is, also while it is empty."""
        return f"nightbatch: {self.content} of job {job}"


@dataclass(frozen=True)
class Found:
    """A table as it is in the database."""

    is_table: bool
    comment: str | None
    types: Mapping[str, str]
    is_keyed: bool
    """Whether the database keeps the key unique."""
    to_fill: frozenset[str] = frozenset()
    """Columns that each row must have a value for, and that have no default."""
    computed: frozenset[str] = frozenset()
    """Columns that take no value from anybody."""


@dataclass(frozen=True)
class Layout:
    """Both tables of a job, and how answers and dead letters become their rows."""

    sink: str
    key_column: str
    answer_fields: tuple[AnswerColumn, ...]
    answers: Table
    dead: Table

    @classmethod
    def of(
        cls,
        address: str,
        table: str,
        *,
        default_schema: str,
        key_column: str,
        answer_schema: Mapping[str, Any] | None,
        dead_letters_table: str | None,
    ) -> Layout:
        """Plan the tables. Raises BadSink for names that cannot be used."""
        try:
            name = table_name(table, default_schema=default_schema)
            dead_name = (
                table_name(dead_letters_table, default_schema=name.schema)
                if dead_letters_table
                else TableName(name.schema, name.name + DEAD_SUFFIX)
            )
        except ValueError as error:
            remedy = "Write it as `schema.table` in the job file."
            raise BadSink(f"{address}/{table}", problem=str(error), remedy=remedy) from error
        sink = f"{address}/{name}"
        _check_names(sink, key_column, name, dead_name)
        fields = answer_columns(answer_schema, key_column=key_column)
        kinds = {key_column: Kind.TEXT} | {field.name: field.kind for field in fields} | BOOKKEEPING
        answers = Table(name, "answers", kinds, (key_column,))
        dead = Table(dead_name, "dead letters", {key_column: Kind.TEXT} | DEAD_LETTERS, ("nb_run", key_column))
        return cls(sink, key_column, fields, answers, dead)

    def answer_rows(self, batch: pa.RecordBatch, context: SinkContext) -> pa.RecordBatch:
        """Turn a batch of `ANSWER_SCHEMA` into rows of the table of answers."""
        return typed_batch(batch, self.answer_fields, context, key_column=self.key_column)

    def dead_rows(self, batch: pa.RecordBatch, context: SinkContext) -> pa.RecordBatch:
        """Turn a batch of `DEAD_SCHEMA` into rows of the table of dead letters."""
        import pyarrow.compute as pc  # 30 ms, which who only looks for what is answered already is spared

        constants = context_texts(context)
        arrays = []
        for name, kind in self.dead.columns.items():
            if name in constants:
                arrays.append(constant_array(constants[name], ARROW_TYPES[kind], count=batch.num_rows))
            else:
                source = "key" if name == self.key_column else name.removeprefix(OURS)
                arrays.append(pc.cast(batch.column(source), ARROW_TYPES[kind]))
        return pa.RecordBatch.from_arrays(arrays, names=list(self.dead.columns))

    def check_usable(self, table: Table, found: Found) -> None:
        """Raise BadSink where the thing of that name is no table of answers with a unique key."""
        if not found.is_table:
            self._bad(f"{table.name} is a view or something else that is no table", "Name another table")
        if not found.types.keys() >= SIGNATURE:
            lacking = ", ".join(sorted(SIGNATURE - found.types.keys()))
            self._bad(
                f"{table.name} is a table that nightbatch did not make: it has no column {lacking}",
                "Name a table that does not exist yet; it is created",
            )
        if not found.is_keyed:
            self._bad(
                f"{table.name} has no unique key on {', '.join(table.key)}",
                "Add a primary key on it, or name a table that does not exist yet",
            )
        if foreign := found.to_fill - table.columns.keys():
            self._bad(
                f"{table.name} has columns of others that must be filled: {', '.join(sorted(foreign))}",
                "Give each a default, or let it be null",
            )
        if computed := found.computed & table.columns.keys():
            self._bad(
                f"columns of {table.name} are computed by the database: {', '.join(sorted(computed))}",
                "Make them plain columns, rename the fields in the answer's schema, or name another table",
            )

    def check_owner(self, table: Table, owner: str | None, job: str) -> None:
        """Raise BadSink where the table belongs to another job."""
        if owner is not None and owner != job:
            self._bad(
                f"{table.name} holds the {table.content} of job {owner}, and this is job {job}",
                "Name another table; two jobs would overwrite each other's rows",
            )

    def missing(self, table: Table, found: Found, types: Mapping[Kind, str]) -> list[str]:
        """Give the columns to add, in order. Raises BadSink where one that is there has another type."""
        wrong = [
            f"{name} is {found.types[name]} and should be {types[kind]}"
            for name, kind in table.columns.items()
            if name in found.types and found.types[name] != types[kind]
        ]
        if wrong:
            self._bad(
                f"columns of {table.name} have other types: {'; '.join(wrong)}",
                "Alter the columns, rename the fields in the answer's schema, or name another table",
            )
        return [name for name in table.columns if name not in found.types]

    def _bad(self, problem: str, remedy: str) -> None:
        raise BadSink(self.sink, problem=problem, remedy=f"{remedy}.")


def owner_of(comment: str | None) -> str | None:
    """Read the job out of a table's comment; None where it names none."""
    found = _MARK.match(comment or "")
    return found["job"] if found else None


def _check_names(sink: str, key_column: str, name: TableName, dead: TableName) -> None:
    problem = ""
    if not key_column or len(key_column.encode()) > MAX_NAME_BYTES or "\x00" in key_column:
        problem = f"the key column's name is empty or longer than {MAX_NAME_BYTES} bytes"
    elif free_name(key_column.lower(), "") != key_column.lower():
        problem = f"the key column is named {key_column}, a name that the table needs itself"
    elif len(dead.name.encode()) > MAX_NAME_BYTES:
        problem = f"the name of the dead-letter table {dead.name} is longer than {MAX_NAME_BYTES} bytes"
    elif dead == name:
        problem = "answers and dead letters would go to one table"
    if problem:
        remedy = "Rename the column with AS in the query, or name other tables in the job file."
        raise BadSink(sink, problem=problem, remedy=remedy)

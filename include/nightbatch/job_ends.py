"""Where records come from and where answers go: sources and sinks as a job file says them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from .core.template import BadTemplateError, Deferrable
from .job_parts import ColumnName, Part, Text
from .job_values import Duration, TableName, Uri, Zone, fault, raise_faults

ALONE = timedelta(days=36_500)
"""Further apart than any two windows: so runs of a job with a watermark follow one another."""


class Watermark(Part):
    """Says that records are only ever added, each with a time that stays; a run reads those that none has read."""

    column: ColumnName
    """The column with the time at which a record was added, like `created_at`; never changed later, never null."""
    grace: Annotated[Duration, Field(ge=timedelta(0))]
    """How long after its own time a record may come to be seen, like `2h`; so much is read again, not paid again."""

    @field_validator("grace")
    @classmethod
    def _is_whole(cls, grace: timedelta) -> timedelta:
        if grace % timedelta(seconds=1):
            raise fault("it has a fraction of a second", "Write whole seconds, like 2h")
        return grace


class SourceSpec(Part):
    """What every source says."""

    key: ColumnName
    """The column that names a record: unique, never null, the same in every run."""
    deferrable: Text | None = None
    """An expression over the record (Jinja2, like `priority != "urgent"`); records for which it is false are left out and counted."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    timezone: Zone | None = None
    """The zone of times in the data that carry none."""
    parts: Annotated[int, Field(ge=1, le=500)] = 1
    """Read it in up to so many parts side by side, by several workers; for sources of a million records and more."""
    overlap: Duration = timedelta(0)
    """Read the window from so much earlier on, like `2h`, for records that arrive late; those that were asked before are not sent again."""  # noqa: E501 - one sentence is one line in docs/job-file.md
    watermark: Watermark | None = None
    """Records are only ever added: read what no run has read yet, from where the last one ended."""

    @property
    def reads_all(self) -> bool:
        """Say whether every run reads all records, whatever its window."""
        return False

    @property
    def apart(self) -> timedelta:
        """Say how far apart the windows of two runs must be that are under way at once."""
        return self.overlap if self.watermark is None else ALONE

    @model_validator(mode="after")
    def _overlap_means_something(self) -> SourceSpec:
        if self.overlap % timedelta(seconds=1):
            raise_faults("source", [(("overlap",), "it has a fraction of a second", "Write whole seconds, like 2h")])
        if self.overlap and self.reads_all:
            remedy = "Remove overlap"
            raise_faults("source", [(("overlap",), "every run reads all records anyway", remedy)])
        if self.overlap and self.watermark is not None:
            raise_faults("source", [(("overlap",), "the watermark has a grace for late records", "Keep one of them")])
        return self

    @field_validator("deferrable")
    @classmethod
    def _compiles(cls, expression: str | None) -> str | None:
        if expression is not None:
            try:
                Deferrable(expression)
            except BadTemplateError as error:
                remedy = 'Write one condition over the columns, like priority != "urgent"'
                raise fault(f"the expression cannot be read: {error.problem}", remedy) from error
        return expression


class FileSourceSpec(SourceSpec):
    """Records in files."""

    files: Uri
    """A file, a folder or a glob; may hold `{{ ds }}`, `{{ window_start }}` and `{{ window_end }}` with `strftime`."""
    format: Literal["parquet", "jsonl", "csv"] | None = None
    """What the files are; told by each file's extension where it is absent."""
    time_column: ColumnName | None = None
    """Take only records whose time in this column is inside the window."""
    connection: Text | None = None
    """The connection with the credentials; absent for local files or the machine's own credentials."""

    @property
    def reads_all(self) -> bool:
        """Say whether every run reads all files, with all that is in them."""
        return self.time_in is None and "{{" not in self.files

    @property
    def time_in(self) -> str | None:
        """Give the column whose time says whether a record is read."""
        return self.time_column if self.watermark is None else self.watermark.column

    @model_validator(mode="after")
    def _watermark_is_the_time(self) -> FileSourceSpec:
        raise_faults("source", _second_time(self.watermark, self.time_column))
        if self.watermark is not None and "{{" in self.files:
            problem = "the window's files are named by its start, and a watermark reads from where the last run ended"
            remedy = "Name all files with a glob; or remove watermark"
            raise_faults("source", [(("watermark",), problem, remedy)])
        return self

    @model_validator(mode="after")
    def _overlap_names_the_files(self) -> FileSourceSpec:
        if self.overlap and "{{" in self.files:
            problem = "the window's files are named by its start, which an overlap would move"
            remedy = "Name all files with a glob, and say time_column; or remove overlap"
            raise_faults("source", [(("overlap",), problem, remedy)])
        return self


class QuerySourceSpec(SourceSpec):
    """Records from a database."""

    query: Text
    """One SELECT; `:window_start` and `:window_end` are bound as UTC instants, never pasted into the text."""
    connection: Text
    """The connection of the database."""
    whole_table: bool = False
    """Read the same records whatever the window; without it the query must use both window parameters."""
    parts_by: Literal["hash", "key_range"] = "hash"
    """What `parts` are cut by: a hash of the key, so that each part reads all rows, or ranges of it, which an index of the key can serve."""  # noqa: E501 - one sentence is one line in docs/job-file.md

    @property
    def reads_all(self) -> bool:
        """Say whether every run reads the whole table."""
        return self.whole_table

    @model_validator(mode="after")
    def _is_about_a_window(self) -> QuerySourceSpec:
        if self.watermark is not None:
            raise_faults("source", _bounds_of_its_own(self))
            return self
        missing = [name for name in (":window_start", ":window_end") if name not in self.query]
        if missing and not self.whole_table:
            raise_faults(
                "query",
                [
                    (
                        ("query",),
                        f"it does not use {' and '.join(missing)}, so each run would read everything again",
                        "Add a condition like: changed_at >= :window_start and changed_at < :window_end; "
                        "or set whole_table: true",
                    )
                ],
            )
        return self


class FrameSourceSpec(SourceSpec):
    """Records from a pandas DataFrame or Arrow table; only in Python."""

    frame: Any = Field(exclude=True, repr=False, default=None)
    """The table itself; it is not part of the job's copy in a sealed plan."""
    time_column: ColumnName | None = None
    """Take only records whose time in this column is inside the window."""
    frame_name: Text = "frame"
    """What to call it in messages."""

    @property
    def reads_all(self) -> bool:
        """Say whether every run reads the whole frame."""
        return self.time_in is None

    @property
    def time_in(self) -> str | None:
        """Give the column whose time says whether a record is read."""
        return self.time_column if self.watermark is None else self.watermark.column

    @model_validator(mode="after")
    def _watermark_is_the_time(self) -> FrameSourceSpec:
        raise_faults("source", _second_time(self.watermark, self.time_column))
        return self


Fault = tuple[tuple[str], str, str]


def _second_time(watermark: Watermark | None, time_column: str | None) -> Iterator[Fault]:
    if watermark is not None and time_column is not None:
        yield ("time_column",), "the watermark's column says which records are read", "Remove time_column"


def _bounds_of_its_own(source: QuerySourceSpec) -> Iterator[Fault]:
    if named := [name for name in (":window_start", ":window_end") if name in source.query]:
        # A condition of the query's own would also leave out, in silence, records whose time is null.
        problem = f"the watermark bounds the query, which uses {' and '.join(named)} itself"
        yield ("query",), problem, "Select all records, with the watermark's column among the columns"
    if source.whole_table:
        yield ("whole_table",), "the watermark reads what is new, not the whole table", "Keep one of them"


class TableSinkSpec(Part):
    """A table that answers are merged into by key."""

    table: TableName
    """The table; it is created where it is absent. One table belongs to one job."""
    connection: Text
    """The connection of the database."""
    dead_letters: TableName | None = None
    """The table of dead letters; by default the table's name with `_dead_letters` behind it."""

    @model_validator(mode="after")
    def _are_two_tables(self) -> TableSinkSpec:
        if self.dead_letters is not None and self.dead_letters.lower() == self.table.lower():
            raise fault("answers and dead letters go to one table", "Give dead_letters a table of its own")
        return self


class FileSinkSpec(Part):
    """A folder of files that answers are written to."""

    files: Uri
    """The folder; one folder belongs to one job."""
    connection: Text | None = None
    """The connection with the credentials; absent for local files or the machine's own credentials."""
    format: Literal["parquet", "jsonl"] = "parquet"
    """What to write."""

    @field_validator("files")
    @classmethod
    def _is_a_folder(cls, uri: str) -> str:
        if re.search(r"[*?]|\{\{|\{%", uri):
            raise fault(f"{uri!r} is a pattern", "Name one folder; runs get folders of their own below it")
        return uri


def pick_source(value: Any) -> Any:
    """Choose the kind of source by the key that only it has."""
    if isinstance(value, Part):
        return value
    if not isinstance(value, Mapping):
        raise fault("it is not a mapping of keys", "Write its keys below it, each on a line of its own, indented")
    if "files" in value and "query" in value:
        raise fault("both files and query are set", "Keep the one that is the source")
    kinds: dict[str, type[SourceSpec]] = {
        "files": FileSourceSpec,
        "query": QuerySourceSpec,
        "frame": FrameSourceSpec,
        "frame_name": FrameSourceSpec,
    }
    for key, kind in kinds.items():
        if key in value:
            return kind.model_validate(value)
    raise fault("it has neither files nor query", "Say where the records are: files: s3://…, or query: select …")


def pick_sink(value: Any) -> Any:
    """Choose the kind of sink by the key that only it has."""
    if isinstance(value, Part):
        return value
    if not isinstance(value, Mapping):
        raise fault("it is not a mapping of keys", "Write its keys below it, each on a line of its own, indented")
    if "files" in value and "table" in value:
        raise fault("both files and table are set", "Keep the one that is the sink")
    if "files" in value:
        return FileSinkSpec.model_validate(value)
    if "table" in value:
        return TableSinkSpec.model_validate(value)
    raise fault("it has neither table nor files", "Say where answers go: table: name, or files: s3://…")

"""Answers as files: Parquet or JSON Lines, one file a part, in a bucket or a folder.

The layout and the rule "the latest per key wins" are a contract, documented in `docs/file-sinks.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.columns import Kind, answer_columns, sink_schema
from nightbatch.adapters.sinks.files_dead import read_dead_letters
from nightbatch.adapters.sinks.files_latest import given_of, held_of, known_of, pairs_of, read_latest
from nightbatch.adapters.sinks.files_layout import (
    MARKER,
    Marker,
    make_folder,
    part_name,
    parts_of,
    rank_of,
    read_marker,
)
from nightbatch.adapters.sinks.files_write import dead_batch, dead_schema, write_part
from nightbatch.adapters.sinks.table import column_of
from nightbatch.adapters.sinks.typed import typed_batch
from nightbatch.adapters.sql_names import free_name
from nightbatch.errors import BadSink
from nightbatch.ports import Connection, GivenAnswer, HeldAnswer, MergeCounts, SinkContext

__all__ = ["FileSink", "read_dead_letters", "read_latest"]


class FileSink:
    """
    Implements the port `Sink` with one immutable file for each part of a run.

    A part's file has a name made of window, generation and part, and appears whole or not at all, so that a second
    merge of the same part writes the same file again. Nothing is ever rewritten or deleted for another run: readers
    take, for each key, the row of the latest window, then generation, then part.
    """

    def __init__(
        self,
        uri: str,
        *,
        connection: Connection | None = None,
        format: Literal["parquet", "jsonl"] = "parquet",
        answer_schema: Mapping[str, Any] | None = None,
        key_column: str = "key",
    ) -> None:
        """
        Set the sink up; nothing is written yet.

        Args:
            uri: The folder of this job's answers.
            connection: How to reach the bucket; None for the machine's own credentials.
            format: What new files are; older ones of the other format are still read.
            answer_schema: The job's JSON Schema; None for free text.
            key_column: What the key's column is called.
        """
        self._store = _open(uri, connection)
        if free_name(key_column.lower(), "") != key_column.lower():
            raise BadSink(
                self.identity,
                problem=f"the key column is named {key_column}, a name that the sink needs itself",
                remedy="Rename the column in the source",
            )
        self._format, self._key_column = format, key_column
        self._columns = answer_columns(answer_schema, key_column=key_column)
        self._schema = sink_schema(self._columns, key_column=key_column)

    @property
    def identity(self) -> str:
        """Name the folder."""
        return self._store.identity

    def prepare(self, context: SinkContext) -> None:
        """
        Claim the folder for the job, or check that it is the job's and its columns still fit.

        Raises BadSink for a folder of another job, another key column, or a column that changed its type, and for
        one that cannot be made.
        """
        make_folder(self._store)
        mine = Marker(context.job, self._key_column, {column.name: column.kind.value for column in self._columns})
        if self._store.write(MARKER, mine.encoded(), if_absent=True):
            return
        found = read_marker(self._store)
        if found is None:
            raise BadSink(self.identity, problem=f"{MARKER} came and went", remedy="Look who else writes this folder")
        self._check(found, mine)
        merged = Marker(found.job, found.key_column, {**found.columns, **mine.columns})
        if merged != found:
            self._store.write(MARKER, merged.encoded())

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """Write the answers of one part as one file; rows of a newer window or generation stay the winners."""
        name = part_name("answers", context, part, self._format)
        mine = rank_of(name)
        newer = [other for other in parts_of(self._store, "answers") if rank_of(other)[:2] > mine[:2]]
        keys: set[str] = set()

        def typed() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                if newer:
                    keys.update(batch.column("key").to_pylist())
                yield typed_batch(batch, self._columns, context, key_column=self._key_column)

        offered = write_part(self._store, name, typed(), self._schema, json_columns=self._json_columns())
        kept = self._count(newer, keys) if offered else 0
        return MergeCounts(offered=offered, merged=offered - kept, newer_kept=kept)

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write the dead letters of one part as one file below `dead_letters/`."""
        name = part_name("dead_letters", context, part, self._format)
        typed = (dead_batch(batch, context, key_column=self._key_column) for batch in batches)
        return write_part(self._store, name, typed, dead_schema(self._key_column), json_columns=frozenset())

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """
        Stream (key, fingerprint, window end) of every answer in the files, oldest first; see the port.

        Memory: one chunk of one file.
        """
        yield from known_of(self._store)

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """Stream the answers of this run and of those that are not older, replaced ones too; see `Sink.held`."""
        least = (since.window.end, since.generation)
        for name in parts_of(self._store, "answers"):
            if rank_of(name)[:2] >= least:
                yield from held_of(self._store, name, self._key_column)

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """Stream one field of every answer, the parts of the latest window first; see `Sink.given`."""
        column = column_of(self._columns, field, sink=self.identity)
        kind = next(each.kind for each in self._columns if each.name == column)
        for name in reversed(parts_of(self._store, "answers")):
            yield given_of(self._store, name, self._key_column, column, kind)

    def _json_columns(self) -> frozenset[str]:
        return frozenset(column.name for column in self._columns if column.kind is Kind.JSON) | {"nb_answer"}

    def _count(self, newer: list[str], keys: set[str]) -> int:
        """Count the keys that some newer file has; streams the key columns of the newer files only."""
        left = set(keys)
        for name in newer:
            for pairs in pairs_of(self._store, name, self._key_column):
                left.difference_update(key for key, _ in pairs)
        return len(keys) - len(left)

    def _check(self, found: Marker, mine: Marker) -> None:
        if found.job != mine.job:
            raise BadSink(
                self.identity,
                problem=f"it holds the answers of job {found.job}, and this is job {mine.job}",
                remedy="Give each job a folder of its own",
            )
        if found.key_column != mine.key_column:
            raise BadSink(
                self.identity,
                problem=f"its key column is {found.key_column}, and the job now says {mine.key_column}",
                remedy="Keep the column's name, or give the job a new folder",
            )
        for name, kind in mine.columns.items():
            if found.columns.get(name, kind) != kind:
                raise BadSink(
                    self.identity,
                    problem=f"column {name} holds {found.columns[name]}, and the answer schema now makes it {kind}",
                    remedy="Give the field another name in the schema, or give the job a new folder",
                )


def _open(uri: str, connection: Connection | None) -> ObjectStore:
    try:
        return ObjectStore(uri, connection)
    except ValueError as error:
        raise BadSink(uri, problem=str(error), remedy="Correct the sink's address") from error

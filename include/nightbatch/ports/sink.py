"""Where answers go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from nightbatch.core.window import Window


@dataclass(frozen=True)
class SinkContext:
    """What a load is about; ordering between runs rests on it."""

    job: str
    run: str
    window: Window
    generation: int


@dataclass(frozen=True)
class MergeCounts:
    """What one keyed merge did, counted inside its transaction."""

    offered: int
    merged: int
    """Inserted, or replaced an older or equal row."""
    newer_kept: int
    """Left alone because the sink holds an answer of a newer window or generation."""


class HeldAnswer(NamedTuple):
    """What a sink says of one answer: enough to find the request behind it, and what it was booked at."""

    key: str
    run: str
    fingerprint: str
    custom_id: str
    cost_usd: Decimal | None


class GivenAnswer(NamedTuple):
    """One field of an answer, and which question got it: enough to compare it with a label."""

    key: str
    value: Any
    """As the column holds it; None where the answer has no such value."""
    prompt_version: str
    model: str
    cost_usd: Decimal | None


class Sink(Protocol):
    """
    Rows out: answers and dead letters, merged by key, ordered by window end, then generation.

    Answer batches have the columns of `ANSWER_SCHEMA`; the sink turns `answer` (JSON text) into typed columns by
    the job's schema. Doing a merge again changes nothing.
    """

    def prepare(self, context: SinkContext) -> None:
        """Create what is absent and check what is there. Raises BadSink, also for a table of another job."""

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """
        Merge the answers of one part (a shard's name) atomically; the same part twice changes nothing.

        In the same step the keys' dead letters of this or an older window and generation are no longer to be seen.
        """

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """
        Write dead letters (`DEAD_SCHEMA`), keyed by run and key; the same part twice changes nothing.

        One whose key has an answer of this or a later window and generation stays out of sight: a round that is
        buried again brings back nothing that was answered meanwhile.
        """

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """
        Stream (key, fingerprint, window end) of every answer in the sink, in chunks.

        Of two with one key the later one stands; a sink of files gives replaced ones too. Empty where there is no sink
        yet.
        """

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """
        Stream the answers of this run, and those whose window and generation are not older, in chunks.

        Every answer that is the latest of its key is given; a sink of files may give replaced ones too. Empty where
        there is no sink yet.
        """

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """
        Stream one field of every answer, in chunks; free text, or an answer without fields, is called `answer`.

        The latest of a key comes first; a sink of files may give replaced ones after it. Empty where there is no sink
        yet. Raises BadSink for a field that the sink has no column of.
        """

    @property
    def identity(self) -> str:
        """Name what is written, without secrets, in the same form as a source's."""


ANSWER_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("answer", pa.string()),
        ("provider", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("round", pa.int32()),
        ("custom_id", pa.string()),
        ("duplicate_of", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("cost_usd", pa.decimal128(18, 9)),
    ]
)
"""One good answer. `duplicate_of` is the twin's key, or null; a duplicate costs nothing."""


DEAD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw_answer", pa.string()),
        ("model", pa.string()),
        ("round", pa.int32()),
        ("custom_id", pa.string()),
        ("duplicate_of", pa.string()),
        ("cost_usd", pa.decimal128(18, 9)),
    ]
)
"""One dead letter: why a record has no answer. `raw_answer` is untrusted text, cut at 20,000 characters."""

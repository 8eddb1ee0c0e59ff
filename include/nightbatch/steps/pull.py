"""Step 1, pull: stream the records of a window, and leave out what can not wait or has no usable key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nightbatch.core.request import Messages
from nightbatch.core.template import Deferrable, RenderError
from nightbatch.core.verdict import Reason
from nightbatch.core.window import Window
from nightbatch.job import Job, SourceSpec
from nightbatch.ports import Chunk, PendingFile, Source, Store

from .parquet import read_rows

MAX_KEY_CHARS = 1_000
"""Longer keys are dead letters: no sink's index would take them (PostgreSQL: 2,700 bytes)."""


@dataclass
class Tally:
    """Counts of one prepare; each record that came in is counted in exactly one of the other fields."""

    pulled: int = 0
    from_pending: int = 0
    from_dead: int = 0
    """Dead letters that are sent again."""
    not_deferrable: int = 0
    unchanged: int = 0
    duplicates: int = 0
    superseded: int = 0
    """
    Pending rows and dead letters whose key this window holds anew, or has an answer in the sink of a later window.
    """
    unrenderable: int = 0
    requests: int = 0
    dead_reasons: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)  # not frozen: that takes four times as long to make, a million times a night
class Question:
    """One record, rendered; or the reason why it cannot be asked about."""

    key: str
    messages: Messages | None
    reason: Reason = Reason.NONE
    detail: str = ""
    was_pending: bool = False
    window_end: datetime | None = None
    """The end of the window that a pending row's record was pulled in; None for the run's own window."""
    text: bytes | None = None
    """The user's text as a JSON string, where it was encoded before."""
    originals: Mapping[str, str] | None = None
    """Pseudonym → what it stands for, of a question that was redacted."""

    @property
    def kept(self) -> str | None:
        """Give the originals as an index keeps them: JSON; None where there are none."""
        return json.dumps(self.originals, ensure_ascii=False) if self.originals else None


@dataclass(frozen=True)
class Pulled:
    """Records that may wait, and those that are bad already."""

    chunk: Chunk
    bad: list[Question]


def pull(source: Source, job: Job, reads: Window, tally: Tally, *, limit: int | None = None) -> Iterator[Pulled]:
    """
    Stream the records that can wait, of the time that a run reads (`steps/reads.py`); memory is one chunk.

    Keys come first in each row and are text. `limit` bounds the records read, for a first look.
    """
    deferrable = Deferrable(job.source.deferrable) if job.source.deferrable else None
    for chunk in source.read(reads):
        rows = chunk.rows if limit is None else chunk.rows[: limit - tally.pulled]
        tally.pulled += len(rows) + len(chunk.unreadable)
        found = _keep(Chunk(chunk.columns, rows), job.source, deferrable, tally)
        found.bad.extend(
            Question("", None, Reason.BAD_RECORD, f"{bad.place}: {bad.problem}") for bad in chunk.unreadable
        )
        yield found
        if limit is not None and tally.pulled >= limit:
            return


def _keep(chunk: Chunk, source: SourceSpec, deferrable: Deferrable | None, tally: Tally) -> Pulled:
    at, time = chunk.columns.index(source.key), source.watermark.column if source.watermark else ""
    time_at = chunk.columns.index(time) if time in chunk.columns else None
    if deferrable is None and time_at is None and _are_plain([row[at] for row in chunk.rows]):
        return Pulled(chunk, [])
    waits = deferrable.keep(chunk.columns, chunk.rows) if deferrable else [True] * len(chunk.rows)
    kept: list[tuple[Any, ...]] = []
    bad: list[Question] = []
    for row, wait in zip(chunk.rows, waits, strict=True):
        key, problem = _key_text(row[at])
        if problem:
            bad.append(Question(key, None, Reason.BAD_KEY, problem))
        elif time_at is not None and row[time_at] is None:
            bad.append(Question(key, None, Reason.BAD_RECORD, f"its {time} is null, so no run can tell if it is new"))
        elif isinstance(wait, RenderError):
            bad.append(Question(key, None, Reason.BAD_RECORD, f"deferrable: {wait.reason}"))
        elif not wait:
            tally.not_deferrable += 1
        else:
            kept.append(row if key is row[at] else (*row[:at], key, *row[at + 1 :]))
    return Pulled(Chunk(chunk.columns, kept), bad)


def _are_plain(keys: list[Any]) -> bool:
    """Say that `_key_text` would find nothing to do for any of these keys: five times as fast, and nearly always so."""
    try:
        joined = "".join(keys)
    except TypeError:
        return False
    are_short = max(map(len, keys), default=0) <= MAX_KEY_CHARS
    return are_short and all(keys) and joined.isascii() and joined.isprintable() and " " not in joined


def _key_text(value: Any) -> tuple[str, str]:
    """Give the key as text, and what is wrong with it; an empty problem means nothing is."""
    if value is None:
        return "", "the key is null"
    key = str(value)
    if not key.strip():
        return key, "the key is empty"
    if len(key) > MAX_KEY_CHARS:
        return key[:MAX_KEY_CHARS], f"the key has {len(key):,} characters; at most {MAX_KEY_CHARS:,} are taken"
    if not key.isascii() and key != key.encode(errors="replace").decode():
        return key.encode(errors="replace").decode(), "the key holds half a surrogate pair, which is no text"
    if "\0" in key:
        return key.replace("\0", "�"), "the key holds a NUL character"
    return key, ""


def pull_pending(store: Store, files: list[PendingFile], tally: Tally) -> Iterator[list[Question]]:
    """Stream the rows that earlier runs of the job left pending, as they were rendered then."""
    for file in files:
        batch: list[Question] = []
        for key, system, user, end in read_rows(store, file.name, ("key", "system", "user", "window_end")):
            batch.append(Question(key, Messages(system, user), was_pending=True, window_end=end))
            if len(batch) >= 500:
                tally.from_pending += len(batch)
                yield batch
                batch = []
        tally.from_pending += len(batch)
        yield batch

"""Step 3, pack: encode requests, leave out what is unchanged or asked twice, and fill shards within the limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import NamedTuple

import pyarrow as pa

from nightbatch.core import money
from nightbatch.core.ids import ShardRef, custom_id_prefix, run_code
from nightbatch.core.queue import queued_tokens
from nightbatch.core.request import Messages
from nightbatch.core.shard import Limits, ShardPlan
from nightbatch.core.verdict import Reason
from nightbatch.ports import DEAD_SCHEMA, Store

from .lanes import OpenLane
from .parquet import RowWriter, row_writer
from .pull import Question, Tally
from .seen import Seen

WINDOW_END = pa.timestamp("us", tz="UTC")

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("sends", pa.int32()),
        ("window_end", WINDOW_END),
        ("originals", pa.string()),
    ]
)
"""
One row a request, in the order of the request file. `sends` counts this sending too.

`window_end` is that of the window in which an earlier run pulled the record; null for the run's own records.
`originals` is JSON, pseudonym → what it stands for; null where nothing was redacted. It never leaves the store.
"""

DUPLICATE_SCHEMA = pa.schema(
    [("key", pa.string()), ("fingerprint", pa.string()), ("twin_key", pa.string()), ("window_end", WINDOW_END)]
)
"""Records whose question another record of the run asks already; `window_end` as in the index."""

ENVELOPE_BYTES = 600
"""Generous bound of what a vendor's own wrapping adds to the tokens of one request, in bytes."""


class Carried(NamedTuple):
    """What an index keeps of a request besides what it is about."""

    window_end: datetime | None = None
    originals: str | None = None


NOTHING = Carried()


@dataclass(frozen=True)
class Packed:
    """What packing wrote: the shards, and the names of the two other files (empty where there is nothing)."""

    shards: tuple[ShardPlan, ...]
    duplicates_name: str
    dead_name: str
    duplicates_sha256: str = ""
    dead_sha256: str = ""


class ShardWriter:
    """Writes one shard: its request file and its index, hashed while they stream out."""

    def __init__(self, store: Store, ref: ShardRef, lane: OpenLane, *, ledger: str, folder: str, hint: str) -> None:
        self.ref, self._lane, self._hint = ref, lane, hint
        self.requests_name = f"{folder}/requests.jsonl"
        self.index_name = f"{folder}/index.parquet"
        with ExitStack() as stack:
            self._file = stack.enter_context(store.writer(self.requests_name))
            self._index = stack.enter_context(row_writer(store, self.index_name, INDEX_SCHEMA))
            # Both are open; had the second failed, the first would be gone by now.
            self._stack = stack.pop_all()
        self._prefix = custom_id_prefix(ledger, run_code(ref.run), ref.round, ref.shard)
        self._sha = hashlib.sha256()
        self.rows = self.size_bytes = self._body_bytes = 0

    def line(self, body: bytes) -> bytes:
        """Give the line that the next request would be."""
        return self._lane.encoder.line(f"{self._prefix}{self.rows}", body)

    def is_full_for(self, line: bytes, body_bytes: int, limits: Limits) -> bool:
        """Say whether the next request belongs into another shard."""
        if limits.is_full(rows=self.rows, size_bytes=self.size_bytes, next_bytes=len(line)):
            return True
        return self.rows > 0 and limits.fills_queue(self._body_bytes + body_bytes)

    def add(self, line: bytes, body_bytes: int, *, key: str, fingerprint: str, sends: int, carried: Carried) -> None:
        """Append a request."""
        self._file.write(line)
        self._sha.update(line)
        self._index.add((key, fingerprint, sends, *carried))
        self.rows += 1
        self.size_bytes += len(line)
        self._body_bytes += body_bytes

    def close(self) -> ShardPlan:
        """Finish both files and give the plan."""
        self._stack.close()
        lane = self._lane
        tokens = money.tokens_bound(self._body_bytes + ENVELOPE_BYTES * self.rows)
        cap = (lane.spec.max_output_tokens or 0) * self.rows
        likely_in = lane.experience.input_tokens_expected(self.size_bytes)
        likely_out = lane.experience.output_tokens_expected(rows=self.rows, cap=cap)
        return ShardPlan(
            ref=self.ref,
            choice=lane.choice,
            rows=self.rows,
            size_bytes=self.size_bytes,
            content_sha256=self._sha.hexdigest(),
            requests_name=self.requests_name,
            index_name=self.index_name,
            input_tokens_bound=tokens,
            output_tokens_cap=cap,
            worst_usd=lane.rate.worst_usd(input_tokens=tokens, output_tokens=cap),
            expected_usd=lane.rate.worst_usd(input_tokens=likely_in, output_tokens=likely_out),
            model=lane.spec.model,
            provider=lane.name,
            connection=lane.connection,
            max_output_tokens=lane.spec.max_output_tokens,
            prompt_version=lane.prompt_version,
            hint=self._hint,
            index_sha256=self._index.sha256,
            queue_tokens=queued_tokens(self._body_bytes),
        )

    def abandon(self, error: BaseException) -> None:
        """Let go of both files without leaving one behind."""
        self._stack.__exit__(type(error), error, error.__traceback__)


class ShardFiller:
    """Fills shard after shard of one round; several fillers share the numbering of their round."""

    def __init__(
        self,
        store: Store,
        lane: OpenLane,
        *,
        ledger: str,
        folder: str,
        numbers: Iterator[ShardRef],
        hint: str = "",
        first_rows: int | None = None,
    ) -> None:
        self.first_rows = first_rows
        """Most rows of the first shard, where it goes ahead of the others."""
        self._store, self.lane, self._ledger, self._folder = store, lane, ledger, folder
        self._numbers, self._hint = numbers, hint
        self._open: ShardWriter | None = None
        self._limits = lane.limits.narrowed(max_rows=first_rows)
        """Those of the shard that is open."""
        self.plans: list[ShardPlan] = []

    def encode(self, messages: Messages) -> bytes:
        """Encode one request's body."""
        return self.lane.encoder.body(messages)

    def is_too_large(self, body: bytes) -> bool:
        """Say whether no shard could hold this request."""
        limits = self.lane.limits
        return len(body) + ENVELOPE_BYTES > limits.max_bytes or limits.is_over_queue(len(body))

    def add(self, body: bytes, *, key: str, fingerprint: str, sends: int, carried: Carried = NOTHING) -> None:
        """Append a request, in a new shard where the current one is full."""
        writer = self._open or self._next()
        line = writer.line(body)
        if writer.is_full_for(line, len(body), self._limits):
            self.plans.append(writer.close())
            self._limits = self.lane.limits
            writer = self._next()
            line = writer.line(body)
        writer.add(line, len(body), key=key, fingerprint=fingerprint, sends=sends, carried=carried)

    def _next(self) -> ShardWriter:
        ref = next(self._numbers)
        folder = f"{self._folder}/s{ref.shard:03d}"
        self._open = ShardWriter(self._store, ref, self.lane, ledger=self._ledger, folder=folder, hint=self._hint)
        return self._open

    def close(self) -> list[ShardPlan]:
        """Finish the last shard and give all plans."""
        if self._open is not None:
            self.plans.append(self._open.close())
            self._open = None
        return self.plans

    def abandon(self, error: BaseException) -> None:
        """Leave no half file behind."""
        if self._open is not None:
            self._open.abandon(error)


@contextmanager
def filling(fillers: Iterable[ShardFiller]) -> Iterator[None]:
    """Abandon what is open when the block raises, also in fillers that were added to a collection meanwhile."""
    try:
        yield
    except BaseException as error:
        with ExitStack() as stack:  # goes on to the next filler where one cannot be abandoned
            for filler in fillers:
                stack.callback(filler.abandon, error)
        raise


def numbers(run: str, round_: int, *, first: int = 0, step: int = 1) -> Iterator[ShardRef]:
    """Count the shards of a round; with a step several count side by side and never meet."""
    return (ShardRef(run, round_, shard) for shard in count(first, step))


def fingerprint(lane: OpenLane, body: bytes) -> str:
    """Name a question by all that shapes its answer: 64 hex digits of SHA-256 over endpoint and body."""
    # Hashed in two parts: together they would be a copy of every body.
    sha = hashlib.sha256(lane.endpoint.value.encode() + b"\n")
    sha.update(body)
    return sha.hexdigest()


def pack(
    questions: Iterable[list[Question]], filler: ShardFiller, store: Store, folder: str, *, seen: Seen, tally: Tally
) -> Packed:
    """Pack a round 0; every question ends in exactly one count of the tally."""
    duplicates_name, dead_name = f"{folder}/duplicates.parquet", f"{folder}/bad_records.parquet"
    with (
        row_writer(store, duplicates_name, DUPLICATE_SCHEMA) as duplicates,
        row_writer(store, dead_name, DEAD_SCHEMA) as dead,
        filling([filler]),
    ):
        for part in questions:
            for question in part:
                _place(question, filler, duplicates, dead, seen=seen, tally=tally)
        plans = filler.close()
    return Packed(
        tuple(plans),
        duplicates_name if tally.duplicates else "",
        dead_name if tally.unrenderable else "",
        duplicates.sha256,
        dead.sha256,
    )


def _place(
    question: Question, filler: ShardFiller, duplicates: RowWriter, dead: RowWriter, *, seen: Seen, tally: Tally
) -> None:
    if question.messages is None:
        return _bury(question, question.reason, question.detail, dead, seen=seen, tally=tally)
    body = filler.encode(question.messages)
    print_ = fingerprint(filler.lane, body)
    if filler.is_too_large(body):
        detail = f"the request has {len(body):,} bytes"
        return _bury(question, Reason.TOO_LARGE, detail, dead, seen=seen, tally=tally)
    if not seen.is_new_key(question.key):
        if question.was_pending:
            # The window holds a newer record of this key, and that one is asked about.
            tally.superseded += 1
            return None
        detail = "an earlier record of this run has the key"
        return _bury(question, Reason.DUPLICATE_KEY, detail, dead, seen=seen, tally=tally)
    if question.window_end is not None and seen.is_answered_later(question.key, question.window_end):
        # Another window's run has answered a newer record of this key meanwhile. Asked in this run, the older
        # record's answer would take the newer one's place.
        tally.superseded += 1
        return None
    if seen.is_unchanged(question.key, print_):
        tally.unchanged += 1
        return None
    twin = seen.twin_of(print_, question.key)
    if twin is not None:
        tally.duplicates += 1
        return duplicates.add((question.key, print_, twin, question.window_end))
    tally.requests += 1
    carried = Carried(question.window_end, question.kept)
    return filler.add(body, key=question.key, fingerprint=print_, sends=1, carried=carried)


def _bury(question: Question, reason: Reason, detail: str, dead: RowWriter, *, seen: Seen, tally: Tally) -> None:
    tally.unrenderable += 1
    key = question.key
    if reason in (Reason.BAD_KEY, Reason.DUPLICATE_KEY) or not seen.is_new_key(key):
        # Dead letters are found by key, and this one has none of its own: the first record of a run owns a key, so
        # that one whose answer is bad, rounds later, does not take the place of this one's letter.
        key = f"{key or '(no key)'} (bad record {tally.unrenderable})"
    tally.dead_reasons[reason.value] = tally.dead_reasons.get(reason.value, 0) + 1
    dead.add((key, "", reason.value, detail, None, None, 0, None, None, None))

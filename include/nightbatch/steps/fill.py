"""Fills shards: requests are written as they come, each in the pieces that it is made of, within the limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import count
from typing import NamedTuple

import pyarrow as pa

from nightbatch.core import money
from nightbatch.core.ids import ShardRef, custom_id_prefix, run_code
from nightbatch.core.queue import queued_tokens
from nightbatch.core.request import Endpoint, Frame
from nightbatch.core.shard import Limits, ShardPlan
from nightbatch.ports import Encoder, Store

from .lanes import OpenLane
from .parquet import row_writer

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

GATHERED_BYTES = 1 << 18
"""So much is written and hashed at a time: more would be memory that is touched anew each time, which costs more."""


class Around:
    """What stands around the user's text of a request, with what is worked out once for all texts."""

    def __init__(self, endpoint: Endpoint, encoder: Encoder, frame: Frame) -> None:
        before, after = frame.before, frame.after
        self.head, self.tail = encoder.envelope.before_body + before, after + encoder.envelope.after_body
        self.body_bytes = len(before) + len(after)
        self._after = after
        self._sha = hashlib.sha256(endpoint.value.encode() + b"\n" + before)

    def fingerprint(self, text: bytes) -> str:
        """Name a question by all that shapes its answer: 64 hex digits of SHA-256 over endpoint and body."""
        sha = self._sha.copy()
        sha.update(text)
        sha.update(self._after)
        return sha.hexdigest()


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
        prefix = custom_id_prefix(ledger, run_code(ref.run), ref.round, ref.shard)
        self._sha = hashlib.sha256()
        envelope = lane.encoder.envelope
        self._before_row = envelope.before_id + prefix.encode()
        self._envelope_bytes = len(self._before_row) + len(envelope.before_body) + len(envelope.after_body)
        self._pieces: list[bytes] = []
        """What is not written yet; joined only then, since a line by itself would be one more copy of each request."""
        self.rows = self._body_bytes = self._written = self._gathered = 0

    def is_full_for(self, body_bytes: int, limits: Limits) -> bool:
        """Say whether the next request belongs into another shard."""
        next_bytes = self._envelope_bytes + len(str(self.rows)) + body_bytes
        if limits.is_full(rows=self.rows, size_bytes=self.size_bytes, next_bytes=next_bytes):
            return True
        return self.rows > 0 and limits.fills_queue(self._body_bytes + body_bytes)

    def add(self, around: Around, text: bytes, *, key: str, fingerprint: str, sends: int, carried: Carried) -> None:
        """Append a request."""
        digits, body_bytes = b"%d" % self.rows, around.body_bytes + len(text)
        self._pieces += (self._before_row, digits, around.head, text, around.tail)
        self._gathered += self._envelope_bytes + len(digits) + body_bytes
        if self._gathered > GATHERED_BYTES:
            self._write()
        self._index.add((key, fingerprint, sends, *carried))
        self.rows += 1
        self._body_bytes += body_bytes

    @property
    def size_bytes(self) -> int:
        """Give the size of the request file as it will be with what was added so far."""
        return self._written + self._gathered

    def _write(self) -> None:
        lines = b"".join(self._pieces)
        self._file.write(lines)
        self._sha.update(lines)
        self._written += len(lines)
        self._pieces, self._gathered = [], 0

    def close(self) -> ShardPlan:
        """Finish both files and give the plan."""
        self._write()
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
        self._around: tuple[str, Around] | None = None
        self._nothing_around = Around(lane.endpoint, lane.encoder, Frame(b"", b""))
        self.plans: list[ShardPlan] = []

    def around(self, system: str) -> Around:
        """Give what stands around the user's text; worked out anew only where the system message is another one."""
        if self._around is None or self._around[0] != system:
            lane = self.lane
            self._around = system, Around(lane.endpoint, lane.encoder, lane.encoder.frame(system))
        return self._around[1]

    def add_body(self, body: bytes, *, key: str, fingerprint: str, sends: int, carried: Carried = NOTHING) -> None:
        """Append a request whose body was encoded before."""
        self.add(self._nothing_around, body, key=key, fingerprint=fingerprint, sends=sends, carried=carried)

    def is_too_large(self, body_bytes: int) -> bool:
        """Say whether no shard could hold a request with a body of this size."""
        limits = self.lane.limits
        return body_bytes + ENVELOPE_BYTES > limits.max_bytes or limits.is_over_queue(body_bytes)

    def add(
        self, around: Around, text: bytes, *, key: str, fingerprint: str, sends: int, carried: Carried = NOTHING
    ) -> None:
        """Append a request, in a new shard where the current one is full."""
        writer = self._open or self._next()
        if writer.is_full_for(around.body_bytes + len(text), self._limits):
            self.plans.append(writer.close())
            self._limits = self.lane.limits
            writer = self._next()
        writer.add(around, text, key=key, fingerprint=fingerprint, sends=sends, carried=carried)

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

"""Fills shards: requests are written as they come, each in the pieces that it is made of, within the limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from itertools import chain, count
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


WRITTEN_BYTES = 1 << 18
"""So much is written and hashed at a time: more would be memory that is touched anew each time, which costs more."""

_MOST_DIGITS = 9
"""Of a row's number in a custom_id."""


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


class Request(NamedTuple):
    """A request as it is written: its body in two parts, and its row in the index."""

    around: Around
    text: bytes
    key: str
    fingerprint: str
    sends: int
    window_end: datetime | None = None
    originals: str | None = None


def _bytes_of(requests: Sequence[Request]) -> int:
    """Give the size of all bodies together."""
    return sum([request.around.body_bytes + len(request.text) for request in requests])


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
        self.rows = self.size_bytes = self._body_bytes = 0

    def fits(self, requests: Sequence[Request], limits: Limits) -> int:
        """Say how many of these requests, from the first on, still belong into this shard."""
        rows, size_bytes, body_bytes = self.rows, self.size_bytes, self._body_bytes
        wrapping, all_bytes = self._envelope_bytes + _MOST_DIGITS, _bytes_of(requests)
        if (
            rows + len(requests) <= limits.max_rows
            and size_bytes + len(requests) * wrapping + all_bytes <= limits.max_bytes
            and not limits.fills_queue(body_bytes + all_bytes)
        ):
            return len(requests)
        for request in requests:
            next_body = request.around.body_bytes + len(request.text)
            next_bytes = self._envelope_bytes + len(str(rows)) + next_body
            if limits.is_full(rows=rows, size_bytes=size_bytes, next_bytes=next_bytes):
                break
            if rows > 0 and limits.fills_queue(body_bytes + next_body):
                break
            rows, size_bytes, body_bytes = rows + 1, size_bytes + next_bytes, body_bytes + next_body
        return rows - self.rows

    def add(self, requests: Sequence[Request]) -> None:
        """Append requests."""
        all_bytes, before = _bytes_of(requests), self._before_row
        at_once = max(len(requests) * WRITTEN_BYTES // max(all_bytes, 1), 1)
        for start in range(0, len(requests), at_once):
            # Joined only here, since a line by itself would be one more copy of each request.
            some = enumerate(requests[start : start + at_once], self.rows + start)
            pieces = ((before, b"%d" % row, around.head, text, around.tail) for row, (around, text, *_) in some)
            lines = b"".join(chain.from_iterable(pieces))
            self._file.write(lines)
            self._sha.update(lines)
            self.size_bytes += len(lines)
        self._index.extend([request[2:] for request in requests])
        self._body_bytes += all_bytes
        self.rows += len(requests)

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
        self._around: tuple[str, Around] | None = None
        self.nothing_around = Around(lane.endpoint, lane.encoder, Frame(b"", b""))
        """Of a body that was encoded before."""
        self.plans: list[ShardPlan] = []

    def around(self, system: str) -> Around:
        """Give what stands around the user's text; worked out anew only where the system message is another one."""
        if self._around is None or self._around[0] != system:
            lane = self.lane
            self._around = system, Around(lane.endpoint, lane.encoder, lane.encoder.frame(system))
        return self._around[1]

    def is_too_large(self, body_bytes: int) -> bool:
        """Say whether no shard could hold a request with a body of this size."""
        limits = self.lane.limits
        return body_bytes + ENVELOPE_BYTES > limits.max_bytes or limits.is_over_queue(body_bytes)

    def add(self, requests: Sequence[Request]) -> None:
        """Append requests, in a new shard where the current one is full."""
        while requests:
            writer = self._open or self._next()
            count = writer.fits(requests, self._limits)
            if not count and not writer.rows:
                count = 1  # what is larger than a whole shard should be is a shard of its own
            writer.add(requests[:count])
            requests = requests[count:]
            if requests:
                self.plans.append(writer.close())
                self._limits = self.lane.limits
                self._next()

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

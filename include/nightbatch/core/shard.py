"""A shard: the lines that are sent together, within the limits of a lane."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from .ids import ShardRef
from .queue import PLACES, queued_tokens


@dataclass(frozen=True)
class Limits:
    """How much one batch may hold."""

    max_rows: int
    max_bytes: int
    """Bytes of the request file, newlines included."""
    queue_tokens: int | None = None
    """Input tokens that may wait at the vendor at a time, those of all shards; None where nobody said."""

    def narrowed(self, *, max_rows: int | None = None, max_bytes: int | None = None) -> Limits:
        """Give the tighter of these limits and a job's own."""
        return Limits(
            min(self.max_rows, max_rows or self.max_rows),
            min(self.max_bytes, max_bytes or self.max_bytes),
            self.queue_tokens,
        )

    def within_queue(self, *, rows: int | None, tokens: int | None) -> Limits:
        """Give the limits of a shard that shares a queue in which `rows` and `tokens` may wait in all."""
        max_rows = self.max_rows if rows is None else min(self.max_rows, max(rows // PLACES, 1))
        return Limits(max_rows, self.max_bytes, tokens)

    def is_full(self, *, rows: int, size_bytes: int, next_bytes: int) -> bool:
        """Say whether a shard of this size has no room for a line of `next_bytes`."""
        return rows >= self.max_rows or size_bytes + next_bytes > self.max_bytes

    def fills_queue(self, body_bytes: int) -> bool:
        """Say whether requests with bodies of so many bytes take more than a shard's part of the vendor's queue."""
        return self.queue_tokens is not None and queued_tokens(body_bytes) > self.queue_tokens // PLACES

    def is_over_queue(self, body_bytes: int) -> bool:
        """Say whether such a request alone is more than may ever wait."""
        return self.queue_tokens is not None and queued_tokens(body_bytes) > self.queue_tokens


class ShardState(StrEnum):
    """Where a shard is on its way; each word names what is already true."""

    SEALED = "sealed"
    """Written and sealed; no attempt is under way."""
    SUBMITTING = "submitting"
    """An intent stands; a batch may or may not exist at the vendor."""
    OPEN = "open"
    """The vendor has the batch and we know its id."""
    STORED = "stored"
    """The raw result files are in the store."""
    COLLECTED = "collected"
    """Every row has a verdict, and the costs are booked."""
    LOADED = "loaded"
    """The good answers are in the sink."""
    HELD = "held"
    """Not sent, for a reason a person can change (budget, account); its rows are pending."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard as it was sealed. Names are relative to the store."""

    ref: ShardRef
    choice: int
    """Position of the model in the job's list."""
    rows: int
    size_bytes: int
    content_sha256: str
    requests_name: str
    """JSONL of encoded requests, in row order."""
    index_name: str
    """Parquet with one row a request, in row order: key, fingerprint, sends (how often asked before)."""
    input_tokens_bound: int
    """Upper bound of the input tokens of all rows."""
    output_tokens_cap: int
    """Sum of the rows' caps on output tokens."""
    worst_usd: Decimal
    expected_usd: Decimal
    model: str = ""
    provider: str = ""
    connection: str = ""
    max_output_tokens: int | None = None
    prompt_version: str = ""
    hint: str = ""
    """What was added to the prompt of a row that is asked again; empty at first."""
    index_sha256: str = ""
    """Empty in plans that were sealed before it was kept."""
    queue_tokens: int = 0
    """Input tokens that it is taken to hold in the vendor's queue."""

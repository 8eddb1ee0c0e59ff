"""A shard: the lines that are sent together, within the limits of a lane."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from .ids import ShardRef


@dataclass(frozen=True)
class Limits:
    """How much one batch may hold."""

    max_rows: int
    max_bytes: int
    """Bytes of the request file, newlines included."""

    def narrowed(self, *, max_rows: int | None = None, max_bytes: int | None = None) -> Limits:
        """Give the tighter of these limits and a job's own."""
        return Limits(
            min(self.max_rows, max_rows or self.max_rows),
            min(self.max_bytes, max_bytes or self.max_bytes),
        )

    def is_full(self, *, rows: int, size_bytes: int, next_bytes: int) -> bool:
        """Say whether a shard of this size has no room for a line of `next_bytes`."""
        return rows >= self.max_rows or size_bytes + next_bytes > self.max_bytes


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

"""Experience: what bills taught of requests to a model, so that the next estimate is nearer."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

BYTES_A_TOKEN = 4
"""Before anything was billed: about right for English prose, too high for JSON (measured 2026-11, o200k)."""
CAP_SHARE = 3
"""Before anything was billed, an answer is taken to need a third of its cap."""


@dataclass(frozen=True)
class Experience:
    """Sums over shards whose rows were all answered; zeros where nothing was billed yet."""

    rows: int = 0
    """Rows of this job and model."""
    output_tokens: int = 0
    """What they were answered with."""
    size_bytes: int = 0
    """Bytes of request files, of any job that asked this model."""
    input_tokens: int = 0
    """What was billed for them."""

    @property
    def bytes_a_token(self) -> float:
        """Bytes of a request file that make one input token."""
        return self.size_bytes / self.input_tokens if self.input_tokens else BYTES_A_TOKEN

    @property
    def output_tokens_a_row(self) -> float | None:
        """Output tokens of an answer, on average; None before the job's first bill."""
        return self.output_tokens / self.rows if self.rows else None

    def input_tokens_expected(self, size_bytes: int) -> int:
        """Estimate the input tokens of a request file, rounded up."""
        if not self.input_tokens:
            return -(-size_bytes // BYTES_A_TOKEN)
        return -(-size_bytes * self.input_tokens // self.size_bytes)

    def output_tokens_expected(self, *, rows: int, cap: int) -> int:
        """Estimate the output tokens of so many answers, rounded up; never more than their cap, where there is one."""
        if not self.rows:
            return cap // CAP_SHARE
        expected = -(-rows * self.output_tokens // self.rows)
        return min(expected, cap) if cap else expected


@dataclass(frozen=True)
class PastEstimate:
    """What a run was expected to cost when it was planned, and what it did cost; USD of its collected shards."""

    run: str
    expected_usd: Decimal
    worst_usd: Decimal
    actual_usd: Decimal

    @property
    def share(self) -> float | None:
        """What was billed as a share of what was expected; None where nothing was expected."""
        return float(self.actual_usd / self.expected_usd) if self.expected_usd else None

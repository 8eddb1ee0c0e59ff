"""A canary: a few requests that go first, and whether what came back lets the others follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from .verdict import VerdictKind


@dataclass(frozen=True)
class Bounds:
    """What a job allows its canary."""

    max_bad_share: float
    """Largest share of badly answered rows among those that were answered or refused, 0 to 1."""
    max_length_growth: float
    """Most output tokens a row, as a multiple of the last good run's."""
    max_cost_growth: float
    """Most USD a row, as a multiple of the last good run's."""


@dataclass(frozen=True)
class Sample:
    """What became of some rows."""

    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by verdict kind and reason, as a shard counts them: `good`, `change:truncated`, …"""
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)

    def of_kinds(self, *kinds: VerdictKind) -> int:
        """Count rows whose verdict is of these kinds."""
        return sum(count for name, count in self.counts.items() if name.partition(":")[0] in kinds)

    @property
    def bad(self) -> int:
        """Rows that were answered badly or refused for good; a vendor's own trouble is not the prompt's."""
        return self.of_kinds(VerdictKind.CHANGE, VerdictKind.DEAD)

    @property
    def judged(self) -> int:
        """Rows that say something about prompt, model and schema."""
        return self.of_kinds(VerdictKind.GOOD) + self.bad

    @property
    def tokens_a_row(self) -> float:
        """Output tokens of a judged row, on average."""
        return self.output_tokens / self.judged if self.judged else 0.0

    @property
    def usd_a_row(self) -> Decimal:
        """USD of a judged row, on average."""
        return self.cost_usd / self.judged if self.judged else Decimal(0)


def breaches(sample: Sample, bounds: Bounds, *, last: Sample | None) -> list[str]:
    """
    Name every bound that the canary's rows are outside of; empty lets the others follow.

    `last` is the job's last good run; without one only the share of bad rows is bounded.
    """
    if not sample.judged:
        return [f"none of its {sample.rows:,} rows was answered, so nothing is known of the others"]
    found = []
    share = sample.bad / sample.judged
    if share > bounds.max_bad_share:
        words = ", ".join(f"{count:,} {_reason(name)}" for name, count in sorted(sample.counts.items()) if _bad(name))
        found.append(
            f"{sample.bad:,} of {sample.judged:,} rows were answered badly ({share:.1%}: {words}); "
            f"the job allows {bounds.max_bad_share:.1%}"
        )
    if last is not None and last.judged:
        found += _growth(sample, bounds, last)
    return found


def _growth(sample: Sample, bounds: Bounds, last: Sample) -> list[str]:
    found = []
    if last.tokens_a_row and sample.tokens_a_row > bounds.max_length_growth * last.tokens_a_row:
        found.append(
            f"an answer has {sample.tokens_a_row:,.1f} output tokens, {sample.tokens_a_row / last.tokens_a_row:.1f} "
            f"times the last good run's {last.tokens_a_row:,.1f}; the job allows {bounds.max_length_growth:g} times"
        )
    if last.usd_a_row and sample.usd_a_row > Decimal(str(bounds.max_cost_growth)) * last.usd_a_row:
        found.append(
            f"a row costs {sample.usd_a_row:.6f} USD, {sample.usd_a_row / last.usd_a_row:.1f} times the last good "
            f"run's {last.usd_a_row:.6f}; the job allows {bounds.max_cost_growth:g} times"
        )
    return found


def _bad(name: str) -> bool:
    return name.partition(":")[0] in (VerdictKind.CHANGE, VerdictKind.DEAD)


def _reason(name: str) -> str:
    return name.partition(":")[2] or name

"""Money: what a row may cost, what it did cost, and what it would have cost in real time. Exact decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal

MILLION = Decimal(1_000_000)
ZERO = Decimal(0)
NANOS = 1_000_000_000
"""Billionths of a USD in one USD; a row's cost is a whole number of them."""
NANO = Decimal("1e-9")
"""The same as the step that amounts of USD are rounded to."""


@dataclass(slots=True, unsafe_hash=True)  # never changed; not frozen: that takes four times as long to make
class Usage:
    """Tokens of one answer, as billed."""

    input_tokens: int = 0
    """All input tokens; the cached ones below are part of them."""
    cached_tokens: int = 0
    """Input tokens read from the vendor's cache."""
    cache_write_tokens: int = 0
    """Input tokens written to the vendor's cache."""
    output_tokens: int = 0
    """All output tokens; reasoning is part of them."""
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


@dataclass(frozen=True)
class Rate:
    """What a million tokens cost, in USD."""

    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal
    cache_write_usd: Decimal
    source: str
    """Where the price comes from and from which date, for the cost report."""

    def cost_usd(self, usage: Usage) -> Decimal:
        """Price what was billed."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        total = (usage.input_tokens - cached - written) * self.input_usd + usage.output_tokens * self.output_usd
        if cached or written:
            total += cached * self.cached_usd + written * self.cache_write_usd
        return total / MILLION

    def as_json(self) -> dict[str, str]:
        """Give the rate as JSON values, exact."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, str]) -> Rate:
        """Read a rate back."""
        usd = {name: Decimal(text) for name, text in values.items() if name.endswith("_usd")}
        return cls(**usd, source=values["source"])

    def worst_usd(self, *, input_tokens: int, output_tokens: int) -> Decimal:
        """Price the most these tokens can cost: a cache write may cost more than plain input."""
        dearest = max(self.input_usd, self.cache_write_usd, self.cached_usd)
        return (input_tokens * dearest + output_tokens * self.output_usd) / MILLION


class NanoRate:
    """A rate in whole numbers, which prices rows in a fifth of the time that decimals take."""

    def __init__(self, rate: Rate) -> None:
        usd = (rate.input_usd, rate.output_usd, rate.cached_usd, rate.cache_write_usd)
        # A token costs so many billionths: the fractions are brought to one denominator.
        ratios = [(NANOS * over, under * int(MILLION)) for over, under in (one.as_integer_ratio() for one in usd)]
        self._parts = parts = math.lcm(*(under // math.gcd(over, under) for over, under in ratios))
        self._input, self._output, self._cached, self._written = (over * parts // under for over, under in ratios)

    def cost_nanos(self, usage: Usage) -> int:
        """Price what was billed, in billionths of a USD: `Rate.cost_usd`, rounded half to even."""
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        total = (usage.input_tokens - cached - written) * self._input + usage.output_tokens * self._output
        if cached or written:
            total += cached * self._cached + written * self._written
        if self._parts == 1:
            return total
        whole, rest = divmod(total, self._parts)
        return whole + (2 * rest + whole % 2 > self._parts)


def usd_of(nanos: int) -> Decimal:
    """Give billionths of a USD as USD, exact."""
    return Decimal(nanos).scaleb(-9)


@dataclass(frozen=True)
class Price:
    """The two rates of a model that matter; None where a rate is not known."""

    batch: Rate | None
    realtime: Rate | None
    note: str = ""
    """Why a rate is unknown, and what to do about it."""


@dataclass(slots=True, unsafe_hash=True)  # never changed; not frozen: that takes four times as long to make
class Cost:
    """What rows cost."""

    usage: Usage = Usage()
    batch_usd: Decimal = ZERO
    realtime_usd: Decimal = ZERO

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.usage + other.usage, self.batch_usd + other.batch_usd, self.realtime_usd + other.realtime_usd)


class CostSum:
    """Adds costs up one by one, without objects that a sum makes at each step."""

    def __init__(self) -> None:
        self._tokens = [0] * 5
        self._batch_usd = self._realtime_usd = ZERO

    def add(self, cost: Cost) -> None:
        """Add what a row cost."""
        usage, tokens = cost.usage, self._tokens
        tokens[0] += usage.input_tokens
        tokens[1] += usage.cached_tokens
        tokens[2] += usage.cache_write_tokens
        tokens[3] += usage.output_tokens
        tokens[4] += usage.reasoning_tokens
        self._batch_usd += cost.batch_usd
        self._realtime_usd += cost.realtime_usd

    @property
    def cost(self) -> Cost:
        """Give what was added up."""
        return Cost(Usage(*self._tokens), self._batch_usd, self._realtime_usd)


def total(costs: Iterable[Cost]) -> Cost:
    """Add costs up."""
    summed = CostSum()
    for cost in costs:
        summed.add(cost)
    return summed.cost


def tokens_bound(size_bytes: int) -> int:
    """
    Bound the input tokens of a text by its UTF-8 bytes: a token a byte.

    Byte-level vocabularies never make more tokens than bytes, and nothing less is a bound: base64 comes to 0.7 tokens
    a byte, rare characters to 0.99 (measured 2026-11, ADR 13). For prose it is more than four times too high.
    """
    return size_bytes

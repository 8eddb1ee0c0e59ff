"""Say what a run would send and cost, without sending or keeping anything."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO, cast

from nightbatch.core.experience import PastEstimate
from nightbatch.core.money import ZERO
from nightbatch.core.shard import ShardPlan
from nightbatch.job import Job
from nightbatch.ports import Ports

from .forecast import Forecast
from .lanes import OpenLane
from .pull import Tally


@dataclass(frozen=True)
class Estimate:
    """What a run would do. Money is USD; None where a price is not known."""

    counts: Tally
    shards: int
    size_bytes: int
    input_tokens: int
    output_tokens: int
    output_tokens_cap: int
    expected_usd: Decimal | None
    worst_usd: Decimal | None
    realtime_expected_usd: Decimal | None
    realtime_worst_usd: Decimal | None
    dearest_usd: Decimal
    """The worst case of the dearest shard; 0 where the price is not known."""
    price_source: str
    rests_on_rows: int
    """How many answers of the job the output tokens are learned from; 0 for a guess."""
    past: tuple[PastEstimate, ...]
    """The job's latest runs, newest first: what was expected, and what was billed."""
    forecast: Forecast
    """How long it takes, and whether that is soon enough."""


def estimate(
    lane: OpenLane,
    tally: Tally,
    plans: tuple[ShardPlan, ...],
    *,
    past: Sequence[PastEstimate],
    forecast: Forecast,
) -> Estimate:
    """Add up what packing found."""
    size = sum(plan.size_bytes for plan in plans)
    cap = sum(plan.output_tokens_cap for plan in plans)
    tokens = lane.experience.input_tokens_expected(size)
    answers = lane.experience.output_tokens_expected(rows=tally.requests, cap=cap)
    bound = sum(plan.input_tokens_bound for plan in plans)
    known, known_realtime = bool(lane.rate.input_usd), bool(lane.realtime.input_usd)
    return Estimate(
        counts=tally,
        shards=len(plans),
        size_bytes=size,
        input_tokens=tokens,
        output_tokens=answers,
        output_tokens_cap=cap,
        expected_usd=sum((plan.expected_usd for plan in plans), ZERO) if known else None,
        worst_usd=sum((plan.worst_usd for plan in plans), ZERO) if known else None,
        realtime_expected_usd=(
            lane.realtime.worst_usd(input_tokens=tokens, output_tokens=answers) if known_realtime else None
        ),
        realtime_worst_usd=(lane.realtime.worst_usd(input_tokens=bound, output_tokens=cap) if known_realtime else None),
        dearest_usd=max((plan.worst_usd for plan in plans), default=ZERO),
        price_source=lane.rate.source,
        rests_on_rows=lane.experience.rows,
        past=tuple(past),
        forecast=forecast,
    )


def too_small_budgets(job: Job, found: Estimate) -> Iterator[str]:
    """Name the job's budgets that never let its dearest shard go, each in a paragraph."""
    amounts = (("budget_usd", job.budget_usd), ("budget_day_usd", job.budget_day_usd))
    for key, amount in (*amounts, ("budget_month_usd", job.budget_month_usd)):
        if amount is not None and amount < found.dearest_usd:
            yield (
                f"{key} is not enough: it is {amount:f} USD, and the dearest of {found.shards:,} shards can cost "
                f"{found.dearest_usd:f} USD at worst. As it stands that shard is not sent, and its rows stay "
                f"pending. Raise {key}, or make shards smaller (shard.max_rows) or answers shorter (max_output_tokens)."
            )


class _Nowhere(io.RawIOBase):
    """Takes bytes and forgets them."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(memoryview(data))


class NoStore:
    """A store that keeps nothing, for a look ahead. Reads go to the real one."""

    def __init__(self, ports: Ports) -> None:
        self._store = ports.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Take a file and forget it."""
        yield cast(BinaryIO, io.BufferedWriter(_Nowhere()))

"""The queue before a vendor: which of the shards that wait may go now, so that no limit breaks and nobody starves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from .ids import ShardRef

PLACES = 4
"""
A shard is packed to at most a quarter of what may wait.

One of the whole limit's size would shut every other job out until it ends; one a little over half of it would leave
the rest empty.
"""

FADES_AFTER = timedelta(days=1)
"""How long a learned limit stays as it was learned; after each further day of peace it doubles."""

MISSED_LOOKS = 3
"""A waiter that lets so many of its looks pass is taken for dead, and passed over until it asks again."""

BUSY_FOR = timedelta(minutes=5)
"""But not sooner than this: one process may look after many shards, and has others to read and load meanwhile."""


def queued_tokens(size_bytes: int) -> int:
    """
    Estimate the input tokens that requests hold in a vendor's queue, from the bytes of their bodies.

    Not below what is counted there, since that is refused, and not far above, since that wastes the queue: three
    bytes a token, which stays over the truth on a mix of prose, code and JSON by 17 % (measured 2026-11), and a
    tenth more. Text of rare signs may still count higher; then the vendor refuses, and the ledger learns.
    """
    return -(-size_bytes * 11 // 30)


class Kind(StrEnum):
    """What a vendor counts; each word is a field of `Load`."""

    TOKENS = "tokens"
    """Input tokens that wait, as estimated."""
    ROWS = "rows"
    """Requests that wait."""
    BATCHES = "batches"
    """Batches that wait."""
    CREATIONS = "creations"
    """Batches begun within the last hour."""


@dataclass(frozen=True)
class Load:
    """What one shard holds in the queue, or what all shards of a job and model hold together."""

    job: str
    model: str
    tokens: int = 0
    rows: int = 0
    batches: int = 0
    creations: int = 0

    def of(self, kind: Kind) -> int:
        """Give how much of a kind it is."""
        amount: int = getattr(self, kind.value)
        return amount


@dataclass(frozen=True)
class Limit:
    """How much of a kind may wait at a time."""

    kind: Kind
    most: int
    models: str = ""
    """Which models are counted together: a name, or a pattern like `gpt-5-mini*`; empty for all."""
    is_learned: bool = False
    """A vendor's refusal taught it. A shard that would be alone in the queue may go all the same."""

    def counts(self, model: str) -> bool:
        """Say whether shards for a model fall under it."""
        return not self.models or fnmatchcase(model, self.models)


@dataclass(frozen=True)
class Learned:
    """What refusals taught about one account's queue."""

    kind: Kind
    models: str
    most: int | None
    """None where only `closed_until` is known."""
    learned: datetime
    closed_until: datetime | None = None
    """The vendor refused although nothing of ours waited: somebody else's work fills its queue. Nobody asks before."""

    def limit(self, *, now: datetime) -> Limit | None:
        """Give the limit that it means now."""
        if self.most is None:
            return None
        return Limit(self.kind, self.most << (max(now - self.learned, timedelta(0)) // FADES_AFTER), self.models, True)

    def is_closed(self, model: str, *, now: datetime) -> bool:
        """Say whether shards for a model must not be sent now."""
        return (
            self.closed_until is not None and now < self.closed_until and Limit(self.kind, 0, self.models).counts(model)
        )


@dataclass(frozen=True)
class QueueRules:
    """What may wait at a vendor, as configured, and what it means when the vendor says "full"."""

    limits: tuple[Limit, ...] = ()
    full_by: Kind = Kind.TOKENS
    """What the vendor counts when it refuses."""
    full_by_model: bool = True
    """Whether it counts each model on its own."""

    def most(self, kind: Kind, model: str) -> int | None:
        """Give the tightest limit on shards for a model; None where there is none."""
        return min((limit.most for limit in self.limits if limit.kind is kind and limit.counts(model)), default=None)

    def too_small_for(self, load: Load) -> Limit | None:
        """Give a limit that a shard alone is over, so that it could wait for ever."""
        return next(
            (limit for limit in self.limits if limit.counts(load.model) and load.of(limit.kind) > limit.most), None
        )


@dataclass(frozen=True)
class Ask:
    """What a shard brings along when it asks for a place."""

    rules: QueueRules
    priority: int = 0
    """Higher goes first."""
    look_from: timedelta = timedelta(seconds=30)
    look_to: timedelta = timedelta(seconds=300)
    """Shortest and longest pause before it asks again."""

    def pause(self, turn: Turn) -> timedelta:
        """
        Say how long a shard that must wait leaves the queue alone.

        The first in line see a free place at once; whoever stands a whole queue behind them looks a fifth as often,
        so that a long line costs little.
        """
        if turn.limit is None:
            return self.look_from
        ahead = sum(waiter.load.of(turn.limit.kind) for waiter in turn.ahead)
        return min(self.look_from * (1 + PLACES * ahead / max(turn.limit.most, 1)), self.look_to)


@dataclass(frozen=True)
class Waiter:
    """A shard that waits for a place."""

    ref: ShardRef
    load: Load
    priority: int
    since: datetime

    @staticmethod
    def gone(now: datetime, pause: timedelta) -> datetime:
        """Say from when on one that looks again after a pause, and does not, is passed over."""
        return now + max(MISSED_LOOKS * pause, BUSY_FOR)


@dataclass(frozen=True)
class Turn:
    """Whether a shard may go now, and what it waits for if it may not."""

    may_go: bool
    limit: Limit | None = None
    """The limit that has no room for it."""
    used: int = 0
    """How much of that is in use at the vendor."""
    ahead: tuple[Waiter, ...] = ()
    """Who goes first under that limit."""


def turn_of(
    ref: ShardRef,
    waiters: Sequence[Waiter],
    in_flight: Sequence[Load],
    limits: Sequence[Limit],
    last_turns: Mapping[str, datetime],
) -> Turn:
    """
    Say whether a shard among the waiters may go now.

    Pure, and the same whoever asks: the waiters are gone through in order, and whoever fits takes its room, whether
    or not it has noticed yet. The first one that does not fit takes its room too, and closes the limits that are
    too tight for it to all behind it: a small shard never overtakes a large one again and again.
    """
    room = _Room(limits, in_flight)
    ahead: list[Waiter] = []
    for waiter in in_order(waiters, in_flight, limits, last_turns):
        tight = room.tight_for(waiter.load)
        if waiter.ref == ref:
            if not tight:
                return Turn(True)
            first = tuple(other for other in ahead if tight[0].counts(other.load.model))
            return Turn(False, tight[0], _used(tight[0], in_flight), first)
        ahead.append(waiter)
        room.give(waiter.load, tight)
    raise LookupError(f"shard {ref} is not among the waiters")


def in_order(
    waiters: Iterable[Waiter],
    in_flight: Iterable[Load],
    limits: Sequence[Limit],
    last_turns: Mapping[str, datetime],
) -> Iterator[Waiter]:
    """
    Give the waiters in the order in which they go: by priority, then the job with the least, then who came first.

    A job has as much as its largest share of any limit, counting its own shards that go before. Of jobs with equal
    shares the one goes whose last turn (by job in `last_turns`) is longest ago: where there is room for one at a time
    all have nothing when it is free. Shards of one job, model and priority go in the order they came.
    """
    lines: dict[tuple[int, str, str], list[Waiter]] = defaultdict(list)
    for waiter in sorted(waiters, key=lambda waiter: (waiter.since, waiter.ref), reverse=True):
        lines[waiter.priority, waiter.load.job, waiter.load.model].append(waiter)
    shares = _Shares(limits, in_flight)
    turns = {job: number for number, job in enumerate(sorted(last_turns, key=lambda job: last_turns[job]), 1)}

    def rank(line: tuple[int, str, str]) -> tuple[int, float, int, datetime, ShardRef]:
        priority, job, model = line
        first = lines[line][-1]
        return -priority, shares.of(job, model), turns.get(job, 0), first.since, first.ref

    while lines:
        line = min(lines, key=rank)
        first = lines[line].pop()
        if not lines[line]:
            del lines[line]
        shares.add(first.load)
        turns[first.load.job] = max(turns.values(), default=0) + 1
        yield first


def _used(limit: Limit, in_flight: Iterable[Load]) -> int:
    return sum(load.of(limit.kind) for load in in_flight if limit.counts(load.model))


@dataclass
class _Shares:
    """How much of each limit each job has."""

    limits: Sequence[Limit]
    in_flight: Iterable[Load]
    held: dict[tuple[Limit, str], int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        for load in self.in_flight:
            self.add(load)

    def add(self, load: Load) -> None:
        for limit in self.limits:
            if limit.counts(load.model):
                self.held[limit, load.job] += load.of(limit.kind)

    def of(self, job: str, model: str) -> float:
        """Give a job's largest share of the limits on a model."""
        shares = (self.held[limit, job] / max(limit.most, 1) for limit in self.limits if limit.counts(model))
        return max(shares, default=0.0)


class _Room:
    """What is left under each limit while places are given away."""

    def __init__(self, limits: Sequence[Limit], in_flight: Sequence[Load]) -> None:
        self._used = {limit: _used(limit, in_flight) for limit in limits}
        self._closed: set[Limit] = set()

    def tight_for(self, load: Load) -> list[Limit]:
        """List the limits under which a shard does not fit, or to which somebody before it has the right."""
        mine = [limit for limit in self._used if limit.counts(load.model)]
        return [limit for limit in mine if limit in self._closed or not self._fits(limit, load)]

    def _fits(self, limit: Limit, load: Load) -> bool:
        used = self._used[limit]
        return used + load.of(limit.kind) <= limit.most or (limit.is_learned and used == 0)

    def give(self, load: Load, tight: Sequence[Limit]) -> None:
        """Give a shard its room, also one that cannot go yet; behind one that waits itself, keep nothing."""
        if any(limit in self._closed for limit in tight):
            return
        self._closed.update(tight)
        for limit in self._used:
            if limit.counts(load.model):
                self._used[limit] += load.of(limit.kind)

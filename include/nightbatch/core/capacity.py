"""Capacity: how long so many requests take within a vendor's limits, with what, and what would meet a deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from .queue import PLACES, Kind, Limit, Load, QueueRules, queued_tokens
from .shard import Limits

HOUR = timedelta(hours=1)
NOTHING = timedelta(0)

MOST_TASKS = 1_024
"""Shards that Airflow maps a task over, by default (`max_map_length`)."""
BATCHES_A_TRIGGERER = 1_000
"""Batches that one triggerer process waits for, by default (its `capacity`)."""
PART_TASKS = 4
"""Tasks that start one after the other before `prepare` where a source is read in parts: parts, read, sort, mend."""
OURS = 0.1
"""So much of a turnaround a wave's answers may take to be stored, checked and loaded; workers are counted by it."""


@dataclass(frozen=True)
class Turnaround:
    """How long a batch takes, from its creation until its results are stored here."""

    typical: timedelta
    slow: timedelta
    """Nine of ten are quicker."""
    batches: int = 0
    """How many it is learned from; 0 for an assumption."""

    @classmethod
    def learned(cls, spans: Sequence[timedelta]) -> Turnaround:
        """Learn it from batches that ended. Raises ValueError without any."""
        if not spans:
            raise ValueError("a turnaround is learned from at least one batch")
        ordered = sorted(spans)
        return cls(ordered[(len(ordered) - 1) // 2], ordered[-(-len(ordered) * 9 // 10) - 1], len(ordered))


ASSUMED = Turnaround(HOUR, 24 * HOUR)
"""
Before any batch ended. Vendors promise a day; most batches take an hour or less, and some the whole day.

Sources: the vendors' batch guides ("within 24 hours"; Anthropic: "most batches finish within 1 hour"), read 2026-11-22.
"""


@dataclass(frozen=True)
class Pace:
    """
    What our own work costs on one core.

    Measured 2026-11 with `nightbatch run`, 32,000 records of 0.5 KB, files in and out, on a busy machine (17 and
    90 µs), and with Airflow's task starts (4.5 s); rounded up.
    """

    prepare_row: timedelta = timedelta(microseconds=25)
    """Pull, render and pack a record."""
    sort_row: timedelta = timedelta(microseconds=5)
    """Find out about a record, among those of all parts, whether it is asked."""
    answer_row: timedelta = timedelta(microseconds=100)
    """Store, check and load an answer."""
    task: timedelta = timedelta(seconds=5)
    """Start a task that collects a shard."""

    def prepare(self, shards: Shards) -> timedelta:
        """Say how long it takes until shards are packed; in parts, one worker sorts what several read."""
        alone = self.prepare_row * shards.rows
        if shards.parts == 1:
            return alone
        return alone / shards.parts + self.sort_row * shards.rows + PART_TASKS * self.task


PACE = Pace()


@dataclass(frozen=True)
class Shards:
    """What is to be sent: so many shards, none larger than the figures with `each`."""

    count: int
    rows: int
    """Of all shards together."""
    rows_each: int
    tokens_each: int
    """What a shard is taken to hold in the vendor's queue."""
    canary: bool = False
    """The first one goes alone, and the others wait for it."""
    parts: int = 1
    """Parts of the source that they are packed from, side by side, by a worker each."""

    @classmethod
    def packed(cls, rows: int, *, bytes_a_row: int, limits: Limits) -> Shards:
        """Pack on paper as `steps/pack.py` does: rows of one size, as many to a shard as the limits let in."""
        most = min(limits.max_rows, limits.max_bytes // bytes_a_row)
        if limits.queue_tokens is not None:
            most = min(most, limits.queue_tokens // PLACES * 30 // (11 * bytes_a_row))
        each = min(max(most, 1), rows)
        count = -(-rows // each) if rows else 0
        return cls(count, rows, each, queued_tokens(each * bytes_a_row))

    def first(self, count: int) -> Shards:
        """Give the first so many of them."""
        return replace(self, count=count, rows=min(count * self.rows_each, self.rows))

    def load(self, model: str) -> Load:
        """Say what one of them holds in the queue."""
        return Load("", model, self.tokens_each, self.rows_each, batches=1, creations=1)


@dataclass(frozen=True)
class Room:
    """How many shards of one size a vendor's queue lets in."""

    at_once: int
    an_hour: int | None = None
    """Batches that may be made in an hour; None for no limit."""
    bound_by: Limit | None = None
    """The limit that keeps more from waiting at once; None where all may."""

    @classmethod
    def of(cls, rules: QueueRules, model: str, shards: Shards) -> Room:
        """Reckon it for an account that nobody else uses."""
        load = shards.load(model)
        counted = [limit for limit in rules.limits if limit.counts(model)]
        # A shard that is over a limit alone is refused by `begin`, and not packed.
        fits = [(max(limit.most // max(load.of(limit.kind), 1), 1), limit) for limit in _standing(counted)]
        least, tightest = min(fits, key=lambda pair: pair[0], default=(shards.count, None))
        is_tight = least < shards.count
        an_hour = rules.most(Kind.CREATIONS, model)
        return cls(min(least, max(shards.count, 1)), an_hour, tightest if is_tight else None)


def _standing(limits: Sequence[Limit]) -> list[Limit]:
    """Give the limits on what waits at a time."""
    return [limit for limit in limits if limit.kind is not Kind.CREATIONS]


def lasts(shards: Shards, room: Room, turnaround: timedelta) -> timedelta:
    """
    Say how long all shards take at the vendor, from the first create until the last result is stored.

    They go one behind another as `core/queue.py` lets them: each as soon as a place is free, and no more of them in
    an hour than may be made. Exact for shards of one size; smaller ones never make it longer.
    """
    sent: list[timedelta] = []
    for number in range(shards.count):
        places = sent[number - room.at_once] + turnaround if number >= room.at_once else NOTHING
        made = sent[number - room.an_hour] + HOUR if room.an_hour and number >= room.an_hour else NOTHING
        first = turnaround if shards.canary and number else NOTHING
        sent.append(max(places, made, first))
    return sent[-1] + turnaround if sent else NOTHING


class Verdict(StrEnum):
    """Whether a deadline can be kept."""

    IN_TIME = "in time"
    IF_QUICK = "in time unless batches are slow"
    LATE = "late"


@dataclass(frozen=True)
class Capacity:
    """What a job needs, and how long it takes when every row is sent once."""

    shards: Shards
    room: Room
    turnaround: Turnaround
    typical: timedelta
    """From the start of prepare until the last answer is loaded."""
    slow: timedelta
    """The same where every batch is slow."""
    ours: timedelta
    """How much of both is our own work."""
    workers: int
    """Worker slots, so that answers are loaded within a tenth of a turnaround; `shards.parts` read the source."""
    triggerers: int
    """Triggerer processes for all batches and all shards in line."""

    @property
    def is_over_map(self) -> bool:
        """Say whether Airflow would have to be told to map a task over so many shards."""
        return self.shards.count > MOST_TASKS

    @property
    def waves(self) -> int:
        """Say how many times the queue is filled."""
        return -(-self.shards.count // self.room.at_once)

    def verdict(self, available: timedelta) -> Verdict:
        """Say whether it is done within a span."""
        if self.slow <= available:
            return Verdict.IN_TIME
        return Verdict.IF_QUICK if self.typical <= available else Verdict.LATE


def capacity(shards: Shards, room: Room, turnaround: Turnaround, pace: Pace = PACE) -> Capacity:
    """Reckon what a job needs of a vendor and of us. Pure; O(shards)."""
    a_shard = pace.task + pace.answer_row * shards.rows_each
    at_once = min(room.at_once, shards.count)
    in_turn = max(turnaround.typical * OURS // a_shard, 1)
    workers = -(-at_once // in_turn)
    last = a_shard * -(-at_once // workers) if workers else NOTHING
    ours = pace.prepare(shards) + last
    return Capacity(
        shards=shards,
        room=room,
        turnaround=turnaround,
        typical=ours + lasts(shards, room, turnaround.typical),
        slow=ours + lasts(shards, room, turnaround.slow),
        ours=ours,
        workers=workers,
        triggerers=-(-shards.count // BATCHES_A_TRIGGERER),
    )


@dataclass(frozen=True)
class WayOut:
    """What would meet a deadline that a job cannot meet; each of the fields alone."""

    raised: tuple[tuple[Limit, int], ...]
    """Limits, and what they would have to be, all together; empty where no limit helps."""
    deadline: timedelta
    """A deadline that batches as they typically are would meet."""
    rows: int
    """As many of the rows could be answered by it; the others would need answers in real time."""


def way_out(found: Capacity, rules: QueueRules, model: str, available: timedelta) -> WayOut:
    """Say what would meet a deadline, with batches as quick as they typically are."""
    return WayOut(_raised(found, rules, model, available), found.typical, _rows_within(found, available))


def _rows_within(found: Capacity, available: timedelta) -> int:
    def is_late(count: int) -> bool:
        shards = found.shards.first(count)
        room = replace(found.room, at_once=min(found.room.at_once, count))
        return capacity(shards, room, found.turnaround).typical > available

    fits = _first(is_late, 1, found.shards.count) - 1
    return found.shards.first(fits).rows


def _raised(found: Capacity, rules: QueueRules, model: str, available: timedelta) -> tuple[tuple[Limit, int], ...]:
    """Find the smallest limits that let enough shards wait at once, and be made in an hour."""

    def in_time(at_once: int, an_hour: int | None) -> bool:
        return capacity(found.shards, Room(at_once, an_hour), found.turnaround).typical <= available

    most, an_hour = found.shards.count, found.room.an_hour
    if not in_time(most, None):
        return ()
    if not in_time(most, an_hour):
        an_hour = _first(lambda rate: in_time(most, rate), 1, most)
    at_once = _first(lambda places: in_time(places, an_hour), 1, most)
    load = found.shards.load(model)
    needs = {kind: at_once * load.of(kind) for kind in Kind} | {Kind.CREATIONS: an_hour or 0}
    return tuple(
        (limit, needs[limit.kind]) for limit in rules.limits if limit.counts(model) and limit.most < needs[limit.kind]
    )


def _first(is_so: Callable[[int], bool], low: int, high: int) -> int:
    """Give the first number from `low` on of which something is so, and of all after it; `high + 1` for none."""
    high += 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_so(middle) else (middle + 1, high)
    return low

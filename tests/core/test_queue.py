"""The queue before a vendor: no limit is broken, who waits longest with least goes first, and nobody starves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.ids import ShardRef
from nightbatch.core.queue import (
    Kind,
    Learned,
    Limit,
    Load,
    QueueRules,
    Waiter,
    in_order,
    queued_tokens,
    turn_of,
)

NOW = datetime(2026, 11, 22, 1, tzinfo=UTC)
JOBS, MODELS = ("a", "b", "c"), ("mini", "mini-2026", "large")
LIMITS = (
    Limit(Kind.TOKENS, 100, "mini*"),
    Limit(Kind.TOKENS, 60, "large"),
    Limit(Kind.ROWS, 500),
    Limit(Kind.BATCHES, 6),
)


def waiter(number: int, job: str = "a", *, tokens: int = 10, model: str = "mini", priority: int = 0) -> Waiter:
    """Give a shard that came as the number says."""
    load = Load(job, model, tokens, rows=tokens, batches=1, creations=1)
    return Waiter(ShardRef(job, 0, number), load, priority, NOW + timedelta(seconds=number))


@st.composite
def lines(draw: st.DrawFn, priorities: Sequence[int] = (0, 1)) -> list[Waiter]:
    """Give shards that wait, none larger than the limits."""
    return [
        waiter(
            number,
            draw(st.sampled_from(JOBS)),
            tokens=draw(st.integers(1, 60)),
            model=draw(st.sampled_from(MODELS)),
            priority=draw(st.sampled_from(priorities)),
        )
        for number in range(draw(st.integers(1, 14)))
    ]


def used(limit: Limit, loads: Sequence[Load]) -> int:
    return sum(load.of(limit.kind) for load in loads if limit.counts(load.model))


class Night:
    """Shards that wait, look in any order, go where they may, and end one after another."""

    def __init__(self, waiting: Sequence[Waiter], limits: Sequence[Limit] = LIMITS) -> None:
        self.waiting, self.limits = list(waiting), limits
        self.flying: list[Waiter] = []
        self.gone: list[Waiter] = []
        self.last_turns: dict[str, datetime] = {}

    @property
    def loads(self) -> list[Load]:
        return [one.load for one in self.flying]

    def look(self, one: Waiter) -> bool:
        """Let a shard look once."""
        turn = turn_of(one.ref, self.waiting, self.loads, self.limits, self.last_turns)
        if turn.may_go:
            self.waiting.remove(one)
            self.flying.append(one)
            self.gone.append(one)
            self.last_turns[one.load.job] = NOW + timedelta(hours=len(self.gone))
            for limit in self.limits:
                assert used(limit, self.loads) <= limit.most
        return turn.may_go

    def look_all(self, order: Sequence[int]) -> None:
        for at in order:
            if self.waiting:
                self.look(self.waiting[at % len(self.waiting)])


orders = st.lists(st.integers(0, 50), min_size=40, max_size=40)


@given(lines(), orders, st.integers(0, 5))
def test_no_limit_is_ever_broken_and_nobody_waits_for_ever(waiting, order, end) -> None:
    """Whoever looks when: places are given within the limits, and as long as batches end, everybody goes."""
    night, rounds = Night(waiting), 0
    while night.waiting:
        night.look_all(order)
        for one in list(night.waiting):
            night.look(one)
        assert night.flying, "there is room, somebody waits, and nobody goes"
        night.flying.pop(end % len(night.flying))
        rounds += 1
        assert rounds <= 2 * len(waiting)


@given(lines(priorities=(0,)), st.integers(1, 60))
def test_a_large_shard_is_not_overtaken_for_ever_by_small_ones_that_keep_coming(waiting, tokens) -> None:
    """Of equal priority: a shard waits for what was in flight and in line when it came, and not for later ones."""
    large = waiter(20, "a", tokens=tokens)
    night, late = Night([*waiting, large]), 30
    while large in night.waiting:
        for one in list(night.waiting):
            night.look(one)
        if large not in night.waiting:
            break
        night.waiting += [waiter(late, "b", tokens=1), waiter(late + 1, "c", tokens=1)]
        late += 2
        if night.flying:
            night.flying.pop(0)
        assert late < 200


@given(lines(priorities=(0, 5, 9)), orders)
def test_a_higher_priority_goes_first_whoever_looks_first(waiting, order) -> None:
    """All want the same queue, which has room for one at a time."""
    same = [Waiter(one.ref, Load(one.load.job, "mini", 1, 1, 1), one.priority, one.since) for one in waiting]
    night = Night(same, [Limit(Kind.BATCHES, 1)])
    while night.waiting:
        night.look_all(order)
        for one in list(night.waiting):
            night.look(one)
        night.flying.clear()

    priorities = [one.priority for one in night.gone]
    assert priorities == sorted(priorities, reverse=True)


@pytest.mark.parametrize("places", [1, 2, 3, 7])
def test_jobs_share_a_queue_fairly_however_many_shards_one_of_them_brings(places: int) -> None:
    """A job with fifty shards that came first lets jobs with five have their equal part."""
    many = [waiter(number, "a") for number in range(50)]
    few = [waiter(60 + number, job) for number in range(5) for job in ("b", "c")]
    night = Night([*many, *few], [Limit(Kind.BATCHES, places)])
    while any(one.load.job != "a" for one in night.waiting):
        for one in list(night.waiting):
            night.look(one)
        counts = Counter(one.load.job for one in night.flying)
        waits = {one.load.job for one in night.waiting}
        if len(night.flying) == places and waits == set(JOBS):
            assert max(counts[job] for job in JOBS) - min(counts[job] for job in JOBS) <= 1
        night.flying.pop(0)

    behind = len(night.gone) - 1 - max(night.gone.index(one) for one in few)
    assert sum(one.load.job == "a" for one in night.gone) - behind <= 5 + 2 * places


def test_shards_of_a_job_go_in_the_order_they_came_and_jobs_take_turns() -> None:
    waiting = [waiter(3, "b"), waiter(0), waiter(1), waiter(2), waiter(4, "b")]

    order = [one.ref.run + str(one.ref.shard) for one in in_order(waiting, [], LIMITS, {})]

    assert order == ["a0", "b3", "a1", "b4", "a2"]


def test_who_holds_much_of_the_queue_already_goes_later() -> None:
    holds = [Load("a", "mini", 50, 50, 1)]

    assert [one.load.job for one in in_order([waiter(0), waiter(1, "b"), waiter(2, "b")], holds, LIMITS, {})] == [
        "b",
        "b",
        "a",
    ]


def test_a_queue_that_is_full_for_one_model_keeps_no_other_model_waiting() -> None:
    full = [Load("a", "mini", 95, 95, 1)]
    waiting = [waiter(0), waiter(1, tokens=2), waiter(2, model="large")]

    turns = [turn_of(one.ref, waiting, full, LIMITS, {}) for one in waiting]

    assert [turn.may_go for turn in turns] == [False, False, True]
    assert (turns[0].limit, turns[0].used, turns[0].ahead) == (LIMITS[0], 95, ())
    assert turns[1].ahead == (waiting[0],)  # it would fit, and would starve the first


def test_a_learned_limit_lets_a_shard_go_that_is_larger_as_soon_as_it_is_alone() -> None:
    """The vendor let so much wait; it never said that it takes no single batch above that."""
    taught = [Limit(Kind.TOKENS, 5, "mini", is_learned=True)]

    assert turn_of(waiter(0).ref, [waiter(0)], [], taught, {}).may_go
    assert not turn_of(waiter(0).ref, [waiter(0)], [Load("b", "mini", 1, 1, 1)], taught, {}).may_go
    second = turn_of(waiter(1).ref, [waiter(0), waiter(1)], [], taught, {})
    assert not second.may_go  # the first has not looked yet, and has the right to be alone


def test_a_learned_limit_holds_for_a_day_and_then_doubles_each_day() -> None:
    learned = Learned(Kind.TOKENS, "mini", 1_000, NOW)

    most = [
        (limit := learned.limit(now=NOW + timedelta(hours=hours))) and limit.most
        for hours in (0, 23.9, 24, 47, 48, 240)
    ]

    assert most == [1_000, 1_000, 2_000, 2_000, 4_000, 1_024_000]
    assert Learned(Kind.TOKENS, "mini", None, NOW).limit(now=NOW) is None


def test_a_queue_full_of_strangers_work_is_closed_for_a_while() -> None:
    learned = Learned(Kind.TOKENS, "mini", None, NOW, closed_until=NOW + timedelta(minutes=5))

    assert learned.is_closed("mini", now=NOW + timedelta(minutes=4))
    assert not learned.is_closed("mini", now=NOW + timedelta(minutes=5))
    assert not learned.is_closed("large", now=NOW)
    assert Learned(Kind.ROWS, "", None, NOW, NOW + timedelta(minutes=5)).is_closed("any", now=NOW)


def test_a_shard_that_could_wait_for_ever_is_found_out() -> None:
    rules = QueueRules(LIMITS)

    assert rules.too_small_for(Load("a", "mini-2026", 101, 1, 1)) == LIMITS[0]
    assert rules.too_small_for(Load("a", "mini-2026", 100, 1, 1)) is None
    assert rules.too_small_for(Load("a", "other", 10_000, 501, 1)) == LIMITS[2]
    assert (rules.most(Kind.TOKENS, "mini"), rules.most(Kind.TOKENS, "other")) == (100, None)


@given(st.text(max_size=400), st.integers(1, 400))
def test_the_estimate_is_above_four_bytes_a_token_and_below_twice_that(text: str, rows: int) -> None:
    size = len(text.encode()) * rows

    assert size / 4 <= queued_tokens(size) <= size / 2 + 1


def test_loads_have_a_field_for_each_kind() -> None:
    assert [Load("a", "m", 1, 2, 3, 4).of(kind) for kind in Kind] == [1, 2, 3, 4]
    assert [key for key, _ in groupby(sorted(kind.value for kind in Kind))] == [
        "batches",
        "creations",
        "rows",
        "tokens",
    ]

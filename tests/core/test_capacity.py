"""The capacity model: what it says comes out where shards really wait in line, and what it advises helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.capacity import (
    ASSUMED,
    HOUR,
    NOTHING,
    Room,
    Shards,
    Turnaround,
    Verdict,
    capacity,
    lasts,
    way_out,
)
from nightbatch.core.ids import ShardRef
from nightbatch.core.queue import Kind, Limit, Load, QueueRules, Waiter, turn_of
from nightbatch.core.shard import Limits

START = datetime(2026, 11, 22, 1, tzinfo=UTC)
MODEL = "mini"
QUICK = Turnaround(timedelta(minutes=30), timedelta(hours=3), 40)


def simulated(loads: Sequence[Load], rules: QueueRules, turnaround: timedelta, *, canary: bool = False) -> timedelta:
    """Let shards wait in the real line, each batch taking the same time; say when the last one has ended."""
    now, ends, made = NOTHING, dict[int, timedelta](), dict[int, timedelta]()
    waiting = dict(enumerate(loads))
    while waiting:
        flying = [
            Load("job", MODEL, load.tokens, load.rows, batches=1, creations=int(now < made[at] + HOUR))
            if now < ends[at]
            else Load("job", MODEL, creations=int(now < made[at] + HOUR))
            for at, load in enumerate(loads)
            if at in made
        ]
        held = canary and now < ends.get(0, turnaround)
        asking = [at for at in waiting if at == 0 or not held]
        line = [Waiter(ShardRef("job", 0, at), waiting[at], 0, START + timedelta(seconds=at)) for at in asking]
        going = next(
            (at for at in asking if turn_of(ShardRef("job", 0, at), line, flying, rules.limits, {}).may_go), None
        )
        if going is not None:
            ends[going], made[going] = now + turnaround, now
            del waiting[going]
        else:
            later = [*ends.values(), *(moment + HOUR for moment in made.values())]
            now = min(moment for moment in later if moment > now)
    return max(ends.values(), default=NOTHING)


rules_of = st.builds(
    lambda tokens, rows, batches, creations: QueueRules(
        tuple(
            Limit(kind, most)
            for kind, most in zip(Kind, (tokens, rows, batches, creations), strict=True)
            if most is not None
        )
    ),
    st.none() | st.integers(20, 100),
    st.none() | st.integers(20, 100),
    st.none() | st.integers(1, 6),
    st.none() | st.integers(1, 6),
)
spans = st.integers(1, 200).map(lambda minutes: timedelta(minutes=minutes))
sizes = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=9)


def shards_of(loads: Sequence[Load], *, canary: bool = False) -> Shards:
    rows = [load.rows for load in loads]
    return Shards(len(loads), sum(rows), max(rows), max(load.tokens for load in loads), canary)


def load_of(tokens: int, rows: int) -> Load:
    return Load("job", MODEL, tokens, rows, batches=1, creations=1)


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20), rules_of, spans, st.booleans())
def test_shards_of_one_size_take_exactly_as_long_as_the_line_makes_them_wait(
    count, tokens, rows, rules, turnaround, canary
) -> None:
    loads = [load_of(tokens, rows)] * count
    shards = shards_of(loads, canary=canary)

    expected = lasts(shards, Room.of(rules, MODEL, shards), turnaround)

    assert simulated(loads, rules, turnaround, canary=canary) == expected


@given(sizes, rules_of, spans, st.booleans())
def test_shards_of_any_size_take_no_longer_than_if_all_were_as_large_as_the_largest(
    sizes, rules, turnaround, canary
) -> None:
    loads = [load_of(*size) for size in sizes]
    shards = shards_of(loads, canary=canary)

    at_most = lasts(shards, Room.of(rules, MODEL, shards), turnaround)

    assert turnaround <= simulated(loads, rules, turnaround, canary=canary) <= at_most


@given(
    st.integers(1, 3_000),
    st.integers(1, 500),
    st.builds(Limits, st.integers(1, 200), st.integers(500, 50_000), st.none() | st.integers(1_000, 60_000)),
)
def test_packing_on_paper_makes_the_shards_that_packing_makes(rows, bytes_a_row, limits) -> None:
    """Filled row by row with the questions that `steps/pack.py` asks."""
    filled = [0]
    for _ in range(rows):
        size = filled[-1] * bytes_a_row
        is_full = limits.is_full(rows=filled[-1], size_bytes=size, next_bytes=bytes_a_row)
        if filled[-1] and (is_full or limits.fills_queue(size + bytes_a_row)):
            filled.append(0)
        filled[-1] += 1

    shards = Shards.packed(rows, bytes_a_row=bytes_a_row, limits=limits)

    assert (shards.count, shards.rows_each, shards.rows) == (len(filled), filled[0], rows)


def test_a_queue_lets_in_what_its_tightest_limit_lets_in_and_names_it() -> None:
    shards = Shards(10, rows=1_000, rows_each=100, tokens_each=50)
    rules = QueueRules((Limit(Kind.TOKENS, 170, "mini*"), Limit(Kind.TOKENS, 60, "large"), Limit(Kind.ROWS, 400)))

    assert Room.of(rules, MODEL, shards) == Room(3, None, rules.limits[0])
    assert Room.of(QueueRules(), MODEL, shards) == Room(10)
    assert Room.of(QueueRules((Limit(Kind.CREATIONS, 7),)), MODEL, shards) == Room(10, an_hour=7)


def test_a_turnaround_is_learned_as_the_middle_one_and_one_that_nine_of_ten_stay_below() -> None:
    minutes = [timedelta(minutes=minute) for minute in range(1, 101)]

    assert Turnaround.learned(minutes[::-1]) == Turnaround(minutes[49], minutes[89], 100)
    assert Turnaround.learned(minutes[:1]) == Turnaround(minutes[0], minutes[0], 1)
    with pytest.raises(ValueError):
        Turnaround.learned([])


def test_nothing_to_send_takes_no_time_and_no_process() -> None:
    nothing = Shards.packed(0, bytes_a_row=100, limits=Limits(10, 1_000))
    found = capacity(nothing, Room.of(QueueRules(), MODEL, nothing), ASSUMED)

    assert (found.typical, found.slow, found.workers, found.triggerers) == (NOTHING, NOTHING, 0, 0)
    assert found.verdict(NOTHING) is Verdict.IN_TIME


def test_workers_are_as_many_as_load_a_wave_within_a_tenth_of_a_turnaround() -> None:
    shards = Shards(200, rows=200 * 50_000, rows_each=50_000, tokens_each=10)
    found = capacity(shards, Room(100), QUICK)

    a_shard = timedelta(seconds=10)
    assert found.workers == 6
    assert found.ours - timedelta(seconds=250) == 17 * a_shard <= QUICK.typical * 0.1
    assert (found.waves, found.triggerers, found.is_over_map) == (2, 1, False)


def test_a_source_that_is_read_in_parts_is_prepared_sooner_by_more_workers() -> None:
    """Four read a quarter each; one sorts what they read, and four tasks more are started one after the other."""
    alone = Shards(4, rows=10_000_000, rows_each=50_000, tokens_each=10)

    in_one, in_four = (capacity(shards, Room(4), QUICK) for shards in (alone, replace(alone, parts=4)))

    prepare, sort, starts = timedelta(seconds=250), timedelta(seconds=50), timedelta(seconds=20)
    assert in_one.ours - in_four.ours == prepare - (prepare / 4 + sort + starts)
    assert in_one.typical - in_four.typical == in_one.ours - in_four.ours
    assert in_one.workers == in_four.workers


def test_a_deadline_is_kept_surely_only_if_it_is_with_slow_batches_too() -> None:
    found = capacity(Shards(4, 40, 10, 10), Room(2), QUICK)

    assert found.verdict(found.slow) is Verdict.IN_TIME
    assert found.verdict(found.slow - timedelta(seconds=1)) is Verdict.IF_QUICK
    assert found.verdict(found.typical) is Verdict.IF_QUICK
    assert found.verdict(found.typical - timedelta(seconds=1)) is Verdict.LATE


@given(st.integers(2, 400), rules_of, st.integers(1, 600).map(lambda minutes: timedelta(minutes=minutes)))
def test_what_is_advised_meets_the_deadline_and_less_does_not(count, rules, available) -> None:
    shards = Shards(count, count * 10, rows_each=10, tokens_each=15)
    found = capacity(shards, Room.of(rules, MODEL, shards), QUICK)
    if found.verdict(available) is not Verdict.LATE:
        return

    def with_limits(raised: dict[Limit, int]):
        better = QueueRules(tuple(replace(one, most=raised.get(one, one.most)) for one in rules.limits))
        return capacity(shards, Room.of(better, MODEL, shards), QUICK)

    way = way_out(found, rules, MODEL, available)

    assert found.verdict(way.deadline) is not Verdict.LATE
    if way.rows:
        fewer = replace(shards, count=way.rows // 10, rows=way.rows)
        assert capacity(fewer, Room.of(rules, MODEL, fewer), QUICK).typical <= available
    if way.raised:
        assert with_limits(dict(way.raised)).typical <= available
        if len(way.raised) == 1:
            [(limit, most)] = way.raised
            unit = max(shards.load(MODEL).of(limit.kind), 1)
            assert most > limit.most
            assert with_limits({limit: most - unit}).typical > available
    else:
        unlimited = capacity(shards, Room(count), QUICK)
        assert unlimited.typical > available

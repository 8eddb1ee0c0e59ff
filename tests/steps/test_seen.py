"""What was seen before: the sets on disk behave like sets in memory."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.steps.parts_sets import sets
from nightbatch.steps.seen import seen
from tests.memory_stack import NIGHT
from tests.steps.shards import UNHURRIED

keys, prints = st.sampled_from("abcd"), st.sampled_from("1234")
ends = st.integers(0, 3).map(lambda us: NIGHT.end + timedelta(microseconds=us))


@UNHURRIED
@given(st.lists(st.tuples(keys, prints, ends)), st.lists(st.tuples(keys, prints, ends)), st.booleans())
def test_the_sets_on_disk_are_the_sets_in_memory(known, asked, anew) -> None:
    owners: dict[str, str] = {}
    before: set[str] = set()
    with seen() as memory:
        memory.learn(known, asks_anew=anew)
        held = {key: (print_, end) for key, print_, end in known}
        for key, print_, end in asked:
            assert memory.is_unchanged(key, print_) is (not anew and key in held and held[key][0] == print_)
            assert memory.is_answered_later(key, end) is (key in held and held[key][1] > end)
            assert memory.is_new_key(key) is (key not in before)
            assert memory.twin_of(print_, key) == owners.get(print_)
            before.add(key)
            owners.setdefault(print_, key)


def test_two_runs_know_nothing_of_each_other() -> None:
    with seen() as one, seen() as other:
        assert one.is_new_key("k")
        assert other.is_new_key("k")


@pytest.mark.parametrize("opened", [seen, sets])
def test_all_is_one_transaction_since_one_for_each_row_takes_most_of_the_time(opened) -> None:
    with opened() as memory:
        assert memory._db.in_transaction

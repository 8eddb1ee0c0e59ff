"""What was seen before: the sets on disk behave like sets in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.steps.seen import seen
from tests.steps.shards import UNHURRIED

keys, prints = st.sampled_from("abcd"), st.sampled_from("1234")


@UNHURRIED
@given(st.lists(st.tuples(keys, prints)), st.lists(st.tuples(keys, prints)))
def test_the_sets_on_disk_are_the_sets_in_memory(known, asked) -> None:
    owners: dict[str, str] = {}
    before: set[str] = set()
    with seen() as memory:
        memory.learn(known)
        for key, print_ in asked:
            assert memory.is_unchanged(key, print_) is (dict(known).get(key) == print_)
            assert memory.is_new_key(key) is (key not in before)
            assert memory.twin_of(print_, key) == owners.get(print_)
            before.add(key)
            owners.setdefault(print_, key)


def test_two_runs_know_nothing_of_each_other() -> None:
    with seen() as one, seen() as other:
        assert one.is_new_key("k")
        assert other.is_new_key("k")

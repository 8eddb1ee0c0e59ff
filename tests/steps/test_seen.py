"""What was seen before: the sets on disk behave like sets in memory."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.errors import StorageUnavailable
from nightbatch.steps.owners import Owners
from nightbatch.steps.parts_sets import sets
from nightbatch.steps.seen import seen
from tests.memory_stack import NIGHT
from tests.steps.shards import UNHURRIED

keys, prints = st.sampled_from("abcd"), st.sampled_from("1234")
ends = st.integers(0, 3).map(lambda us: NIGHT.end + timedelta(microseconds=us))


@UNHURRIED
@given(
    st.lists(st.tuples(keys, prints, ends)),
    st.lists(st.lists(st.tuples(keys, prints, ends))),
    st.booleans(),
    st.sampled_from([2, 5, 1_000]),
    st.sampled_from([hash, len, lambda text: -ord(text)]),
)
def test_the_sets_on_disk_are_the_sets_in_memory(known, chunks, anew, slots, hashed) -> None:
    owners: dict[str, str] = {}
    before: set[str] = set()
    held = {key: (print_, end) for key, print_, end in known}
    with seen(slots=slots, hashed=hashed) as memory:
        memory.learn(known, asks_anew=anew)
        for asked in chunks:
            questions = [(key, print_) for key, print_, _ in asked]
            unchanged = [not anew and key in held and held[key][0] == print_ for key, print_ in questions]
            assert memory.unchanged(questions) == unchanged
            for key, _, end in asked:
                assert memory.is_answered_later(key, end) is (key in held and held[key][1] > end)
            for (key, print_), is_new, twin in zip(
                questions, memory.new_keys([key for key, _ in questions]), memory.twins(questions), strict=True
            ):
                assert is_new is (key not in before)
                assert twin == owners.get(print_)
                before.add(key)
                owners.setdefault(print_, key)


def test_a_text_longer_than_what_is_read_at_once_is_told_from_one_that_begins_alike() -> None:
    long = "k" * 1_000
    with seen(hashed=len) as memory:
        assert memory.twins([(long, "f" * 64), ("x", "f" * 64)]) == [None, long]
        assert memory.new_keys([long, long[:-1] + "é", long]) == [True, True, False]
        assert memory.new_keys([long[:-1] + "é", long, long[:-1]]) == [False, False, True]


def test_two_runs_know_nothing_of_each_other() -> None:
    with seen() as one, seen() as other:
        assert one.new_keys(["k"]) == [True]
        assert other.new_keys(["k"]) == [True]


@pytest.mark.parametrize("opened", [seen, sets])
def test_all_is_one_transaction_since_one_for_each_row_takes_most_of_the_time(opened) -> None:
    with opened() as memory:
        assert memory._db.in_transaction


def test_a_disk_that_is_full_or_fails_is_storage_that_is_not_there(tmp_path: Path) -> None:
    """Which Airflow tries again, and which says where the file lies."""
    with pytest.raises(StorageUnavailable, match="No such file"):
        Owners(tmp_path / "cleaned away", "keys", sqlite3.connect(":memory:"), slots=9, hashed=hash)
    with seen(hashed=len) as memory:
        assert memory.new_keys(["k"]) == [True]
        file, memory._keys._file = memory._keys._file, FileIO("/dev/full", "a")
        with pytest.raises(StorageUnavailable, match="No space left"):
            memory.new_keys(["other"])
        with pytest.raises(StorageUnavailable, match="Bad file descriptor"):
            memory.new_keys(["k"])
        memory._keys._file.close()
        memory._keys._file = file

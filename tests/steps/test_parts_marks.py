"""Marks overlook nobody: whoever shares a key or a question with another, or a key with what is known, is looked at."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch import flow
from nightbatch.adapters.memory import MemoryStore
from nightbatch.errors import StorageUnavailable
from nightbatch.steps import parts_marks, parts_sets
from nightbatch.steps.parts_marks import marks, marks_of
from nightbatch.steps.parts_mend import do
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack
from tests.steps.shards import UNHURRIED
from tests.steps.test_parts import TROUBLED, alone, in_chunks, installation, parted, records, story


def suspects(
    parts: list[list[tuple[str, str]]], known: list[str], *, at_a_time: int = 1_000, most: int = 1_000
) -> list[int] | None:
    store = MemoryStore()
    for number, part in enumerate(parts):
        store.write(f"marks-{number}", marks_of((key, hashlib.sha256(text.encode()).hexdigest()) for key, text in part))
    with marks(at_a_time=at_a_time, most=most) as marked:
        marked.expect(known)
        marked.copy(store, [f"marks-{number}" for number in range(len(parts))])
        found = marked.suspects()
    return found if found is None else list(found)


keys = st.integers(0, 60).map(lambda number: f"key {number} é")


@settings(UNHURRIED, max_examples=60)
@given(st.lists(st.lists(st.tuples(keys, st.integers(0, 90).map(str)), max_size=30), max_size=3), st.lists(keys))
def test_they_are_those_that_have_something_in_common_however_few_are_sorted_at_a_time(parts, known) -> None:
    rows = list(itertools.chain.from_iterable(parts))
    times_key, times_text = Counter(key for key, _ in rows), Counter(text for _, text in rows)
    expected = [
        place
        for place, (key, text) in enumerate(rows)
        if times_key[key] > 1 or times_text[text] > 1 or key in set(known)
    ]
    for at_a_time in (1_000, 7, 1):
        assert suspects(parts, known, at_a_time=at_a_time) == expected


def test_more_than_can_be_told_are_all() -> None:
    twice = [(f"k{number}", f"text {number // 2}") for number in range(20)]

    assert suspects([twice], [], most=20) == list(range(20))
    assert suspects([twice], [], most=19) is None


@settings(UNHURRIED, max_examples=10)
@given(records, records, st.integers(2, 4))
def test_marks_that_are_alike_by_chance_change_no_plan(before, now, parts) -> None:
    one, many = installation(before), installation(before)
    plain = flow.prepare(one.ports(source=lambda: in_chunks(now)), parted(1), NEXT_NIGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_marks, "_mark", lambda key: len(key) % 2)
        ports = many.ports(source=lambda: in_chunks(now))
        plan = flow.prepare(ports, parted(parts), NEXT_NIGHT, crew=alone)

    assert story(many, plan) == story(one, plain)


def test_only_suspects_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    ask = parts_sets.Sets.ask

    def spied(self: parts_sets.Sets, requests: Iterable[tuple[int, str, str]]) -> None:
        rows = list(requests)
        looked_at.extend(key for _, key, _ in rows)
        ask(self, rows)

    monkeypatch.setattr(parts_sets.Sets, "ask", spied)
    found = [(f"k{number}", f"text {number}") for number in range(20)]
    stack = Stack([])
    flow.prepare(stack.ports(source=lambda: in_chunks([*found, ("k7", "again")])), parted(3), NIGHT, crew=alone)

    assert looked_at == ["k7", "k7"]


def test_parts_of_a_version_that_made_no_marks_are_looked_at_in_full() -> None:
    one, many = installation(TROUBLED[:4]), installation(TROUBLED[:4])
    plain = flow.prepare(one.ports(source=lambda: in_chunks(TROUBLED)), parted(1), NEXT_NIGHT)
    ports = many.ports(source=lambda: in_chunks(TROUBLED))

    def by_an_older_one(errands: Sequence[flow.Errand]) -> None:
        for errand in errands:
            do(ports, errand)
        for name in [name for name in many.store.files if re.search(r"/part-\d+\.json$", name)]:
            told = json.loads(many.store.read(name))
            told.pop("marks_name", None)
            many.store.write(name, json.dumps(told).encode())

    plan = flow.prepare(ports, parted(3), NEXT_NIGHT, crew=by_an_older_one)

    assert story(many, plan) == story(one, plain)


def test_a_full_disk_is_told_as_one() -> None:
    with marks() as marked, pytest.raises(StorageUnavailable, match=r"/dev/full.*No space left"):
        marked._theirs = Path("/dev/full")
        marked.expect(["k1"])


@pytest.mark.parametrize(("print_", "fates"), [("aa", []), ("bb", ["unchanged"])])
def test_of_two_answers_to_one_key_the_later_one_counts(print_: str, fates: list[str]) -> None:
    with parts_sets.sets() as memory:
        memory.learn([("k", "aa", NIGHT.start), ("k", "bb", NIGHT.end)], asks_anew=False)
        memory.ask([(0, "k", print_)])
        memory.decide()
        assert [fallen.fate for fallen in memory.fallen()] == fates

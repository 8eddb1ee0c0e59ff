"""A source that is read in parts gives the very plan that one worker would make of it, whoever dies or comes twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch import flow
from nightbatch.adapters.memory import MemorySource
from nightbatch.adapters.memory_telemetry import MemoryTelemetry
from nightbatch.core import metrics
from nightbatch.core.ids import row_of
from nightbatch.core.result import Outcome, Result
from nightbatch.errors import BadSource, RunIncomplete
from nightbatch.ports import Chunk, RoundPlan
from nightbatch.steps.parquet import read_rows
from nightbatch.steps.parts_mend import do
from nightbatch.steps.reads import reads
from tests.memory_deaths import Deaths
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of
from tests.steps.shards import UNHURRIED, answered

Records = Sequence[tuple[Any, str]]
records = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6", "k7", None]),
        st.sampled_from(["a", "b", "c", "d", "waits", "urgent", "x" * 2_000]),
    ),
    max_size=16,
)


def in_chunks(found: Records, size: int = 2) -> MemorySource:
    return MemorySource([Chunk(("id", "text"), list(found[at : at + size])) for at in range(0, len(found), size)])


def parted(parts: int = 3, **changes: Any) -> Any:
    source = {"files": "memory/records.jsonl", "key": "id", "parts": parts, "deferrable": 'text != "urgent"'}
    return job_of(**{"source": source, "shard": {"max_rows": 3, "max_bytes": 2_000}, **changes})


def installation(before: Records) -> Stack:
    """Put one up that has had a night: answers in the sink, and pending rows."""
    stack = Stack([])
    stack.vendor.answer = lambda messages, _: (
        Result("", Outcome.EXPIRED) if "waits" in messages.user else answered(messages.user)
    )
    with suppress(RunIncomplete):
        flow.run(stack.ports(source=lambda: in_chunks(before)), parted(1, rounds=0), NIGHT)
    return stack


def alone(errands: Sequence[flow.Errand]) -> None:
    """Leave everything to whoever gathers."""


def story(stack: Stack, plan: RoundPlan) -> dict[str, Any]:
    """Tell what a plan says, but for which shard a request stands in."""
    names = {"twins": "duplicates_name", "dead": "dead_name"}
    columns = {"twins": ("key", "fingerprint", "twin_key", "window_end"), "dead": ("key", "reason", "detail")}
    told: dict[str, Any] = {
        what: list(read_rows(stack.store, plan.facts[name], columns[what])) if plan.facts[name] else []
        for what, name in names.items()
    }
    index = ("key", "fingerprint", "sends", "window_end", "originals")
    asked = [row for shard in plan.shards for row in read_rows(stack.store, shard.index_name, index)]
    facts = {name: plan.facts[name] for name in ("counts", "dead_reasons", "forced_by", "limit", "goes_on")}
    return {**told, **facts, "asked": sorted(asked, key=repr)}


@settings(UNHURRIED, max_examples=10)
@given(records, records, st.integers(2, 4), st.booleans(), st.booleans())
def test_it_is_the_plan_that_one_worker_makes(before, now, parts, refresh, has_canary) -> None:
    one, many = installation(before), installation(before)
    changes = {"canary": {"rows": 2}} if has_canary else {}
    options = flow.Options(refresh=refresh)

    plain = flow.prepare(one.ports(source=lambda: in_chunks(now)), parted(1, **changes), NEXT_NIGHT, options)
    ports = many.ports(source=lambda: in_chunks(now))
    plan = flow.prepare(ports, parted(parts, **changes), NEXT_NIGHT, options, crew=alone)

    assert story(many, plan) == story(one, plain)
    check_shards(many, plan, canary_rows=2 if has_canary else 3)


def check_shards(stack: Stack, plan: RoundPlan, *, canary_rows: int) -> None:
    """Every shard is within the limits, numbered by itself, and its lines say so."""
    numbers = [shard.ref.shard for shard in plan.shards]
    assert numbers == sorted(set(numbers))
    assert numbers[:1] in ([], [0]) or canary_rows == 3
    for shard in plan.shards:
        lines = stack.store.files[shard.requests_name].splitlines()
        ids = [json.loads(line)["custom_id"] for line in lines]
        assert 0 < shard.rows == len(lines) <= (canary_rows if shard.ref.shard == 0 else 3)
        assert shard.size_bytes == len(stack.store.files[shard.requests_name]) <= 2_000
        prefix = ids[0].removesuffix("0")
        assert prefix.endswith(f"_0_{shard.ref.shard}_")
        assert [row_of(custom_id, prefix) for custom_id in ids] == list(range(len(ids)))
    expected = plan.shards[0].rows if canary_rows == 2 and len(plan.shards) > 1 else 0
    assert plan.facts["canary_rows"] == expected


TROUBLED = [
    *((f"k{number}", f"text {number % 5}") for number in range(12)),
    ("k3", "again"),
    (None, "no key"),
    ("k20", "urgent"),
    ("k21", "text 21"),
]


def test_a_night_in_parts_ends_as_one_in_one_and_adds_up() -> None:
    one, many = installation(TROUBLED[:4]), installation(TROUBLED[:4])

    plain = flow.run(one.ports(source=lambda: in_chunks(TROUBLED)), parted(1), NEXT_NIGHT)
    books = flow.run(many.ports(source=lambda: in_chunks(TROUBLED)), parted(4), NEXT_NIGHT, crew=alone)

    assert many.answers() == one.answers()
    assert many.sink.dead.keys() == one.sink.dead.keys()
    assert many.vendor.billed == one.vendor.billed
    assert replace(books, batches=0) == replace(plain, batches=0)
    assert all(link.holds for link in many.ledger.proof(books.run))


def test_killed_at_any_call_of_its_planning_and_run_again_it_ends_the_same() -> None:
    stack = installation(TROUBLED[:4])
    deaths = Deaths(stack)
    plan = flow.prepare(
        stack.ports(source=lambda: in_chunks(TROUBLED), **deaths.ports()), parted(), NEXT_NIGHT, crew=alone
    )
    whole = story(stack, plan)
    moments = list(deaths)
    assert len(moments) > 15

    for moment, left in moments:
        found = flow.prepare(left.ports(source=lambda: in_chunks(TROUBLED)), parted(), NEXT_NIGHT, crew=alone)
        assert story(left, found) == whole, moment
        assert len(left.ledger.sealed(found.run, 0).shards) == len(plan.shards), moment


def errands_of(stack: Stack, found: Records, **changes: Any) -> Iterator[flow.Errand]:
    return iter(flow.split(stack.ports(source=lambda: in_chunks(found)), parted(**changes), NIGHT))


def test_a_part_that_is_read_again_gives_what_it_gave_although_the_source_has_changed() -> None:
    stack = Stack([])
    errands = list(errands_of(stack, TROUBLED))
    for errand in errands[1:]:
        do(stack.ports(source=lambda: in_chunks(TROUBLED)), errand)
    first = dict(stack.store.files)
    changed = [(key, f"changed {text}") for key, text in TROUBLED]

    for errand in errands:
        do(stack.ports(source=lambda: in_chunks(changed)), errand)
    plan = flow.prepare(stack.ports(), parted(), NIGHT, spread=errands[0].spread)

    asked = [
        json.loads(line)["body"]["user"]
        for shard in plan.shards
        for line in stack.store.files[shard.requests_name].splitlines()
    ]
    assert {name: stack.store.files[name] for name in first} == first
    assert {text.startswith("changed") for text in asked} == {True, False}
    assert "changed text 0" in asked
    assert "text 21" in asked


def test_two_that_read_one_part_at_once_make_one_plan() -> None:
    """The one that ends first is heard; what the other wrote is never looked at."""
    stack = Stack([])
    errand, *others = errands_of(stack, TROUBLED)

    def while_it_reads() -> MemorySource:
        do(stack.ports(source=lambda: in_chunks([("k0", "of the quick one")])), errand)
        return in_chunks(TROUBLED)

    do(stack.ports(source=while_it_reads), errand)
    plan = flow.prepare(stack.ports(source=lambda: in_chunks([])), parted(), NIGHT, spread=errand.spread)

    assert plan.facts["counts"]["requests"] == 1
    assert len(others) == 2


def test_an_edit_of_the_job_between_two_parts_changes_neither() -> None:
    stack = Stack([])
    errands = list(errands_of(stack, TROUBLED))
    edited = parted(prompt={"user": "EDITED {{ text }}"})
    opened: list[Any] = []

    def reopen(job: Any) -> Any:
        opened.append(job)
        return stack.ports(source=lambda: in_chunks(TROUBLED))

    for errand in errands:
        flow.read_part(stack.ports(), edited, errand, reopen)
    plan = flow.prepare(stack.ports(), edited, NIGHT, spread=errands[0].spread)

    assert opened == [parted()] * 3
    assert flow.sealed_job(stack.ports(), plan.run) == parted()
    assert not any(b"EDITED" in content for content in stack.store.files.values())


def test_parts_of_a_run_that_was_closed_meanwhile_are_read_anew() -> None:
    stack = Stack([])
    errands = list(errands_of(stack, TROUBLED))
    (run,) = stack.ledger.runs()
    stack.ledger.settle(run.run, state="failed", books={}, now=stack.clock.now())

    plan = flow.prepare(stack.ports(source=lambda: in_chunks(TROUBLED)), parted(), NIGHT, spread=errands[0].spread)

    assert plan.run.endswith("/g2")
    assert plan.facts["counts"]["pulled"] == len(TROUBLED)


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (parted(1), flow.Options()),
        (parted(), flow.Options(limit=3)),
        (parted(), flow.Options(retry=flow.Ask(("all",), "me"))),
    ],
)
def test_nothing_is_split_where_one_worker_does_it_all(job, options) -> None:
    stack = Stack([])

    assert flow.split(stack.ports(source=lambda: in_chunks(TROUBLED)), job, NIGHT, options) == []


def test_a_plan_that_is_sealed_or_goes_on_from_pending_rows_splits_nothing() -> None:
    stack = installation([("k1", "waits")])
    ports = stack.ports(source=lambda: in_chunks(TROUBLED))

    assert flow.split(ports, parted(), NIGHT) == []
    flow.prepare(ports, parted(), NIGHT)
    assert flow.split(ports, parted(), NIGHT) == []


def test_a_column_that_no_part_has_is_refused_and_one_that_some_have_is_not() -> None:
    class Says(MemorySource):
        def read_part(self, window, part, *, seen):
            seen.update({"id": True, "text": has[part["from"]]})
            yield from super().read_part(window, part, seen=seen)

    def ports_of(stack: Stack) -> Any:
        chunks = [Chunk(("id", "text"), [(f"k{number}", None)]) for number in range(3)]
        return stack.ports(source=lambda: Says(chunks))

    has, stack = [False, True, False], Stack([])
    assert flow.prepare(ports_of(stack), parted(), NIGHT, crew=alone).facts["counts"]["pulled"] == 3
    has, stack = [False, False, False], Stack([])
    with pytest.raises(BadSource, match="not one record has a field text"):
        flow.prepare(ports_of(stack), parted(), NIGHT, crew=alone)


def test_a_job_that_redacts_is_read_in_parts_once_it_has_its_key() -> None:
    found = [(f"k{number}", f"from a{number % 2}@example.com") for number in range(6)]
    job = parted(redact={"patterns": {"mail": "[a-z0-9]+@example.com"}})
    stack = Stack([])
    ports = stack.ports(source=lambda: in_chunks(found))

    assert flow.split(ports, job, NIGHT) == []
    flow.run(ports, job, NIGHT)
    assert len(flow.split(ports, job, NEXT_NIGHT)) == 3
    books = flow.run(ports, job, NEXT_NIGHT, crew=alone)

    assert (books.unchanged, books.requests) == (6, 0)
    key = stack.ledger.sealed(books.run, 0).facts["redaction_key"]
    assert key == stack.ledger.sealed(stack.ledger.runs()[-1].run, 0).facts["redaction_key"]
    assert not any(key.encode() in content for content in stack.store.files.values())


def test_every_part_reads_the_time_that_one_worker_would_read() -> None:
    windows: list[Any] = []

    class Tells(MemorySource):
        def read_part(self, window, part, *, seen):
            windows.append(window)
            yield from super().read_part(window, part, seen=seen)

    source = {"files": "memory/*.jsonl", "key": "id", "parts": 2, "watermark": {"column": "seen", "grace": "1h"}}
    job, stack = parted(source=source), Stack([])
    chunks = [Chunk(("id", "seen", "text"), [(f"k{number}", NIGHT.start, "text")]) for number in range(2)]
    ports = stack.ports(source=lambda: Tells(chunks))

    plan = flow.prepare(ports, job, NIGHT, crew=alone)
    one = flow.prepare(Stack([]).ports(source=lambda: MemorySource(chunks)), job, NIGHT)

    assert windows == [reads(Stack([]).ledger, job, NIGHT)] * 2
    assert plan.facts["watermark"] == one.facts["watermark"]


def test_two_that_put_the_same_parts_together_seal_one_plan_and_tell_it_once() -> None:
    stack, told = Stack([]), MemoryTelemetry()
    (errand, *_) = errands_of(stack, TROUBLED)
    sources = {"source": lambda: in_chunks(TROUBLED), "telemetry": told}

    class Overtaken:
        """A ledger in which another process seals, just before this one does."""

        def __getattr__(self, name: str) -> Any:
            return getattr(stack.ledger, name)

        def seal(self, *args: Any, **kwargs: Any) -> RoundPlan:
            flow.prepare(stack.ports(**sources), parted(), NIGHT, spread=errand.spread)
            return stack.ledger.seal(*args, **kwargs)

    plan = flow.prepare(stack.ports(**sources, ledger=Overtaken()), parted(), NIGHT, spread=errand.spread)

    assert plan == stack.ledger.sealed(plan.run, 0)
    assert told.sums(metrics.RECORDS, "what")[("pulled",)] == len(TROUBLED)

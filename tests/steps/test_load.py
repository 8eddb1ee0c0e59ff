"""Load: good answers and their copies reach the sink, once."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pyarrow as pa

from nightbatch.core.shard import ShardState
from nightbatch.steps.load import context_of, load
from nightbatch.steps.outcome import Finished, Moved
from nightbatch.steps.validate import validate
from tests.memory_stack import NEXT_NIGHT, Stack, job_of
from tests.steps.shards import again, stack_of, stored
from tests.steps.test_retry import RESULTS


def collected(stack: Stack):
    shard = stored(stack)
    validate(stack.ports(), job_of(), shard)
    return again(stack, shard.plan.ref)


def test_only_good_answers_are_loaded() -> None:
    stack = stack_of(3)
    stack.vendor.answer = lambda messages, _: RESULTS["empty" if messages.user == "text 1" else "good"]

    assert load(stack.ports(), job_of(), collected(stack)) == Moved()

    assert stack.answers() == {"k0": "fine", "k2": "fine"}


def test_a_second_load_changes_nothing() -> None:
    stack = stack_of(3)
    shard = collected(stack)
    load(stack.ports(), job_of(), shard)
    rows = dict(stack.sink.answers)

    load(stack.ports(), job_of(), shard)
    shard = again(stack, shard.plan.ref)

    assert stack.sink.answers == rows
    assert (shard.state, shard.merged) == (ShardState.LOADED, 3)
    assert load(stack.ports(), job_of(), shard) == Finished("loaded")


def test_records_that_ask_the_same_get_the_answer_for_nothing() -> None:
    stack = Stack([("k0", "same"), ("k1", "same"), ("k2", "same"), ("k3", "other")])

    load(stack.ports(), job_of(), collected(stack))

    rows = stack.sink.answers
    assert {key: row["duplicate_of"] for key, row in rows.items()} == {"k0": None, "k1": "k0", "k2": "k0", "k3": None}
    assert {rows[key]["cost_usd"] for key in ("k1", "k2")} == {Decimal(0)}
    assert rows["k0"]["cost_usd"] > 0


def test_an_answer_that_gives_way_to_a_newer_one_counts_as_in_its_place() -> None:
    stack = stack_of(2)
    shard = collected(stack)
    load(stack.ports(), job_of(), shard)
    newer = replace(context_of(stack.ledger.run(shard.plan.ref.run)), window=NEXT_NIGHT)
    batch = pa.RecordBatch.from_pydict({"key": ["k0"], "fingerprint": ["f"], "answer": ["newer"]})
    stack.sink.merge(newer, "r0-s000", [batch])

    load(stack.ports(), job_of(), shard)

    assert stack.answers() == {"k0": "newer", "k1": "text 1"}
    assert again(stack, shard.plan.ref).merged == 2

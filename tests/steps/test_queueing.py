"""A vendor's queue, as the steps meet it: shards are cut to fit, wait in line, and are told when they never could."""

from __future__ import annotations

import pytest

from nightbatch import flow
from nightbatch.cli_status import runs_json, show
from nightbatch.core.queue import Kind, Limit, QueueRules
from nightbatch.core.shard import ShardState
from nightbatch.errors import QueueFull, RunIncomplete
from nightbatch.steps.outcome import Moved, Waiting
from nightbatch.steps.submit import submit
from tests.memory_stack import NIGHT, Stack, job_of
from tests.steps.shards import again

ONE_AT_A_TIME = QueueRules((Limit(Kind.BATCHES, 1),))


def stack_with(rules: QueueRules, count: int = 8, *, size: int = 10) -> Stack:
    stack = Stack([(f"k{number}", f"text {number} " + "x" * size) for number in range(count)])
    stack.provider.queue = rules
    stack.provider.ends_at_once = False
    return stack


def test_shards_are_cut_so_that_four_of_them_may_wait_at_a_time() -> None:
    stack = stack_with(QueueRules((Limit(Kind.TOKENS, 2_000, "echo-1"), Limit(Kind.ROWS, 9))), size=600)

    plan = flow.prepare(stack.ports(), job_of(shard={}), NIGHT)

    assert [shard.rows for shard in plan.shards] == [2, 2, 2, 2]  # a quarter of nine rows; three would be 870 tokens
    assert all(0 < shard.queue_tokens <= 1_000 for shard in plan.shards)
    tokens = stack_with(QueueRules((Limit(Kind.TOKENS, 1_300, "echo-1"),)), size=600)
    assert [shard.rows for shard in flow.prepare(tokens.ports(), job_of(shard={}), NIGHT).shards] == [1] * 8


def test_a_request_that_is_more_than_may_ever_wait_is_a_dead_letter() -> None:
    stack = stack_with(QueueRules((Limit(Kind.TOKENS, 250, "echo-1"),)), size=100)
    stack.records.append(("long", "y" * 900))

    plan = flow.prepare(stack.ports(), job_of(), NIGHT)

    assert plan.facts["dead_reasons"] == {"too_large": 1}
    assert sum(shard.rows for shard in plan.shards) == 8


def test_a_shard_waits_in_line_without_a_word_to_the_vendor_and_reads_no_file_meanwhile() -> None:
    stack = stack_with(ONE_AT_A_TIME)
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    first, second = (stack.ledger.shard(shard.ref) for shard in plan.shards[:2])
    assert submit(stack.ports(), job_of(), first) == Moved()
    stack.store.files.pop(second.plan.requests_name)  # would be missed if it were read

    outcome = submit(stack.ports(), job_of(), second)

    assert isinstance(outcome, Waiting)
    assert outcome.reason == (
        "waits for a place in the queue of openai: 1 of 1 batches wait there, and this shard needs 1"
    )
    assert len(stack.vendor.batches) == 1
    assert again(stack, second.plan.ref).attempts == 0


def test_the_limit_was_lowered_and_the_rows_go_on_in_smaller_shards() -> None:
    """A sealed shard that could wait for ever is told and held; running the window again packs its rows anew."""
    stack = stack_with(QueueRules(), 6, size=600)
    flow.prepare(stack.ports(), job_of(rounds=0), NIGHT)
    stack.provider.queue = QueueRules((Limit(Kind.TOKENS, 600, "echo-1"),))
    stack.provider.ends_at_once = True

    with pytest.raises(RunIncomplete, match="queue_too_small"):
        flow.run(stack.ports(), job_of(rounds=0), NIGHT)

    assert len(stack.vendor.batches) == 0
    books = flow.run(stack.ports(), job_of(rounds=0), NIGHT)
    assert (books.state, books.merged, len(stack.vendor.batches)) == ("complete", 6, 6)


def test_a_refusal_costs_no_round_and_the_shard_waits_its_turn() -> None:
    stack = stack_with(QueueRules(full_by=Kind.ROWS))
    plan = flow.prepare(stack.ports(), job_of(rounds=0), NIGHT)
    first, second = (stack.ledger.shard(shard.ref) for shard in plan.shards[:2])
    submit(stack.ports(), job_of(), first)

    def refuse() -> None:
        raise QueueFull("memory", cause="full")

    stack.vendor.before_create = refuse
    assert submit(stack.ports(), job_of(), second) == Moved()
    stack.vendor.before_create = lambda: None
    waiting = submit(stack.ports(), job_of(), again(stack, second.plan.ref))
    assert isinstance(waiting, Waiting)
    assert "3 of 3 requests, as its last refusal taught, wait there" in waiting.reason

    stack.provider.ends_at_once = True
    books = flow.run(stack.ports(), job_of(rounds=0), NIGHT)

    assert (books.state, books.merged, len(stack.vendor.batches)) == ("complete", 8, 3)


def test_status_shows_who_waits_in_line_and_behind_whom(capsys: pytest.CaptureFixture[str]) -> None:
    stack = stack_with(ONE_AT_A_TIME)
    plan = flow.prepare(stack.ports(), job_of(priority=3), NIGHT)
    for shard in plan.shards:
        submit(stack.ports(), job_of(priority=3), stack.ledger.shard(shard.ref))

    show(stack.ledger, stack.ledger.runs(), {}, now=stack.clock.now())

    shown = " ".join(capsys.readouterr().out.split())
    (listed,) = runs_json(stack.ledger, stack.ledger.runs(), {}, now=stack.clock.now())["runs"]
    assert "in line 2 shards of priority 3, the first since 0 s, told 0 s ago: waits for a place in the queue" in shown
    waits = [one["waits_for"] for one in listed["shards"] if one["waits_for"]]
    assert any(
        why.startswith("1 shard is ahead (reviews) in the queue of openai: 1 of 1 batches wait") for why in waits
    )
    assert {shard.state for shard in stack.ledger.shards(plan.run)} == {ShardState.OPEN, ShardState.SEALED}

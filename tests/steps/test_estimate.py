"""Estimate: what `plan` says is what a run then does, and nothing is kept."""

from __future__ import annotations

from nightbatch import flow
from nightbatch.adapters.memory import StaticPrices
from tests.memory_stack import NIGHT, Stack, job_of
from tests.steps.shards import stack_of


def test_what_was_foreseen_is_what_happens_and_costs_no_more() -> None:
    stack = Stack([*[(f"k{n}", f"text {n}") for n in range(7)], ("twin", "text 3"), (None, "no key")])

    seen = flow.look_ahead(stack.ports(), job_of(), NIGHT)
    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (seen.counts.pulled, seen.counts.requests, seen.shards) == (9, books.requests, books.batches)
    assert (seen.counts.duplicates, seen.counts.unrenderable) == (books.duplicates, books.unrenderable)
    assert books.cost_usd <= seen.worst_usd
    assert books.realtime_usd <= seen.realtime_worst_usd
    assert seen.expected_usd <= seen.worst_usd


def test_a_look_ahead_keeps_and_sends_nothing() -> None:
    stack = stack_of(5)

    flow.look_ahead(stack.ports(), job_of(), NIGHT)

    assert (stack.store.files, stack.vendor.batches, stack.ledger.runs()) == ({}, {}, [])


def test_an_unknown_price_is_told_as_unknown() -> None:
    stack = stack_of(2)

    seen = flow.look_ahead(stack.ports(prices=StaticPrices({})), job_of(), NIGHT)

    assert (seen.expected_usd, seen.worst_usd, seen.realtime_worst_usd) == (None, None, None)


def test_what_is_in_the_sink_already_is_foreseen_as_unchanged() -> None:
    stack = stack_of(4)
    flow.run(stack.ports(), job_of(), NIGHT)

    seen = flow.look_ahead(stack.ports(), job_of(), NIGHT)

    assert (seen.counts.unchanged, seen.counts.requests, seen.shards) == (4, 0, 0)

"""Collect: whole files with their hashes, or nothing."""

from __future__ import annotations

from hashlib import sha256

import pytest

from nightbatch.core.shard import ShardState
from nightbatch.errors import ProviderBusy, StaleAttempt
from nightbatch.ports import RawFile
from nightbatch.steps.collect import collect
from nightbatch.steps.outcome import Moved
from tests.memory_stack import Stack, later
from tests.steps.shards import again, opened, stack_of


def ended(stack: Stack):
    shard = opened(stack)
    return shard, stack.vendor.end(shard.current.batch_id)


def test_every_result_file_is_stored_as_it_came() -> None:
    stack = stack_of(2)
    shard, state = ended(stack)
    stack.provider.results = lambda _: iter(
        [RawFile("output", iter([b"one\n", b"tw", b"o\n"])), RawFile("error", iter([]))]
    )

    assert collect(stack.ports(), shard, state) == Moved()

    shard = again(stack, shard.plan.ref)
    assert shard.state is ShardState.STORED
    assert [stack.store.files[name] for name in shard.raw_names] == [b"one\ntwo\n", b""]
    assert shard.raw_sha256s == tuple(sha256(stack.store.files[name]).hexdigest() for name in shard.raw_names)


def test_a_download_that_ends_late_leaves_what_was_stored_as_it_is() -> None:
    """A process that was frozen wakes up after another one has stored and judged the batch."""
    stack = stack_of(2)
    shard, state = ended(stack)
    collect(stack.ports(), shard, state)
    first = again(stack, shard.plan.ref)
    later(stack, seconds=1)
    stack.provider.results = lambda _: iter([RawFile("output", iter([b"the same rows in another order\n"]))])

    with pytest.raises(StaleAttempt):
        collect(stack.ports(), shard, state)

    assert again(stack, shard.plan.ref) == first
    assert first.raw_sha256s == tuple(sha256(stack.store.files[name]).hexdigest() for name in first.raw_names)


def test_a_download_that_breaks_off_leaves_nothing_and_is_done_again() -> None:
    def breaks_off():
        yield b"half a li"
        raise ProviderBusy("memory", "downloading", cause="reset")

    stack = stack_of(2)
    shard, state = ended(stack)
    before = set(stack.store.files)
    whole = stack.provider.results
    stack.provider.results = lambda _: iter([RawFile("output", breaks_off())])
    with pytest.raises(ProviderBusy):
        collect(stack.ports(), shard, state)
    assert set(stack.store.files) == before
    assert again(stack, shard.plan.ref).state is ShardState.OPEN
    stack.provider.results = whole

    collect(stack.ports(), shard, state)

    assert again(stack, shard.plan.ref).state is ShardState.STORED


def test_a_shard_that_was_collected_meanwhile_is_left_alone() -> None:
    stack = stack_of(1)
    shard, state = ended(stack)
    collect(stack.ports(), shard, state)
    stack.provider.results = lambda _: pytest.fail("nothing is downloaded twice")

    assert collect(stack.ports(), again(stack, shard.plan.ref), state) == Moved()

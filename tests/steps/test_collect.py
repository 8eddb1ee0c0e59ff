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
        [RawFile("output", iter([b"{1}\n", b"{", b"2}\n"])), RawFile("error", iter([]))]
    )

    assert collect(stack.ports(), shard, state) == Moved()

    shard = again(stack, shard.plan.ref)
    assert shard.state is ShardState.STORED
    assert [stack.store.files[name] for name in shard.raw_names] == [b"{1}\n{2}\n", b""]
    assert shard.raw_sha256s == tuple(sha256(stack.store.files[name]).hexdigest() for name in shard.raw_names)


def test_a_download_that_ends_late_leaves_what_was_stored_as_it_is() -> None:
    """A process that was frozen wakes up after another one has stored and judged the batch."""
    stack = stack_of(2)
    shard, state = ended(stack)
    collect(stack.ports(), shard, state)
    first = again(stack, shard.plan.ref)
    later(stack, seconds=1)
    stack.provider.results = lambda _: iter([RawFile("output", iter([b"{the same rows in another order}\n"]))])

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


# --- what comes broken ----------------------------------------------------------------------------------------


def coming(stack: Stack, *downloads: bytes) -> None:
    """Let each download of the one result file bring something else."""
    left = list(downloads)
    stack.provider.results = lambda _: iter([RawFile("output", iter([left.pop(0)]))])


def test_a_file_that_came_garbled_is_fetched_again_before_any_row_counts_as_missing() -> None:
    stack = stack_of(2)
    shard, state = ended(stack)
    coming(stack, b'{"a": 1}\n{"b":<<<<<<', b'{"a": 1}\n{"b": 2}\n')

    assert collect(stack.ports(), shard, state) == Moved()

    (name,) = again(stack, shard.plan.ref).raw_names
    assert stack.store.files[name] == b'{"a": 1}\n{"b": 2}\n'


def test_a_broken_line_that_comes_the_same_twice_is_the_vendors_own_and_costs_one_row() -> None:
    stack = stack_of(2)
    shard, state = ended(stack)
    coming(stack, *[b'{"a": 1}\nnot json\n'] * 2)

    assert collect(stack.ports(), shard, state) == Moved()


@pytest.mark.parametrize("downloads", [[b"<!doctype html>\n<p>Sign in</p>\n"] * 2, [b"{1}\n{2<", b"{1}\n{3<"]])
def test_what_cannot_be_believed_is_waited_for_and_nothing_of_it_is_kept_as_the_results(downloads) -> None:
    stack = stack_of(2)
    shard, state = ended(stack)
    coming(stack, *downloads)

    with pytest.raises(ProviderBusy, match="broken"):
        collect(stack.ports(), shard, state)

    assert again(stack, shard.plan.ref).state is ShardState.OPEN

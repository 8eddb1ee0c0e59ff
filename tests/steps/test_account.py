"""Accounts: trouble stops all sending and is told once; another account's key gives no batch up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.core.result import ErrorKind, Outcome, Result
from nightbatch.core.shard import ShardState
from nightbatch.errors import AccountChanged, AccountTrouble, RunIncomplete
from nightbatch.steps.account import check_account
from nightbatch.steps.collect import collect
from nightbatch.steps.resolve import resolve
from nightbatch.steps.wait import wait
from tests.memory_stack import NIGHT, Killed, Stack, job_of, later
from tests.steps.shards import again, answered, opened, sealed, stack_of

TROUBLE = AccountTrouble("memory", code="no_credit", message="nothing left")


class Otherwise:
    """A provider of which some calls do something else."""

    def __init__(self, inner, **calls):
        self._inner, self._calls = inner, calls

    def __getattr__(self, name):
        return self._calls.get(name) or getattr(self._inner, name)


def raising(error):
    def call(*_, **__):
        raise error

    return call


def with_calls(stack, **calls):
    """Give ports whose provider does these calls otherwise."""
    provider = Otherwise(stack.provider, **calls)
    return stack.ports(provider=lambda *_: provider)


def elsewhere(stack, **calls):
    """Give ports whose key belongs to another account, which knows of no batch."""
    empty = Stack([]).provider
    return with_calls(stack, account=lambda: "other-account", poll=empty.poll, find=empty.find, **calls)


# --- another account's key ------------------------------------------------------------------------------------


def test_another_accounts_404_gives_no_batch_up_and_the_sentence_names_both_accounts() -> None:
    stack = stack_of(2)
    shard = opened(stack)
    later(stack, days=3)

    with pytest.raises(AccountChanged, match="memory-account") as told:
        wait(elsewhere(stack), shard)

    assert "other-account" in str(told.value)
    assert "batch_0" in str(told.value)
    assert again(stack, shard.plan.ref) == shard
    later(stack, days=3)
    assert flow.run(stack.ports(), job_of(), NIGHT).state == "complete"
    assert set(stack.vendor.billed.values()) == {1}


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_lost_create_is_not_sent_again_because_another_account_does_not_list_it(found_by: str) -> None:
    stack = stack_of(2)
    stack.found_by = stack.provider.found_by = found_by
    shard = sealed(stack)
    stack.vendor.after_create = raising(Killed())
    with pytest.raises(Killed):
        flow.advance(stack.ports(), job_of(), shard.plan.ref)
    stack.vendor.after_create = lambda: None
    shard = again(stack, shard.plan.ref)
    later(stack, hours=3)

    with pytest.raises(AccountChanged, match="whose reply was lost"):
        resolve(elsewhere(stack), shard)

    assert again(stack, shard.plan.ref).state is ShardState.SUBMITTING
    assert flow.run(stack.ports(), job_of(), NIGHT).state == "complete"
    assert len(stack.vendor.batches) == 1


def test_results_of_another_account_are_not_collected_though_the_id_is_the_same() -> None:
    stack = stack_of(2)
    shard = opened(stack)

    with pytest.raises(AccountChanged):
        collect(with_calls(stack, account=lambda: "other-account"), shard, stack.vendor.end("batch_0"))

    assert again(stack, shard.plan.ref).state is ShardState.OPEN


def test_a_vendor_that_shows_the_batch_and_names_no_account_is_believed() -> None:
    stack = stack_of(2)
    shard = opened(stack)

    check_account(Otherwise(stack.provider, account=lambda: "c"), shard, shard.current, has_answered=True)
    with pytest.raises(AccountChanged):
        check_account(Otherwise(stack.provider, account=lambda: "c"), shard, shard.current)


def test_force_with_another_accounts_key_gives_no_batch_up() -> None:
    stack = stack_of(2)
    shard = opened(stack)
    later(stack, days=3)

    with pytest.raises(AccountChanged):
        flow.prepare(elsewhere(stack), job_of(), NIGHT, flow.Options(force="a person"))

    assert again(stack, shard.plan.ref).state is ShardState.OPEN


# --- trouble --------------------------------------------------------------------------------------------------


def test_trouble_with_one_shard_keeps_the_others_from_asking_the_vendor() -> None:
    stack = stack_of(8)
    asked = []

    def account():
        asked.append(1)
        raise TROUBLE

    with pytest.raises(RunIncomplete, match=r"8 account_trouble.*no_credit.*nothing left"):
        flow.run(with_calls(stack, account=account), job_of(), NIGHT)

    assert len(asked) == 1
    (message,) = stack.notifier.messages
    assert message.happened.count("no_credit") == 1
    assert flow.run(stack.ports(), job_of(), NIGHT).state == "complete"
    assert set(stack.vendor.billed.values()) == {1}


def test_trouble_in_rows_stops_what_is_not_sent_yet_and_what_would_be_sent_again() -> None:
    stack = stack_of(4)
    refused = Result("", Outcome.ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="no_credit")
    stack.vendor.answer = lambda messages, times: (
        refused if messages.user == "text 0" else Result("", Outcome.EXPIRED) if times == 0 else answered(messages.user)
    )

    with pytest.raises(RunIncomplete, match=r"account_trouble.*no_credit"):
        flow.run(stack.ports(), job_of(), NIGHT)

    assert len(stack.vendor.batches) == 1
    assert len(stack.notifier.messages) == 1


@pytest.mark.parametrize("call", ["poll", "results"])
def test_trouble_while_batches_are_under_way_is_told_once_and_one_more_run_ends_it_all(call: str) -> None:
    """A shard that was not sent yet goes with it: nobody must run the window twice."""
    stack = stack_of(8)
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    stack.provider.ends_at_once = False
    flow.advance(stack.ports(), job_of(), plan.shards[0].ref)
    stack.provider.ends_at_once = True

    with pytest.raises(RunIncomplete, match="no_credit"):
        flow.run(with_calls(stack, **{call: raising(TROUBLE)}), job_of(), NIGHT)

    assert len(stack.notifier.messages) == 1
    books = flow.run(stack.ports(), job_of(), NIGHT)
    assert (books.state, books.good, books.run) == ("complete", 8, plan.run)
    assert set(stack.vendor.billed.values()) == {1}
    assert [shard.problem for shard in stack.ledger.shards(plan.run)] == [""] * 3


def test_a_look_that_goes_well_clears_what_an_earlier_one_said() -> None:
    stack = stack_of(2)
    stack.provider.ends_at_once = False
    ref = opened(stack).plan.ref
    with pytest.raises(AccountTrouble):
        flow.advance(with_calls(stack, poll=raising(TROUBLE)), job_of(), ref)
    assert "no_credit" in again(stack, ref).problem

    flow.advance(stack.ports(), job_of(), ref)

    assert again(stack, ref).problem == ""


def test_one_404_after_a_long_pause_is_a_blip_also_where_nobody_looked_meanwhile() -> None:
    stack = stack_of(2)
    shard = opened(stack)
    later(stack, days=1)
    gone = stack.vendor.batches.pop("batch_0")

    wait(stack.ports(), shard)
    since = stack.clock.now()
    later(stack, minutes=10)
    wait(stack.ports(), again(stack, shard.plan.ref))

    assert again(stack, shard.plan.ref).current.gone_since_utc == since
    stack.vendor.batches["batch_0"] = replace(gone)
    stack.provider.ends_at_once = False
    later(stack, minutes=10)
    wait(stack.ports(), again(stack, shard.plan.ref))
    assert again(stack, shard.plan.ref).current.gone_since_utc is None
    assert stack.clock.now() - since == timedelta(minutes=20)

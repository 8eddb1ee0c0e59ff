"""Batches that nobody owns are found over the whole listing, and what cannot be known is said."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.core.batch import BatchStatus
from nightbatch.core.ids import Label, run_code
from nightbatch.core.request import Messages
from nightbatch.steps import orphans as finding
from nightbatch.steps.lanes import body_of
from nightbatch.steps.orphans import Account, orphans
from tests.memory_stack import NIGHT, Killed, Stack, job_of, later

RECORDS = [(str(number), f"text {number}") for number in range(3)]


def look(stack: Stack, *lanes: tuple[str, str]) -> list[Account]:
    since = stack.clock.now() - timedelta(days=30)
    return list(orphans(stack.ledger, stack.ports().provider, lanes or [("openai", "c")], since=since))


def made(stack: Stack, label: Label, *, rows: int = 2) -> str:
    """Make a batch that no attempt of the ledger owns."""
    encoder = stack.provider.encoder(job_of().request_spec(0))
    body = body_of(encoder, Messages("", "a question"))
    lines = [encoder.envelope.line(f"{label.prefix}{row}", body).rstrip() for row in range(rows)]
    return stack.vendor.create(lines, label).batch_id


def label(stack: Stack, *, ledger: str = "", run: str = "", attempt: int = 2) -> Label:
    return Label(ledger or stack.ledger.ledger_id, run_code(run), 0, 0, attempt, "f" * 64)


def test_a_ledger_that_owns_all_its_batches_has_no_orphans() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)

    [account] = look(stack)

    assert (dict(account.counts), account.orphans) == ({"owned": 1}, [])
    assert (account.provider, account.connection, account.account) == ("openai", "c", "memory-account")


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_batch_made_beside_the_one_that_was_used_is_told_with_what_it_may_have_cost(found_by: str) -> None:
    stack = Stack(RECORDS, found_by=found_by)
    run = flow.run(stack.ports(), job_of(), NIGHT).run
    batch_id = made(stack, label(stack, run=run))
    later(stack, hours=1)

    [account] = look(stack)

    [orphan] = account.orphans
    assert (orphan.batch_id, orphan.kind, orphan.rows) == (batch_id, "orphan", 2)
    assert orphan.shard == f"{run} r0-s000"
    assert orphan.worst_usd == stack.ledger.shards(run)[0].plan.worst_usd
    assert orphan.to_do == finding.NOT_USED


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_other_ledgers_batches_are_counted_and_left_alone(found_by: str) -> None:
    stack = Stack(RECORDS, found_by=found_by)
    made(stack, label(stack, ledger="e" * 32, run="theirs"))

    [account] = look(stack)

    assert (dict(account.counts), account.orphans) == ({"another ledger's": 1}, [])


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_batch_of_a_run_that_the_ledger_does_not_know_is_told_so(found_by: str) -> None:
    """As after a backup of the ledger was restored."""
    stack = Stack(RECORDS, found_by=found_by)
    made(stack, label(stack, run="reviews/lost/g1"))

    [account] = look(stack)

    [orphan] = account.orphans
    assert (orphan.kind, orphan.worst_usd, orphan.to_do) == ("orphan", None, finding.UNKNOWN)


def test_without_labels_an_open_batch_may_be_anybodys() -> None:
    stack = Stack(RECORDS, found_by="count")
    stack.provider.ends_at_once = False
    made(stack, label(stack, run="whose"))

    [account] = look(stack)

    [orphan] = account.orphans
    assert (orphan.kind, orphan.to_do) == ("cannot tell", finding.CANNOT_TELL)
    assert stack.vendor.batches["batch_0"].state.status is BatchStatus.RUNNING


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_a_lost_create_that_is_being_looked_for_is_no_orphan(found_by: str) -> None:
    stack = Stack(RECORDS, found_by=found_by)

    def dies() -> None:
        raise Killed("create")

    stack.vendor.after_create = dies
    with pytest.raises(Killed):
        flow.run(stack.ports(), job_of(), NIGHT)

    [account] = look(stack)

    assert (dict(account.counts), account.orphans) == ({"being looked for": 1}, [])


def test_a_batch_that_a_person_gave_up_and_that_is_there_after_all_is_told() -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    [plan] = flow.prepare(stack.ports(), job_of(), NIGHT).shards
    flow.advance(stack.ports(), job_of(), plan.ref)
    attempt = stack.ledger.shard(plan.ref).current
    assert attempt is not None
    stack.ledger.end_attempt(
        attempt.attempt_id, "lost", reason="vanished", retry_at=None, hold="missing", now=stack.clock.now()
    )

    [account] = look(stack)

    [orphan] = account.orphans
    assert (orphan.kind, orphan.batch_id) == ("given up", attempt.batch_id)


def test_an_account_that_two_connections_lead_to_is_read_once() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)

    assert len(look(stack, ("openai", "c"), ("openai", "d"))) == 1
    assert stack.ledger.accounts_used() == [("openai", "c")]


def test_a_long_listing_is_read_to_its_end() -> None:
    stack = Stack(RECORDS)
    for _ in range(1_203):
        made(stack, label(stack, ledger="e" * 32, run="theirs"), rows=1)
    flow.run(stack.ports(), job_of(), NIGHT)

    [account] = look(stack)

    assert dict(account.counts) == {"another ledger's": 1_203, "owned": 1}

"""Tell: written down before it is sent, at most one repeat, and a channel that is down fails nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import FixedClock, MemoryNotifier
from nightbatch.core.deadline import Lateness
from nightbatch.errors import ProviderBusy, RunIncomplete
from nightbatch.ports import Message
from nightbatch.steps.tell import TRIES, tell
from nightbatch.steps.warn import watch_deadline
from tests.memory_stack import NEXT_NIGHT, NIGHT, KillAt, Killed, Stack, job_of, later
from tests.messages import message_of
from tests.steps.shards import opened, stack_of
from tests.steps.test_retry import RESULTS

AGAIN = timedelta(minutes=2)
DOWN = ProviderBusy("mail", "sending", cause="connection refused")
LOUD = {"mail": ["a@example.com"], "on": ["at_risk", "late", "failed", "report"]}


def run_of(stack: Stack) -> str:
    return opened(stack).plan.ref.run


def message_about(run: str) -> Message:
    return message_of(event_id=f"{run}:late")


class Watching(MemoryNotifier):
    """Says what the ledger held at the moment of sending."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.could_claim: list[bool] = []

    def send(self, message: Message) -> None:
        # An event that is written down and claimed is not given out twice within minutes.
        claim = self.stack.ledger.may_deliver(
            message.event_id, self.channel, again_after=AGAIN, now=self.stack.clock.now()
        )
        self.could_claim.append(claim)
        super().send(message)


def test_an_event_is_written_down_and_claimed_before_it_is_sent() -> None:
    stack = stack_of(1)
    run = run_of(stack)
    watching = Watching(stack)

    assert tell(stack.ports(notifiers=lambda: (watching,)), run, message_about(run)) == 1

    assert watching.could_claim == [False]
    assert stack.ledger.deliveries(run) == [(f"{run}:late", "late", "memory")]


def test_the_report_says_how_old_the_oldest_answer_in_use_is() -> None:
    stack = Stack([("k1", "text")])

    flow.run(stack.ports(), job_of(notify=LOUD), NIGHT)

    (message,) = stack.notifier.messages
    assert dict(message.facts)["Oldest answer in use"].endswith("(all windows up to 2026-11-21 00:00 UTC are answered)")


def test_nobody_hears_a_thing_twice() -> None:
    stack = stack_of(1)
    run = run_of(stack)

    told = [tell(stack.ports(), run, message_about(run)) for _ in range(3)]

    assert (told, len(stack.notifier.messages)) == ([1, 0, 0], 1)


def test_a_process_that_died_after_sending_repeats_once_at_most() -> None:
    stack = stack_of(1)
    run = run_of(stack)
    for _ in range(4):
        dies = stack.ports(ledger=KillAt(stack.ledger, 3, "before"))
        try:
            tell(dies, run, message_about(run))
        except Killed:
            later(stack, minutes=11)

    assert len(stack.notifier.messages) == 2


def test_the_end_of_a_run_is_told_at_once_although_the_first_who_told_it_died() -> None:
    """Nobody comes a third time to tell it, so whoever runs the window again waits for the dead sender."""
    stack = stack_of(1)
    run = run_of(stack)
    dies = stack.ports(notifiers=lambda: (KillAt(stack.notifier, 1, "before"),))
    with pytest.raises(Killed):
        tell(dies, run, message_about(run), waits=True)

    assert tell(stack.ports(), run, message_about(run)) == 0
    assert tell(stack.ports(), run, message_about(run), waits=True) == 1


def test_a_message_that_somebody_else_is_sending_is_not_sent_beside_it() -> None:
    stack = stack_of(1)
    run, message = run_of(stack), message_about("")
    stack.ledger.record_event(message.event_id, "late", run, {}, now=stack.clock.now())
    stack.ledger.may_deliver(message.event_id, "memory", again_after=AGAIN, now=stack.clock.now())

    def sends(seconds: float) -> None:
        stack.clock.advance(timedelta(seconds=seconds))
        stack.ledger.note_delivered(message.event_id, "memory", now=stack.clock.now())

    clock = FixedClock(stack.clock.now())
    clock.sleep = sends  # type: ignore[method-assign]

    assert tell(stack.ports(clock=clock), run, message, waits=True) == 0


def test_a_channel_that_is_down_fails_nothing_and_silences_no_other() -> None:
    stack = stack_of(1)
    run = run_of(stack)
    mail, slack = MemoryNotifier("mail"), MemoryNotifier("slack")
    mail.failures = [DOWN] * TRIES

    told = tell(stack.ports(notifiers=lambda: (mail, slack)), run, message_about(run))

    assert (told, mail.messages, len(slack.messages)) == (1, [], 1)


def test_a_channel_that_was_down_is_tried_once_more_later() -> None:
    stack = stack_of(1)
    run = run_of(stack)
    stack.notifier.failures = [DOWN] * TRIES
    tell(stack.ports(), run, message_about(run))
    later(stack, minutes=11)

    assert tell(stack.ports(), run, message_about(run)) == 1


@pytest.mark.parametrize(
    ("to_go", "stands", "kinds"),
    [
        (timedelta(hours=3), Lateness.ON_TIME, []),
        (timedelta(minutes=30), Lateness.AT_RISK, ["at_risk"]),
        (timedelta(minutes=-5), Lateness.MISSED, ["late"]),
    ],
)
def test_people_hear_before_a_deadline_and_when_it_is_missed(to_go, stands, kinds) -> None:
    stack = stack_of(1)
    job = job_of(notify=LOUD, warn_before="1h", deadline={"after": "8h"})
    shard = opened(stack, job)
    due = stack.clock.now() + timedelta(hours=4)
    later(stack, seconds=(timedelta(hours=4) - to_go).total_seconds())
    run = stack.ledger.run(shard.plan.ref.run)

    for _ in range(2):
        assert watch_deadline(stack.ports(), job, run, due) is stands

    assert [message.kind for message in stack.notifier.messages] == kinds
    if kinds:
        facts = dict(stack.notifier.messages[0].facts)
        assert facts["Batches"] == "r0-s000 = batch_0 at openai (in_progress)"
        assert facts["Waiting for"] == "1 of 1 shards, 1 rows"


def test_a_run_that_ended_well_reports_once_although_it_is_run_again() -> None:
    stack = stack_of(2)
    for _ in range(2):
        flow.run(stack.ports(), job_of(notify=LOUD), NIGHT)

    (message,) = stack.notifier.messages
    assert (message.kind, message.title) == ("report", "reviews: 2 answers loaded for 0.0000 USD")
    assert dict(message.facts)["Loaded"] == "2"


def test_an_incomplete_run_says_how_many_rows_wait_and_what_to_do() -> None:
    stack = stack_of(2)
    stack.vendor.answer = lambda *_: RESULTS["expired"]

    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(notify=LOUD), NIGHT)

    (message,) = stack.notifier.messages
    assert (message.kind, message.title) == ("incomplete", "reviews: 2 rows are pending")
    assert message.happens_next.startswith("The job's next run takes the pending rows first.")


def test_a_job_that_wants_no_reports_gets_none() -> None:
    stack = stack_of(1)

    flow.run(stack.ports(), job_of(notify={"mail": ["a@example.com"], "on": ["late"]}), NIGHT)

    assert stack.notifier.messages == []


def test_a_run_without_a_record_is_not_reported_as_if_something_had_happened() -> None:
    stack = Stack([])
    job = job_of(notify={"mail": ["a@example.com"], "on": ["report"]})
    flow.run(stack.ports(), job, NIGHT)
    assert stack.notifier.messages == []

    stack.records = [("k0", "text")]
    flow.run(stack.ports(), job, NEXT_NIGHT)
    assert [message.kind for message in stack.notifier.messages] == ["report"]

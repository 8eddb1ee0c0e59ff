"""A channel that is down: tried again at once, told later, and never in the run's way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import MemoryNotifier
from nightbatch.errors import ConnectionInvalid, NightbatchError, StorageUnavailable
from nightbatch.ports import Message
from nightbatch.steps.tell import TRIES, tell
from nightbatch.steps.untold import tell_again
from tests.memory_stack import NIGHT, Stack, job_of, later
from tests.messages import message_of
from tests.steps.shards import opened, stack_of

DOWN = StorageUnavailable("mail", cause="ConnectionRefusedError")


class Channel(MemoryNotifier):
    """A channel that answers each try with an error until it is mended."""

    def __init__(self, error: NightbatchError | None = DOWN, *, times: int = 10_000) -> None:
        super().__init__("mail")
        self.error, self.times, self.tries = error, times, 0

    def send(self, message: Message) -> None:
        self.tries += 1
        if self.error is not None and self.tries <= self.times:
            raise self.error
        super().send(message)


def ports_of(stack: Stack, *channels: MemoryNotifier):
    return stack.ports(notifiers=lambda: channels)


def late(run: str, number: int = 0) -> Message:
    return message_of(event_id=f"{run}:late:{number}", title=f"message {number}")


def test_a_channel_that_stumbles_is_tried_again_at_once_and_takes_the_message_once() -> None:
    stack, channel = stack_of(1), Channel(times=2)
    run = opened(stack).plan.ref.run
    before = stack.clock.now()

    assert tell(ports_of(stack, channel), run, late(run)) == 1
    assert (channel.tries, len(channel.messages)) == (3, 1)
    assert timedelta(seconds=1) <= stack.clock.now() - before <= timedelta(seconds=20)


def test_what_no_further_try_can_mend_is_tried_once() -> None:
    stack, channel = stack_of(1), Channel(ConnectionInvalid("smtp", problem="login refused", remedy="Mend it"))
    run = opened(stack).plan.ref.run

    assert tell(ports_of(stack, channel), run, late(run)) == 0
    assert channel.tries == 1


def test_what_a_channel_did_not_take_is_told_when_it_works_again_and_then_no_more() -> None:
    stack, channel = stack_of(1), Channel()
    run = opened(stack).plan.ref.run
    ports = ports_of(stack, channel)
    tell(ports, run, late(run))
    later(stack, minutes=5)
    assert tell_again(ports, job_of()) == 0
    assert channel.tries == 2 * TRIES

    channel.error = None
    later(stack, minutes=5)
    assert [tell_again(ports, job_of()) for _ in range(2)] == [1, 0]

    (message,) = channel.messages
    assert message.happened.startswith("(This was to be told at 2026-11-21 02:00 UTC; the channel did not take it.)")
    assert (message.event_id, list(message.commands)) == (f"{run}:late:0", ["nightbatch status reviews"])


def test_many_messages_that_were_not_told_come_as_one_list_and_only_where_they_are_missing() -> None:
    stack, mail, slack = stack_of(1), Channel(), MemoryNotifier("slack")
    run = opened(stack).plan.ref.run
    ports = ports_of(stack, mail, slack)
    for number in range(3):
        tell(ports, run, late(run, number))
        later(stack, minutes=10)
    mail.error = None

    assert tell_again(ports, job_of()) == 3
    (message,) = mail.messages
    assert (message.kind, message.title) == ("untold", "reviews: 3 messages could not be sent before")
    assert [text.partition(".")[0] for _, text in message.facts] == ["message 0", "message 1", "message 2"]
    assert len(slack.messages) == 3


@pytest.mark.parametrize("job", [job_of(name="review"), job_of(name="others")])
def test_another_jobs_people_are_not_told(job) -> None:
    stack, channel = stack_of(1), Channel()
    run = opened(stack).plan.ref.run
    tell(ports_of(stack, channel), run, late(run))
    channel.error = None
    later(stack, minutes=10)

    assert tell_again(ports_of(stack, channel), job) == 0


def test_news_of_last_week_is_no_news() -> None:
    stack, channel = stack_of(1), Channel()
    run = opened(stack).plan.ref.run
    tell(ports_of(stack, channel), run, late(run))
    channel.error = None
    later(stack, days=8)

    assert tell_again(ports_of(stack, channel), job_of()) == 0


def test_a_run_whose_channel_is_down_ends_well_and_the_next_one_tells_both() -> None:
    stack, channel = stack_of(2), Channel()
    job = job_of(notify={"mail": ["a@example.com"], "on": ["report"]})
    ports = ports_of(stack, channel)
    assert flow.run(ports, job, NIGHT).state == "complete"
    assert channel.messages == []
    channel.error = None
    later(stack, hours=24)

    assert flow.run(ports, job, NIGHT).state == "complete"
    assert [message.kind for message in channel.messages] == ["report"]

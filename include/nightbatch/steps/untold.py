"""Tell later what a channel did not take: one message by itself, more of them as one that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec

from nightbatch.errors import NightbatchError
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Event, Message, Notifier, Ports

from .figures import moment
from .tell import send

log = logger(__name__)

OLDEST = timedelta(days=7)
"""What could not be told for so long is not told any more."""


def tell_again(ports: Ports, job: Job) -> int:
    """Send what the channels of a job did not take when it happened; gives how many messages were told."""
    told = 0
    for notifier in ports.notifiers():
        claimed = [
            (event, message)
            for event in ports.ledger.undelivered(job.name, notifier.channel)
            if (message := _read(ports, event)) is not None and _claim(ports, event, notifier)
        ]
        if not claimed:
            continue
        taken = _send(ports, notifier, late_told(job, claimed))
        for event, _ in claimed:
            note = ports.ledger.note_delivered if taken else ports.ledger.note_undelivered
            note(event.event_id, notifier.channel, now=ports.clock.now())
        told += len(claimed) if taken else 0
    return told


def _read(ports: Ports, event: Event) -> Message | None:
    if event.recorded_utc < ports.clock.now() - OLDEST:
        return None
    try:
        return msgspec.convert(event.payload, Message, strict=False)
    except msgspec.ValidationError:
        # Written by another version, which knew other fields.
        return None


def _claim(ports: Ports, event: Event, notifier: Notifier) -> bool:
    again_after = timedelta(seconds=ports.settings.tell_again_s)
    return ports.ledger.may_deliver(event.event_id, notifier.channel, again_after=again_after, now=ports.clock.now())


def _send(ports: Ports, notifier: Notifier, message: Message) -> bool:
    try:
        send(ports, notifier, message)
    except NightbatchError as error:
        log.warning("could not tell people by %s what it did not take before: %s", notifier.channel, error)
        return False
    return True


def late_told(job: Job, found: Sequence[tuple[Event, Message]]) -> Message:
    """Compose what is told late: the message itself, or a list where there are more."""
    event, message = found[0]
    since = moment(job, event.recorded_utc)
    if len(found) == 1:
        said = f"(This was to be told at {since}; the channel did not take it.) {message.happened}"
        return replace(message, happened=said)
    return Message(
        event_id=f"{found[-1][0].event_id}:untold",
        kind="untold",
        title=f"{job.name}: {len(found)} messages could not be sent before",
        happened=f"This channel took nothing for a while; {len(found)} messages about the job were kept for it.",
        since=f"{since}, when the first was to be told",
        rows="each message says its own",
        money="each message says its own",
        happens_next="These are not sent again one by one.",
        to_do="Read the last ones first, and see how the job stands now.",
        commands=(f"nightbatch status {job.name}",),
        if_nobody="What each of them says happens, or has happened already.",
        facts=tuple(
            (moment(job, one.recorded_utc), f"{said.title}. {said.happened} To do: {said.to_do}") for one, said in found
        ),
        link=message.link,
    )

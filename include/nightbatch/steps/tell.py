"""Tell people: written down first, then sent, at most one repeat. What is told stands in the modules that tell it."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from nightbatch.errors import NightbatchError, Transient
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Message, MessageKind, Notifier, Ports

log = logger(__name__)

OCCASIONS: dict[MessageKind, str] = {
    "at_risk": "at_risk",
    "late": "late",
    "overdue": "late",
    "away": "failed",
    "failed": "failed",
    "incomplete": "failed",
    "account": "failed",
    "canary": "failed",
    "held_back": "failed",
    "cancelled": "failed",
    "paid_twice": "failed",
    "missing": "missing",
    "missing_over": "missing",
    "stale": "stale",
    "stale_over": "stale",
    "report": "report",
}
"""Which word of a job's `notify.on` asks for which messages. `over` and `untold` follow others, and need none."""


TRIES = 3
"""How often a message is tried over a channel that does not take it."""
MOST_TRYING_S = 60.0
"""After so long no further try is begun: a run does not wait for a slow mail server."""
MOST_PAUSE_S = 5.0
"""How long, at most, a message that somebody else is sending is left alone between two looks."""


def wants(job: Job, kind: MessageKind) -> bool:
    """Say whether the people of a job want to hear of such a thing."""
    return OCCASIONS[kind] in job.notify.on


def tell(ports: Ports, run: str, message: Message, *, waits: bool = False) -> int:
    """
    Deliver a message over every channel that has not had it; gives how many took it.

    A channel that is down is logged and fails nothing: the run's colour says the same. With `waits`, a message that
    another process began to send is waited for, and sent once more if that one turns out to be dead: for messages
    that nobody would come to tell later.
    """
    now = ports.clock.now
    ports.ledger.record_event(message.event_id, message.kind, run, msgspec.to_builtins(message), now=now())
    delivered = 0
    for notifier in ports.notifiers():
        if not _is_ours_to_tell(ports, message.event_id, notifier.channel, waits=waits):
            continue
        try:
            send(ports, notifier, message)
        except NightbatchError as error:
            log.warning("could not tell people by %s, and will try again later: %s", notifier.channel, error)
            ports.ledger.note_undelivered(message.event_id, notifier.channel, now=now())
            continue
        ports.ledger.note_delivered(message.event_id, notifier.channel, now=now())
        delivered += 1
    return delivered


def send(ports: Ports, notifier: Notifier, message: Message) -> None:
    """Send a message, some times where that may help; raises what the last try raised."""
    # Here, since few processes tell anybody anything: it imports asyncio, and tornado where that is installed (45 ms).
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_exponential

    tries = Retrying(
        sleep=ports.clock.sleep,
        stop=stop_after_attempt(TRIES) | stop_after_delay(MOST_TRYING_S),
        wait=wait_exponential(multiplier=1, max=MOST_PAUSE_S),
        retry=retry_if_exception_type(Transient),
        reraise=True,
    )
    tries(notifier.send, message)


def _is_ours_to_tell(ports: Ports, event_id: str, channel: str, *, waits: bool) -> bool:
    again_after = timedelta(seconds=ports.settings.tell_again_s)
    while not ports.ledger.may_deliver(event_id, channel, again_after=again_after, now=ports.clock.now()):
        since = ports.ledger.delivery_claimed(event_id, channel)
        if since is None or not waits:
            return False
        left = (since + again_after - ports.clock.now()).total_seconds()
        ports.clock.sleep(min(max(left, 0.05), MOST_PAUSE_S))
    return True

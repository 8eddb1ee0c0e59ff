"""What people are told, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

MessageKind = Literal[
    "at_risk",
    "late",
    "overdue",
    "away",
    "failed",
    "incomplete",
    "account",
    "canary",
    "held_back",
    "cancelled",
    "paid_twice",
    "missing",
    "missing_over",
    "stale",
    "stale_over",
    "over",
    "untold",
    "report",
]
"""What people can be told of; each has an entry in docs/runbook.md."""


@dataclass(frozen=True)
class PastRun:
    """One run as a bar of a plot."""

    day: str
    """The end of its window, in the job's time zone."""
    good: int
    dead: int
    pending: int
    cost_usd: Decimal
    state: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """
    What people are told. None of what they ask at 3 a.m. may be left out: only the last four fields have defaults.

    Every text may quote untrusted words; each notifier escapes for its medium.
    """

    event_id: str
    """The same at every attempt to send, and shown in the message, so that a repeat can be recognised."""
    kind: MessageKind
    title: str
    """In some words, the job first."""
    happened: str
    """What happened, in a sentence."""
    since: str
    """Since when; for a thing without length, when."""
    rows: str
    """How many rows it is about."""
    money: str
    """What was spent, and what may still be."""
    happens_next: str
    """What nightbatch does on its own."""
    to_do: str
    """What a person can do."""
    commands: Sequence[str]
    """The commands that `to_do` means, whole, each to be copied as it is."""
    if_nobody: str
    """What happens if no person does anything."""
    facts: Sequence[tuple[str, str]] = ()
    """Label and value, in reading order: all else that helps."""
    link: str = ""
    """Where to look, in Airflow."""
    thread: str = ""
    """The event id of an earlier message that this one belongs to."""
    history: Sequence[PastRun] = ()
    """The job's last runs, oldest first, to be shown as a plot."""


class Notifier(Protocol):
    """One channel to people."""

    channel: str
    """`mail` or `slack`; together with the event id it names a delivery."""

    def send(self, message: Message) -> None:
        """Deliver, or raise Transient where trying again may help, Terminal where a person must mend something."""

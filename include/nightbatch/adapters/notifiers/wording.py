"""Makes untrusted words safe to show: one line, no control characters, nothing a client turns into a link."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote, urlsplit

from nightbatch.ports import Message, MessageKind

KINDS: dict[MessageKind, str] = {
    "at_risk": "Deadline (SLA) at risk",
    "late": "Deadline (SLA) missed",
    "overdue": "Batch overdue at the vendor",
    "away": "Vendor does not answer",
    "failed": "Run failed",
    "incomplete": "Run incomplete",
    "account": "Account cannot be used",
    "canary": "Stopped by the canary",
    "held_back": "Stopped by the quality gate",
    "cancelled": "Run cancelled",
    "paid_twice": "Paid twice",
    "missing": "No run",
    "missing_over": "Runs come again",
    "stale": "Answers too old",
    "stale_over": "Answers fresh again",
    "over": "It is over",
    "untold": "Told late",
    "report": "Run report",
}
"""How each kind of message is announced."""

LIMIT = 2_000
"""Most characters of one text."""
COMMANDS = 6
FACTS = 40
"""How many commands and facts of a message are shown."""


Urgency = Literal["act", "look", "good"]
URGENCY: dict[MessageKind, Urgency] = {
    "at_risk": "look",
    "overdue": "look",
    "away": "look",
    "cancelled": "look",
    "missing_over": "look",
    "stale_over": "good",
    "untold": "look",
    "over": "good",
    "report": "good",
}
"""How a message looks from afar: a person may have a look, or can go on sleeping; for all others one must act."""

# Control characters, the separators that count as line ends, and the marks that turn the reading direction.
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_ADDRESS = re.compile(r"\b(https?|ftp|mailto|tel):(?=/|\w)", re.IGNORECASE)
_BARE_ADDRESS = re.compile(r"\bwww\.", re.IGNORECASE)


def one_line(text: str, limit: int) -> str:
    """Give a text as one printable line of at most `limit` characters, its addresses disarmed but readable."""
    line = _UNPRINTABLE.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    line = _BARE_ADDRESS.sub("www[.]", _ADDRESS.sub(r"\1[:]", line))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def announced(message: Message, limit: int) -> str:
    """Give the one sentence that stands in subjects and headlines."""
    return one_line(f"{KINDS.get(message.kind, message.kind)}: {message.title}", limit)


def answers(message: Message) -> tuple[tuple[str, str], ...]:
    """Give what everybody asks first, in this order on every channel."""
    return (
        ("What happened", message.happened),
        ("Since", message.since),
        ("Rows", message.rows),
        ("Money", message.money),
        ("What nightbatch does next", message.happens_next),
        ("What you can do", message.to_do),
    )


IF_NOBODY = "If nobody does anything"
LEGEND = "Green: answered. Amber: pending. Red: dead letters. The foot of a bar tells how the run ended."
REPEAT = "A message with the same event is a repeat."


def safe_link(link: str) -> str:
    """Give a link that can stand in an attribute or a Slack link; empty where it is not plain http or https."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return ""
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        return ""
    return quote(link, safe="!#$%&'()*+,-./:;=?@[]_~")

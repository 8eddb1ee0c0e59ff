"""Messages for tests of channels: one that says everything, and one of hostile words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

from nightbatch.ports import Message, MessageKind, PastRun

KINDS: tuple[MessageKind, ...] = get_args(MessageKind)
HOSTILE = (
    "<script>alert(1)</script> <a href='https://evil.example.com'>x</a> <!channel> <@U1> <https://evil.example.com|y> "
    "*bold* @here {{ 7*7 }} {% raw %} &amp;\r\nBcc: all@example.com\u202e www.evil.example \x00\u2028"
)


def message_of(**changes: Any) -> Message:
    """Make a message in which each text is another."""
    values: dict[str, Any] = {
        "event_id": "reviews/20261122/g1:late",
        "kind": "late",
        "title": "reviews: 45 min late",
        "happened": "The answers of this run were due at six.",
        "since": "2026-11-22 06:00 UTC, 45 min ago",
        "rows": "4,000 of 12,000 rows have no answer yet",
        "money": "3.10 USD spent; at most 1.20 USD more",
        "happens_next": "It goes on waiting.",
        "to_do": "Decide whether late answers are of use.",
        "commands": ("nightbatch status reviews",),
        "if_nobody": "Late answers are loaded as they come.",
        "facts": (("Window", "the night"), ("Batches", "batch_1, batch_2")),
        "link": "http://airflow.example.com/dags/reviews?run=1&x=2",
    }
    return Message(**{**values, **changes})


def hostile_message(words: str = HOSTILE) -> Message:
    """Make a message in which every text is hostile."""
    texts = ("event_id", "title", "happened", "since", "rows", "money", "happens_next", "to_do", "if_nobody", "thread")
    return message_of(
        kind="failed",
        commands=(words, words),
        facts=((words, words),),
        history=tuple(PastRun(words, 1, 2, 3, Decimal(1), words) for _ in range(3)),
        link="javascript:alert(1)",
        **dict.fromkeys(texts, words),
    )


def nights(count: int) -> tuple[PastRun, ...]:
    """Give the runs of some nights, some of them bad."""
    return tuple(
        PastRun(
            f"2026-{10 + number // 31}-{number % 31 + 1:02d}",
            good=9_000 + 137 * (number % 7),
            dead=400 if number % 11 == 5 else number % 3,
            pending=2_500 if number % 13 == 8 else 0,
            cost_usd=Decimal("3.1") + Decimal(number % 5) / 7,
            state="incomplete" if number % 13 == 8 else "failed" if number % 11 == 5 else "complete",
        )
        for number in range(count)
    )

"""Judges the sentiment of the last user message with VADER (C.J. Hutto and E. Gilbert, 2014)."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

import orjson

from nightbatch.emulator.asks import Ask
from nightbatch.emulator.executors.schema import NOTHING, Schema, fill

POSITIVE_FROM, NEGATIVE_TO = 0.05, -0.05
"""Where VADER's compound score starts to mean something. Source: vaderSentiment's README, 3.3.2."""

_LOADING = threading.Lock()
_MARKED = re.compile(r"<(?P<tag>[a-z_]+)>\s*(?P<tagged>.*?)\s*</(?P=tag)>|\"\"\"\s*(?P<quoted>.*?)\s*\"\"\"", re.S)


def answer(ask: Ask) -> str:
    """Answer as JSON: what the schema names, or `sentiment`, `confidence` and `reason` without one."""
    judged = judge(text_of(ask.user))
    if ask.schema is None:
        return orjson.dumps(judged).decode()
    return orjson.dumps(fill(ask.schema, ask.user, lambda name, schema: suggest(judged, name, schema))).decode()


def text_of(message: str) -> str:
    """Take the text out of a message that marks it with a tag or with triple quotes; else take it all."""
    marked = _MARKED.search(message)
    return (marked["tagged"] or marked["quoted"] or message) if marked else message


def judge(text: str) -> dict[str, Any]:
    """Return sentiment, confidence (0 to 1) and a reason of a few words."""
    score = float(_analyzer().polarity_scores(text)["compound"])
    label = "positive" if score >= POSITIVE_FROM else "negative" if score <= NEGATIVE_TO else "neutral"
    confidence = 1 - abs(score) if label == "neutral" else 0.5 + abs(score) / 2
    return {"sentiment": label, "confidence": round(confidence, 3), "reason": f"compound score {score:+.2f}"}


def suggest(judged: dict[str, Any], name: str, schema: Schema) -> Any:
    """Offer what was judged for a property, in the spelling of its enum."""
    if name not in judged:
        return NOTHING
    for option in schema.get("enum") or ():
        if str(option).lower() == str(judged[name]).lower():
            return option
    return judged[name]


def _analyzer() -> Any:
    with _LOADING:
        return _loaded()


@cache
def _loaded() -> Any:
    """Load VADER's word list once, and only when a row needs it."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()

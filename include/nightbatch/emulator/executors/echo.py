"""Answers with the last user message, in whatever schema is asked for."""

from __future__ import annotations

import orjson

from nightbatch.emulator.asks import Ask
from nightbatch.emulator.executors.schema import fill


def answer(ask: Ask) -> str:
    """Repeat the user's text."""
    return ask.user if ask.schema is None else orjson.dumps(fill(ask.schema, ask.user)).decode()

"""Who answers a row: `echo`, `sentiment`, `topics`, whichever of them fits (`auto`), or a real model (`upstream`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nightbatch.emulator.asks import Ask
from nightbatch.emulator.executors import echo, sentiment, topics, upstream
from nightbatch.emulator.executors.reply import Reply
from nightbatch.emulator.settings import EmulatorSettings

__all__ = ["NAMES", "Executor", "Reply", "named"]

Executor = Callable[[Ask], Reply]

_WRITERS: dict[str, Callable[[Ask], str]] = {
    "echo": echo.answer,
    "sentiment": sentiment.answer,
    "topics": topics.answer,
}
NAMES = ("auto", *_WRITERS, "upstream")


@dataclass(frozen=True, slots=True)
class _Written:
    """An executor that answers from the request alone."""

    write: Callable[[Ask], str]

    def __call__(self, ask: Ask) -> Reply:
        return Reply(text="" if ask.kind == "embeddings" else self.write(ask))


def named(settings: EmulatorSettings) -> Executor:
    """Return the executor that the settings ask for; unknown names raise ValueError."""
    if settings.executor == "upstream":
        return upstream.Upstream(settings.upstream_url, settings.upstream_key_env)
    if settings.executor == "auto":
        return _Written(_fitting)
    if settings.executor not in _WRITERS:
        raise ValueError(f"executor {settings.executor!r} is not known; choose one of {', '.join(NAMES)}")
    return _Written(_WRITERS[settings.executor])


def _fitting(ask: Ask) -> str:
    """Answer by the names that the schema asks for."""
    properties: dict[str, Any] = (ask.schema or {}).get("properties") or {}
    if any("topic" in name for name in properties):
        return topics.answer(ask)
    if "sentiment" in properties:
        return sentiment.answer(ask)
    return echo.answer(ask)

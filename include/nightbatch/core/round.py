"""A round: what becomes of a row that was not answered well, and how it is asked again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .verdict import Reason, VerdictKind


class Fate(StrEnum):
    """What becomes of a row after a round."""

    SEND = "send"
    DEAD = "dead"
    PENDING = "pending"


@dataclass(frozen=True)
class Choice:
    """What becomes of a row, and for one that is sent again, what changes."""

    fate: Fate
    model: int = 0
    """Position in the job's list of models."""
    double_cap: bool = False
    hint: str = ""


_REPAIR = {
    Reason.NOT_JSON: "Your last answer was not valid JSON. Answer with one JSON object and nothing else.",
    Reason.OFF_SCHEMA: "Your last answer did not fit the JSON schema. Answer with one JSON object that fits it.",
    Reason.EMPTY: "Your last answer was empty. Answer the question.",
}


def choose(kind: VerdictKind, reason: Reason, *, model: int, models: int, sends: int, has_rounds: bool) -> Choice:
    """
    Say what becomes of a row that is not good.

    `sends` counts how often the row was sent so far, `has_rounds` whether another round follows. A row that was
    never answered and runs out of rounds is pending; a row that was answered badly is a dead letter.
    """
    if kind is VerdictKind.ACCOUNT:
        return Choice(Fate.PENDING)
    if kind is VerdictKind.DEAD:
        # Another model may take what this one refuses, as long as there is one and time to ask it.
        has_next = model + 1 < models and has_rounds
        return Choice(Fate.SEND, model + 1) if has_next else Choice(Fate.DEAD)
    if kind is VerdictKind.AGAIN:
        return Choice(Fate.SEND, model) if has_rounds else Choice(Fate.PENDING)
    if not has_rounds:
        return Choice(Fate.DEAD)
    return _changed(reason, model=model, models=models, sends=sends)


def _changed(reason: Reason, *, model: int, models: int, sends: int) -> Choice:
    last = model + 1 >= models
    if reason is Reason.TRUNCATED:
        # The same cap can only be hit again, so this is the one change that comes before another model.
        return Choice(Fate.SEND, model, double_cap=True)
    if reason is Reason.REFUSED:
        return Choice(Fate.DEAD) if last else Choice(Fate.SEND, model + 1)
    hint = _REPAIR.get(reason, "")
    if sends > 1 and not last:
        return Choice(Fate.SEND, model + 1, hint=hint)
    return Choice(Fate.SEND, model, hint=hint)

"""A result: what came back for one custom_id, in words of no vendor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .money import Usage


class Outcome(StrEnum):
    """How the vendor dealt with a row."""

    ANSWERED = "answered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ERRORED = "errored"


class Finish(StrEnum):
    """Why the model stopped."""

    DONE = "done"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    PAUSED = "paused"


class ErrorKind(StrEnum):
    """What an errored row asks for."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    ACCOUNT = "account"


@dataclass(slots=True, unsafe_hash=True)  # never changed; not frozen: that takes four times as long to make
class Result:
    """One line of a result file. `text` is untrusted."""

    custom_id: str
    outcome: Outcome
    text: str | None = None
    """What the model answered; for embeddings the vector as a JSON array."""
    finish: Finish = Finish.DONE
    error_kind: ErrorKind | None = None
    error_code: str = ""
    """The vendor's code: short, without row content."""
    usage: Usage = Usage()
    model: str = ""
    """The model that answered, in the vendor's words."""

"""What a vendor says when it refuses, before anybody has decided what that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from nightbatch.errors import NightbatchError


class Purpose(Enum):
    """What a call was for: it decides what a lost reply and a refusal mean."""

    READ = "read"
    SEND = "send"
    """Changes something, makes no batch."""
    CREATE = "create"
    """Makes a batch: the call that must not be made twice."""


@dataclass(frozen=True)
class Refusal:
    """What a vendor said with an HTTP error status."""

    status: int
    code: str
    """The vendor's code, else its type, else `http_<status>`."""
    message: str = ""
    """As it came: untrusted, and may quote a prompt."""
    details_code: str = ""
    """A finer code, where the vendor has one."""
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class NotFound(Exception):
    """The vendor answered 404."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.code)


Classify = Callable[[Refusal, str, Purpose], NightbatchError]
"""Turns a refusal, what was being done and what for, into one of our errors."""

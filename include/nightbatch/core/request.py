"""A request: a record rendered into a prompt, in words of no vendor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple


class Endpoint(StrEnum):
    """What is asked of a model."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDINGS = "embeddings"


class Messages(NamedTuple):
    """What the model reads. For embeddings `user` is the text to embed and `system` is empty."""

    system: str
    user: str


@dataclass(frozen=True)
class RequestSpec:
    """All that shapes an answer besides the messages; the same for every row of a shard."""

    endpoint: Endpoint
    model: str
    max_output_tokens: int | None = None
    """Cap on output tokens, reasoning included. None only for embeddings."""
    temperature: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Further parameters in the vendor's own words, merged into the body as they are."""
    schema: Mapping[str, Any] | None = None
    """JSON Schema of the answer; None for free text."""
    schema_name: str = "answer"
    cache_prefix: bool = False
    """Ask the vendor to cache the system message, where it wants to be asked."""


@dataclass(frozen=True)
class Frame:
    """What stands around the user's text in a body; the same for all requests with one system message."""

    before: bytes
    after: bytes

    def body(self, text: bytes) -> bytes:
        """Give the body of a request whose user's text is this JSON string."""
        return b"".join((self.before, text, self.after))


@dataclass(frozen=True)
class Envelope:
    """What a line of a request file holds besides custom_id and body; the same for all lines of a file."""

    before_id: bytes
    before_body: bytes
    after_body: bytes
    """Ends in a newline."""

    def line(self, custom_id: str, body: bytes) -> bytes:
        """Wrap a body into a line. `custom_id` needs no escaping."""
        return b"".join((self.before_id, custom_id.encode(), self.before_body, body, self.after_body))

    def body(self, custom_id: str, line: bytes) -> bytes:
        """Unwrap the body of a line. Raises ValueError for one that is not a line of this custom_id."""
        head = b"".join((self.before_id, custom_id.encode(), self.before_body))
        if not line.startswith(head) or not line.endswith(self.after_body):
            raise ValueError(f"the line of {custom_id} is not one that its encoder made")
        return line[len(head) : len(line) - len(self.after_body)]

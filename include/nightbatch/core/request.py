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

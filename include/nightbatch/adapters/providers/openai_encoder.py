"""Encodes messages into lines of an OpenAI request file, and reads them back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from nightbatch.adapters.providers.wire import check_params, json_members
from nightbatch.core.escape import json_string
from nightbatch.core.request import Endpoint, Envelope, Frame, Messages, RequestSpec

PATHS = {
    Endpoint.CHAT: "/v1/chat/completions",
    Endpoint.RESPONSES: "/v1/responses",
    Endpoint.EMBEDDINGS: "/v1/embeddings",
}
"""What a batch, and each of its lines, says it is for. Source: openai 3.54.0, `types.batch_create_params`."""

_RESERVED = frozenset(
    {"model", "messages", "input", "instructions", "stream", "background", "n"}
    | {"max_tokens", "max_completion_tokens", "max_output_tokens", "response_format"}
)
"""What `params` may not set: the budget, the check of the answer and the way back rest on them."""


@dataclass(frozen=True)
class _Shape:
    """What stands around the two texts of a body."""

    before_system: bytes
    between: bytes
    before_user: bytes
    """Where there is no system message."""
    after: bytes


_SHAPES = {
    Endpoint.CHAT: _Shape(
        b',"messages":[{"role":"system","content":',
        b'},{"role":"user","content":',
        b',"messages":[{"role":"user","content":',
        b"}]}",
    ),
    Endpoint.RESPONSES: _Shape(b',"instructions":', b',"input":', b',"input":', b"}"),
    Endpoint.EMBEDDINGS: _Shape(b"", b"", b',"input":', b"}"),
}


class OpenAIEncoder:
    """
    Encodes one kind of request; what is the same for every row is encoded once.

    Bodies are canonical: our own members in a fixed order, then `params` sorted by name, the texts last.
    """

    def __init__(self, spec: RequestSpec) -> None:
        check_params(spec.params, _RESERVED)
        shape = _SHAPES[spec.endpoint]
        head = b"{" + json_members(_shared(spec))
        self._endpoint = spec.endpoint
        self._before_system = head + shape.before_system if shape.before_system else b""
        self._before_user = head + shape.before_user
        self._between, self._after = shape.between, shape.after
        middle = b'","method":"POST","url":"' + PATHS[spec.endpoint].encode() + b'","body":'
        self.envelope = Envelope(b'{"custom_id":"', middle, b"}\n")

    def frame(self, system: str) -> Frame:
        """Give what stands around the user's text. Raises ValueError for a system message that has no UTF-8 form."""
        if system and self._before_system:
            return Frame(self._before_system + json_string(system) + self._between, self._after)
        return Frame(self._before_user, self._after)

    def decode(self, line: bytes) -> Messages:
        """Read the messages back out of a line."""
        body = orjson.loads(line)["body"]
        if self._endpoint is Endpoint.CHAT:
            texts = {message["role"]: message["content"] for message in body["messages"]}
            return Messages(texts.get("system", ""), texts["user"])
        return Messages(body.get("instructions", ""), body["input"])


def _shared(spec: RequestSpec) -> dict[str, Any]:
    """Give what is the same in every body, in its order."""
    shared: dict[str, Any] = {"model": spec.model}
    if spec.endpoint is Endpoint.EMBEDDINGS:
        return {**shared, **dict(sorted(spec.params.items()))}
    # The older `max_tokens` is refused by reasoning models. Source: openai 3.54.0, completion_create_params.
    cap = "max_completion_tokens" if spec.endpoint is Endpoint.CHAT else "max_output_tokens"
    if spec.max_output_tokens is not None:
        shared[cap] = spec.max_output_tokens
    if spec.temperature is not None:
        shared["temperature"] = spec.temperature
    shared |= dict(sorted(spec.params.items()))
    if spec.schema is None:
        return shared
    named = {"name": spec.schema_name, "strict": True, "schema": spec.schema}
    if spec.endpoint is Endpoint.CHAT:
        shared["response_format"] = {"type": "json_schema", "json_schema": named}
    else:
        shared["text"] = {**shared.get("text", {}), "format": {"type": "json_schema", **named}}
    return shared

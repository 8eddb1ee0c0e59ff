"""Encodes messages into the entries of an Anthropic message batch, and reads them back."""

from __future__ import annotations

from typing import Any

import orjson

from nightbatch.adapters.providers.wire import check_params, json_members
from nightbatch.core.escape import json_string
from nightbatch.core.request import Envelope, Frame, Messages, RequestSpec

_RESERVED = frozenset({"model", "messages", "system", "max_tokens", "stream"})
"""What `params` may not set: the budget and the way back rest on them, and batches refuse to stream."""

_CACHED = b',"cache_control":{"type":"ephemeral","ttl":"1h"}}]'
"""
Marks the system message for the cache. An hour, because a batch takes longer than the default five minutes.

Source: platform.claude.com/docs/en/build-with-claude/batch-processing, copy of 2026-09-20.
"""


class AnthropicEncoder:
    """
    Encodes one kind of request; what is the same for every row is encoded once.

    Bodies are canonical: our own members in a fixed order, then `params` sorted by name, the texts last.
    """

    envelope = Envelope(b'{"custom_id":"', b'","params":', b"}\n")
    """A line is one entry of the `requests` array of a create call."""

    def __init__(self, spec: RequestSpec) -> None:
        check_params(spec.params, _RESERVED)
        if spec.max_output_tokens is None:
            raise ValueError("Anthropic needs max_output_tokens; set it in the job's parameters")
        head = b"{" + json_members(_shared(spec))
        self._before_user = head + b',"messages":[{"role":"user","content":'
        self._before_system = head + b',"system":'
        self._between = b',"messages":[{"role":"user","content":'
        if spec.cache_prefix:
            self._before_system += b'[{"type":"text","text":'
            self._between = _CACHED + self._between

    def frame(self, system: str) -> Frame:
        """Give what stands around the user's text. Raises ValueError for a system message that has no UTF-8 form."""
        if not system:
            return Frame(self._before_user, b"}]}")
        return Frame(self._before_system + json_string(system) + self._between, b"}]}")

    def decode(self, line: bytes) -> Messages:
        """Read the messages back out of a line."""
        params = orjson.loads(line)["params"]
        system = params.get("system", "")
        if isinstance(system, list):
            system = system[0]["text"]
        return Messages(system, params["messages"][0]["content"])


def _shared(spec: RequestSpec) -> dict[str, Any]:
    """Give what is the same in every body, in its order."""
    shared: dict[str, Any] = {"model": spec.model, "max_tokens": spec.max_output_tokens}
    if spec.temperature is not None:
        shared["temperature"] = spec.temperature
    shared |= dict(sorted(spec.params.items()))
    if spec.schema is not None:
        shape = {"type": "json_schema", "schema": spec.schema}
        shared["output_config"] = {**shared.get("output_config", {}), "format": shape}
    return shared

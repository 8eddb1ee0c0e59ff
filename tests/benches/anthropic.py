"""Anthropic and its stub."""

from __future__ import annotations

from nightbatch.adapters.providers.anthropic import AnthropicProvider
from nightbatch.core.request import Endpoint, RequestSpec
from nightbatch.ports import Connection, Provider
from tests.benches.emulated import EmulatedBench


class Bench(EmulatedBench):
    """Messages in batches."""

    name = "anthropic"
    spec = RequestSpec(Endpoint.MESSAGES, "claude-sonnet-4-6", max_output_tokens=64)
    unknown_status = {  # noqa: RUF012 - read only
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "pondering",
        "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-22T00:00:00Z",
        "expires_at": "2026-11-23T00:00:00Z",
        "results_url": None,
    }
    just_now = {**unknown_status, "created_at": "2096-10-02T07:06:40Z"}  # noqa: RUF012 - read only

    def opened(self, connection: Connection, request_timeout_s: float = 10.0) -> Provider:
        """Open the provider over another connection."""
        return AnthropicProvider(connection, request_timeout_s=request_timeout_s)

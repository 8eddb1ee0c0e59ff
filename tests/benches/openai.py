"""OpenAI and its stub."""

from __future__ import annotations

from nightbatch.adapters.providers.openai import OpenAIProvider
from nightbatch.core.request import Endpoint, RequestSpec
from nightbatch.ports import Connection, Provider
from tests.benches.emulated import EmulatedBench


class Bench(EmulatedBench):
    """Chat completions in batches."""

    name = "openai"
    spec = RequestSpec(Endpoint.CHAT, "gpt-5-mini", max_output_tokens=64)
    version_path = "/v1"
    unknown_status = {  # noqa: RUF012 - read only
        "id": "batch_1",
        "object": "batch",
        "status": "pondering",
        "created_at": 1_790_000_000,
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
    }
    just_now = {**unknown_status, "created_at": 4_000_000_000}  # noqa: RUF012 - read only

    def opened(self, connection: Connection, request_timeout_s: float = 10.0) -> Provider:
        """Open the provider over another connection."""
        return OpenAIProvider(connection, request_timeout_s=request_timeout_s)

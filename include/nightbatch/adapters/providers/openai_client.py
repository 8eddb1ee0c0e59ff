"""Opens the OpenAI SDK's client, and says what OpenAI's refusals mean."""

from __future__ import annotations

import httpx2
import openai

from nightbatch.adapters.providers.calls import Calls
from nightbatch.adapters.providers.openai_refusals import classify
from nightbatch.ports import Connection


def open_calls(
    connection: Connection,
    *,
    base_url: str,
    key: str,
    request_timeout_s: float,
    http_client: httpx2.Client | None = None,
) -> Calls:
    """Build the client from a connection; its own retries are off. `http_client` is for tests."""
    nested = connection.extra.get("openai_client_kwargs")
    extra = {**(nested if isinstance(nested, dict) else {}), **connection.extra}
    client = openai.OpenAI(
        api_key=key,
        base_url=base_url,
        organization=extra.get("organization"),
        project=extra.get("project"),
        default_headers=extra.get("default_headers"),
        timeout=request_timeout_s,
        max_retries=0,
        http_client=http_client,
    )
    return Calls("openai", client=client, sdk=openai, classify=classify, request_timeout_s=request_timeout_s)

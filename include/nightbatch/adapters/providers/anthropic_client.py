"""Opens the Anthropic SDK's client."""

from __future__ import annotations

import anthropic
import httpx2

from nightbatch.adapters.providers.anthropic_refusals import classify
from nightbatch.adapters.providers.calls import Calls
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
    nested = connection.extra.get("anthropic_client_kwargs")
    extra = {**(nested if isinstance(nested, dict) else {}), **connection.extra}
    headers = dict(extra.get("default_headers") or {})
    if extra.get("workspace_id"):
        headers["anthropic-workspace-id"] = str(extra["workspace_id"])
    client = anthropic.Anthropic(
        api_key=key,
        base_url=base_url,
        default_headers=headers,
        timeout=request_timeout_s,
        max_retries=0,
        http_client=http_client,
    )
    return Calls("anthropic", client=client, sdk=anthropic, classify=classify, request_timeout_s=request_timeout_s)

"""Opens the Anthropic SDK's client."""

from __future__ import annotations

import os
from functools import lru_cache

import anthropic
import httpx2

from nightbatch.adapters.providers.anthropic_refusals import classify
from nightbatch.adapters.providers.calls import Calls
from nightbatch.adapters.providers.wire import Headers, declared, headers_of, origin_of
from nightbatch.ports import Connection


def open_calls(
    connection: Connection,
    *,
    base_url: str,
    key: str,
    request_timeout_s: float,
    http_client: httpx2.Client | None = None,
) -> Calls:
    """Open a connection; its client's own retries are off. `http_client` is for tests."""
    extra = declared(connection, client_kwargs="anthropic_client_kwargs")
    headers = headers_of(extra)
    if extra.get("workspace_id"):
        headers = (*headers, ("anthropic-workspace-id", str(extra["workspace_id"])))
    make = _client if http_client is None else _client.__wrapped__
    client = make(key, base_url, headers, request_timeout_s, os.getpid(), http_client)
    return Calls(
        "anthropic",
        client=client,
        sdk=anthropic,
        classify=classify,
        request_timeout_s=request_timeout_s,
        where=f"{origin_of(base_url)} (connection {connection.conn_id})",
    )


# A trigger opens a provider for every look; a client each would mean a TLS context each, and sockets left to the
# garbage collector. By process, because a forked child must not write into its parent's connections.
@lru_cache(maxsize=8)
def _client(
    key: str,
    base_url: str,
    headers: Headers,
    timeout_s: float,
    process_id: int,
    http_client: httpx2.Client | None,
) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key=key,
        base_url=base_url,
        default_headers=dict(headers),
        timeout=timeout_s,
        max_retries=0,
        http_client=http_client,
    )

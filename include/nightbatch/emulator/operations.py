"""The names of the vendors' calls, for counting them and for aiming faults at them."""

from __future__ import annotations

import re

from nightbatch.emulator.settings import Vendor

_ONE = "[^/]+"
_TABLE = tuple(
    (method, re.compile(path), name)
    for method, path, name in (
        ("POST", "/v1/files", "upload_file"),
        ("GET", "/v1/files", "list_files"),
        ("GET", f"/v1/files/{_ONE}", "retrieve_file"),
        ("DELETE", f"/v1/files/{_ONE}", "delete_file"),
        ("GET", f"/v1/files/{_ONE}/content", "download"),
        ("POST", "/v1/(?:messages/)?batches", "create_batch"),
        ("GET", "/v1/(?:messages/)?batches", "list_batches"),
        ("GET", f"/v1/(?:messages/)?batches/{_ONE}", "retrieve_batch"),
        ("DELETE", f"/v1/messages/batches/{_ONE}", "delete_batch"),
        ("POST", f"/v1/(?:messages/)?batches/{_ONE}/cancel", "cancel_batch"),
        ("GET", f"/v1/messages/batches/{_ONE}/results", "download"),
        ("POST", "/v1/messages/count_tokens", "count_tokens"),
        ("POST", "/v1/(?:messages|responses|embeddings|chat/completions)", "real_time"),
        ("GET", f"/v1/models(?:/{_ONE})?", "models"),
    )
)
NAMES = tuple(sorted({name for _, _, name in _TABLE}))


def operation(method: str, path: str) -> str:
    """Name a call; `other` for what is neither vendor's."""
    return next((name for verb, shape, name in _TABLE if verb == method and shape.fullmatch(path)), "other")


def methods(path: str) -> list[str]:
    """Return the methods that a path takes."""
    return sorted({verb for verb, shape, _ in _TABLE if shape.fullmatch(path)})


def vendor_of(path: str, headers: dict[str, str]) -> Vendor:
    """Say whose call it is; `/v1/models` belongs to both, and is told apart by Anthropic's version header."""
    if path.startswith("/v1/messages") or (path.startswith("/v1/models") and "anthropic-version" in headers):
        return "anthropic"
    return "openai"

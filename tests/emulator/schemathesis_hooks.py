"""What schemathesis is told about the specification, beyond its own text."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

MOST = {"/batches": 100, "/files": 10_000}
"""The specification says in prose only that `limit` goes from 1 to so many; the vendor answers 400 beyond, as we do."""

REAL = {"file_id": os.environ.get("REAL_FILE_ID", ""), "batch_id": os.environ.get("REAL_BATCH_ID", "")}


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    """Leave out limits beyond the bounds that the specification has in prose."""
    limit = (query or {}).get("limit")
    return not isinstance(limit, int) or 1 <= limit <= MOST.get(context.operation.path, limit)


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Let every second id be one that exists, so that good replies are seen too."""
    if context.operation.method.upper() == "DELETE":
        return path_parameters
    return {name: _real(name, value) for name, value in (path_parameters or {}).items()}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Let every second batch be of a file that exists."""
    if isinstance(body, dict) and isinstance(body.get("input_file_id"), str):
        return {**body, "input_file_id": _real("file_id", body["input_file_id"])}
    return body


def _real(name: str, value: Any) -> Any:
    return REAL.get(name) or value if sum(str(value).encode("utf-8", "replace")) % 2 == 0 else value

"""What a job file may say as a JSON Schema, so that editors complete it and explain its keys."""

from __future__ import annotations

import json
from typing import Any

from .job import Job

FILE = "job.schema.json"
"""The file's name; it lies beside job files, whose first line names it."""
FIRST_LINE = f"# yaml-language-server: $schema={FILE}"
"""What editors look for at the head of a YAML file. Source: redhat-developer/yaml-language-server, read 2026-11-26."""


def job_schema() -> str:
    """
    Write the JSON Schema of job files.

    It knows each key by itself. What keys mean together, and what lies outside of the file, only `check` can tell.
    """
    schema = Job.model_json_schema(by_alias=True)
    # A frame exists in Python only.
    del schema["$defs"]["FrameSourceSpec"]
    source = schema["properties"]["source"]
    source["anyOf"] = [choice for choice in source["anyOf"] if not choice["$ref"].endswith("/FrameSourceSpec")]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job file of nightbatch",
        "description": schema.pop("description").partition("\n")[0],
    }
    return json.dumps(head | _for_editors(schema), indent=2, ensure_ascii=False) + "\n"


def _for_editors(node: Any) -> Any:
    """Drop titles, which pydantic makes of names, and `gt`, which is its own word for spans of time."""
    if isinstance(node, list):
        return [_for_editors(item) for item in node]
    if isinstance(node, dict):
        return {
            key: _for_editors(item)
            for key, item in node.items()
            if isinstance(item, dict | list) or key not in ("title", "gt")
        }
    return node

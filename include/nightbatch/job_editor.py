"""What a job file may say as a JSON Schema, so that editors complete it and explain its keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .job import Job
from .job_meanings import meanings
from .job_parts import Part

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
    for name, part in _parts(Part):
        _explain(schema if part is Job else schema["$defs"].get(name, {}), part)
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


def _parts(base: type[Part]) -> Iterator[tuple[str, type[Part]]]:
    for part in base.__subclasses__():
        yield part.__name__, part
        yield from _parts(part)


def _explain(schema: dict[str, Any], part: type[Part]) -> None:
    """Put what each key means into a part's schema."""
    for name, meaning in meanings(part).items():
        key = part.model_fields[name].alias or name
        if key in schema.get("properties", {}):
            said = {**schema["properties"][key], "description": meaning}
            schema["properties"][key] = dict(sorted(said.items()))


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

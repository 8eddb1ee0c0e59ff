"""Values that fit a JSON Schema, the same ones for the same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nightbatch.emulator.dice import digest

Schema = dict[str, Any]
Suggest = Callable[[str, Schema], Any]

NOTHING: Any = object()
"""What a suggestion returns when it has none; None would be a JSON null."""

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.org",
    "duration": "P1D",
}
MAX_DEPTH = 12
"""Nesting at which optional parts are left out, so that schemas that contain themselves come to an end."""


def fill(schema: Schema, text: str, suggest: Suggest = lambda name, schema: NOTHING) -> Any:
    """Build a value for a schema.

    Covers what structured outputs allow: objects, arrays, enums, const, anyOf, $ref, nullable types, bounds of
    numbers, lengths and common formats. `pattern` and `allOf` with conflicts are not solved.

    Args:
        suggest: Asked for each property by name; its value is taken when it fits the property's schema.
    """
    return _Filler(schema, text, suggest).value(schema, "", 0)


class _Filler:
    def __init__(self, root: Schema, text: str, suggest: Suggest) -> None:
        self.root, self.text, self.suggest = root, text, suggest

    def value(self, schema: Schema, name: str, depth: int) -> Any:
        schema = self.resolved(schema, name)
        suggested = self.suggest(name, schema) if name else NOTHING
        if suggested is not NOTHING and fits(schema, suggested):
            return suggested
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self.pick(schema["enum"], name)
        return self.of_type(_type(schema), schema, name, depth)

    def of_type(self, kind: str, schema: Schema, name: str, depth: int) -> Any:
        if kind == "object":
            return self.object(schema, depth)
        if kind == "array":
            return self.array(schema, name, depth)
        if kind == "string":
            return self.string(schema)
        if kind == "boolean":
            return self.chance(name) < 0.5
        if kind in {"integer", "number"}:
            return self.number(schema, name, whole=kind == "integer")
        return None

    def resolved(self, schema: Schema, name: str) -> Schema:
        """Follow references, and take the first alternative that is not null."""
        for _ in range(MAX_DEPTH):
            if "$ref" in schema:
                schema = self.lookup(schema["$ref"])
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                schema = next((one for one in options if one.get("type") != "null"), options[0])
            elif parts := schema.get("allOf"):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                schema = {key: value for part in [*parts, rest] for key, value in self.resolved(part, name).items()}
            else:
                break
        return schema

    def lookup(self, reference: str) -> Schema:
        found: Any = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {}) if step else found
        return found if isinstance(found, dict) else {}

    def object(self, schema: Schema, depth: int) -> dict[str, Any]:
        required = set(schema.get("required") or ())
        wanted = (schema.get("properties") or {}).items()
        return {
            name: self.value(inner, name, depth + 1) for name, inner in wanted if depth < MAX_DEPTH or name in required
        }

    def array(self, schema: Schema, name: str, depth: int) -> list[Any]:
        least = max(schema.get("minItems", 0), 1 if depth < MAX_DEPTH else 0)
        count = min(least, schema.get("maxItems", least))
        return [self.value(schema.get("items") or {}, name, depth + 1) for _ in range(count)]

    def string(self, schema: Schema) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self.text[: schema.get("maxLength", 200)]
        return text.ljust(schema.get("minLength", 0), ".")

    def number(self, schema: Schema, name: str, *, whole: bool) -> float:
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        low = (0 if high is None else min(0, high - 1)) if low is None else low
        high = low + 1 if high is None else high
        if whole:
            low, high = low + ("exclusiveMinimum" in schema), high - ("exclusiveMaximum" in schema)
            return int(low + round(self.chance(name) * (high - low)))
        return float(round(low + (0.1 + 0.8 * self.chance(name)) * (high - low), 4))

    def pick(self, options: list[Any], name: str) -> Any:
        return options[int(self.chance(name) * len(options))]

    def chance(self, name: str) -> float:
        return int.from_bytes(digest(self.text, name)) / (1 << 64)


def _type(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    return kind or ("object" if "properties" in schema else "array" if "items" in schema else "string")


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


def fits(schema: Schema, value: Any) -> bool:
    """Say whether a suggested value suits a schema, as far as type, enum, bounds and lengths go."""
    if schema.get("enum") and value not in schema["enum"]:
        return False
    kinds = _PYTHON.get(_type(schema), (object,)) if "enum" not in schema else (object,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds and object not in kinds):
        return False
    if isinstance(value, str):
        return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
    if isinstance(value, list):
        return bool(schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)))
    if isinstance(value, (int, float)):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True

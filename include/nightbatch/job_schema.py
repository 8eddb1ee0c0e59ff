"""Answer schemas: what every vendor's strict structured output takes, and what must be changed to get there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]

_UNSUPPORTED = {
    "oneOf": "Use anyOf",
    "allOf": "Write the parts as one schema",
    "not": "Say what is allowed instead of what is not",
    "if": "Use anyOf with one schema for each case",
    "patternProperties": "Use an array of objects with a name and a value",
    "propertyNames": "Use an array of objects with a name and a value",
    "unevaluatedProperties": "Use additionalProperties: false",
    "dependentRequired": "Require the property and let it be null",
    "dependentSchemas": "Use anyOf with one schema for each case",
    "prefixItems": "Use an object with one property for each item",
}
_MAX_DEPTH = 32
# Where a subschema can stand: under a name of its own, as a list, or directly.
_NAMED, _LISTED, _DIRECT = ("properties", "$defs", "definitions"), ("anyOf",), ("items", "contains")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """
    Copy a schema with `additionalProperties: false` wherever an object leaves it open.

    Vendors want it said; it is the one thing that can be added without changing what an author meant.
    """
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            copy[key] = {name: _closed_if_schema(inner) for name, inner in value.items()}
        elif key in _LISTED and isinstance(value, list | tuple):
            copy[key] = [_closed_if_schema(inner) for inner in value]
        elif key in _DIRECT:
            copy[key] = _closed_if_schema(value)
        else:
            copy[key] = value
    if _is_object(schema) and "properties" in schema:
        copy.setdefault("additionalProperties", False)
    return copy


def required(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a pydantic model's schema with every property required and no defaults: a language model says all."""
    copy = {key: value for key, value in schema.items() if key != "default"}
    for key in _NAMED:
        if isinstance(copy.get(key), Mapping):
            copy[key] = {name: required(inner) for name, inner in copy[key].items()}
    for key in _LISTED:
        if key in copy:
            copy[key] = [required(inner) for inner in copy[key]]
    for key in _DIRECT:
        if isinstance(copy.get(key), Mapping):
            copy[key] = required(copy[key])
    if "properties" in copy:
        copy["required"] = list(copy["properties"])
    return copy


def strict_problems(schema: Mapping[str, Any]) -> Iterator[tuple[Place, str, str]]:
    """Give (place, problem, remedy) for all that keeps a schema from being strict; `schema` is closed already."""
    if schema.get("type") != "object" or not schema.get("properties"):
        yield (
            (),
            "the answer is not an object with properties",
            "Write type: object, and give each part of the answer a name under properties",
        )
        return
    yield from _walk(schema, ())


def _walk(schema: Any, place: Place) -> Iterator[tuple[Place, str, str]]:
    if len(place) > _MAX_DEPTH:
        yield place, "it is nested too deep", "Flatten the answer; vendors take about five levels"
        return
    if not isinstance(schema, Mapping):
        return
    for keyword, remedy in _UNSUPPORTED.items():
        if keyword in schema:
            yield (*place, keyword), f"strict structured output does not know {keyword}", remedy
    if _is_object(schema):
        yield from _object_problems(schema, place)
    for where, inner in _inner(schema):
        yield from _walk(inner, (*place, *where))


def _object_problems(schema: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str, str]]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        yield (
            place,
            "an object without properties has no fixed shape",
            "Name its properties, or use an array of objects with a name and a value",
        )
        return
    if schema.get("additionalProperties") is not False:
        yield (
            (*place, "additionalProperties"),
            "strict structured output allows no further properties",
            "Set it to false or leave it out, and name every property",
        )
    optional = [str(name) for name in properties if name not in schema.get("required", ())]
    if optional:
        yield (
            (*place, "required"),
            f"it leaves out {', '.join(optional)}",
            'List every property; one that may be absent gets type: [<its type>, "null"]',
        )


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    for key in _NAMED:
        if isinstance(schema.get(key), Mapping):
            yield from (((key, str(name)), inner) for name, inner in schema[key].items())
    for key in _LISTED:
        if isinstance(schema.get(key), list | tuple):
            yield from (((key, at), inner) for at, inner in enumerate(schema[key]))
    for key in _DIRECT:
        if key in schema:
            yield (key,), schema[key]


def _closed_if_schema(schema: Any) -> Any:
    return closed(schema) if isinstance(schema, Mapping) else schema


def _is_object(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list | tuple) and "object" in kind) or "properties" in schema

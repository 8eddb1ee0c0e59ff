"""Answer schemas: what is made strict without asking, and what its author must change."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.job_schema import closed, required, strict_problems

leaves = st.sampled_from([{"type": "string"}, {"enum": ["a", "b"]}, {"type": ["integer", "null"]}, {}])


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Make schemas of objects that say nothing of further properties."""
    properties = st.dictionaries(st.sampled_from(["a", "b", "properties", "items"]), inner, min_size=1, max_size=3)
    return properties.map(lambda made: {"type": "object", "properties": made, "required": list(made)})


schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        objects(inner),
        inner.map(lambda item: {"type": "array", "items": item}),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=8,
)


@given(objects(schemas))
def test_open_objects_are_closed_and_then_strict(schema: dict[str, Any]) -> None:
    made = closed(schema)

    assert list(strict_problems(made)) == []
    assert closed(made) == made
    jsonschema_rs.meta.validate(made)


@given(objects(schemas))
def test_closing_a_schema_leaves_the_original_alone(schema: dict[str, Any]) -> None:
    before = json.dumps(schema)

    closed(schema)
    required(schema)

    assert json.dumps(schema) == before


@given(objects(schemas))
def test_requiring_everything_makes_a_models_schema_strict(schema: dict[str, Any]) -> None:
    loose = json.loads(json.dumps(schema).replace('"required"', '"x-required"'))

    assert list(strict_problems(closed(required(loose)))) == []


def test_a_property_named_like_a_keyword_is_a_property() -> None:
    schema = {
        "type": "object",
        "properties": {"oneOf": {"type": "string"}, "default": {"type": "string"}, "required": {"type": "string"}},
    }

    assert required(schema)["required"] == ["oneOf", "default", "required"]
    assert list(strict_problems(closed(required(schema)))) == []


def wrapped(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


@pytest.mark.parametrize(
    ("schema", "places"),
    [
        ({}, [()]),
        ({"type": "string"}, [()]),
        ({"type": ["object", "null"], "properties": {"a": {}}, "required": ["a"]}, [()]),
        ({"type": "object", "properties": {}}, [()]),
        ({"anyOf": [wrapped({})]}, [()]),
        (wrapped({"type": "object"}), [("properties", "a")]),
        (wrapped({"type": "object", "properties": {"b": {}}}), [("properties", "a", "required")]),
        (wrapped({"type": "array", "items": {"not": {}}}), [("properties", "a", "items", "not")]),
        (wrapped({"anyOf": [{"allOf": [{}]}, {}]}), [("properties", "a", "anyOf", 0, "allOf")]),
        (wrapped({"if": {}, "then": {}}), [("properties", "a", "if")]),
        (wrapped({}) | {"$defs": {"x": {"prefixItems": []}}}, [("$defs", "x", "prefixItems")]),
        (wrapped({}) | {"additionalProperties": {"type": "string"}}, [("additionalProperties",)]),
        (wrapped({}) | {"patternProperties": {"^x": {}}}, [("patternProperties",)]),
    ],
)
def test_what_cannot_be_strict_is_told_with_its_place_and_a_remedy(
    schema: dict[str, Any], places: list[tuple[str | int, ...]]
) -> None:
    found = list(strict_problems(closed(schema)))

    assert [place for place, _, _ in found] == places
    assert all(problem and remedy for _, problem, remedy in found)


def test_nesting_has_an_end() -> None:
    schema: dict[str, Any] = {}
    for _ in range(60):
        schema = wrapped(schema)

    assert any("nested too deep" in problem for _, problem, _ in strict_problems(closed(schema)))

"""What is counted of answers, and that it stays small and holds nothing that a model made up."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.profile import MAX_VALUES, Band, Measure, Profile, Profiler, fields_of, path_of, values_at, word_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "rating": {"$ref": "#/$defs/rating"},
        "is_spam": {"type": "boolean"},
        "sure": {"type": "number"},
        "reason": {"type": ["string", "null"]},
        "price": {
            "type": "object",
            "properties": {
                "amount": {"type": "integer"},
                "currency": {"anyOf": [{"type": "string", "enum": ["EUR", "USD"]}, {"type": "null"}]},
            },
        },
        "words": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {"rating": {"type": "string", "enum": ["good", "bad"]}},
}


def answer(**changes: Any) -> dict[str, Any]:
    values = {
        "rating": "good",
        "is_spam": False,
        "sure": 0.5,
        "reason": "because",
        "price": {"amount": 3, "currency": "EUR"},
        "words": [],
    }
    return {**values, **changes}


def test_enums_booleans_texts_and_numbers_are_fields_wherever_they_stand() -> None:
    assert [(one.name, one.measure) for one in fields_of(SCHEMA)] == [
        ("rating", Measure.VALUES),
        ("is_spam", Measure.VALUES),
        ("sure", Measure.NUMBER),
        ("reason", Measure.LENGTH),
        ("price.amount", Measure.NUMBER),
        ("price.currency", Measure.VALUES),
    ]


def test_answers_are_counted_by_value_length_and_band() -> None:
    profiler = Profiler(SCHEMA, {"sure": Band(0.2, 1), "price.amount": Band(most=10), "reason": Band(least=3)})
    profiler.add(answer())
    profiler.add(answer(rating="bad", sure=0.1, reason=None, price={"amount": 11, "currency": None}))
    profiler.add(answer(reason="no", is_spam=True))

    assert profiler.profile == Profile(
        answers=3,
        values={
            "rating": {"good": 2, "bad": 1},
            "is_spam": {"false": 2, "true": 1},
            "price.currency": {"EUR": 2},
        },
        chars={"reason": 9},
        outside={"sure": 1, "price.amount": 1, "reason": 1},
    )


def test_enums_inside_arrays_are_counted_item_by_item() -> None:
    aspect = {"type": "object", "properties": {"about": SCHEMA["$defs"]["rating"], "text": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {
            "topics": {"type": "array", "items": {"$ref": "#/$defs/topic"}},
            "aspects": {"anyOf": [{"type": "array", "items": aspect}, {"type": "null"}]},
        },
        "$defs": {"topic": {"type": "string", "enum": ["price", "sound"]}},
    }
    profiler = Profiler(schema)
    profiler.add({"topics": ["price", "sound", "price"], "aspects": [{"about": "good", "text": "x"}, {}]})
    profiler.add({"topics": [], "aspects": None})

    assert [one.name for one in fields_of(schema)] == ["topics[]", "aspects[].about"]
    assert profiler.profile == Profile(2, {"topics[]": {"price": 2, "sound": 1}, "aspects[].about": {"good": 1}})
    assert profiler.profile.share("topics[]", "sound") == pytest.approx(1 / 3)
    assert values_at(path_of("aspects[].about"), {"aspects": [{"about": "bad"}, {}, 3]}) == ["bad", None, None]


def test_free_text_has_a_length() -> None:
    profiler = Profiler(None, {"answer": Band(most=3)})
    profiler.add("four")
    profiler.add("two")

    assert (profiler.profile.length("answer"), profiler.profile.outside) == (3.5, {"answer": 1})


def test_a_field_with_very_many_values_is_left_out() -> None:
    many = {"properties": {"code": {"enum": [f"c{n}" for n in range(MAX_VALUES + 1)]}}}

    assert fields_of(many) == []


def test_a_schema_that_points_to_itself_comes_to_an_end() -> None:
    ring = {"properties": {"inner": {"$ref": "#"}, "name": {"type": "string"}}}

    assert [one.name for one in fields_of(ring)][-1] == "name"


@given(st.lists(st.sampled_from(["good", "bad", "made up"]), max_size=30), st.integers(0, 30))
def test_parts_add_up_to_the_whole_whatever_a_model_wrote(ratings: list[str], cut: int) -> None:
    whole, first, second = Profiler(SCHEMA), Profiler(SCHEMA), Profiler(SCHEMA)
    for at, rating in enumerate(ratings):
        whole.add(answer(rating=rating))
        (first if at < cut else second).add(answer(rating=rating))

    added = first.profile + second.profile
    assert added == whole.profile + Profile()
    assert "made up" not in json.dumps(added.as_json())
    assert Profile.from_json(json.loads(json.dumps(added.as_json()))) == added


@pytest.mark.parametrize(
    ("value", "holds"),
    [(1, True), (0.4, False), (2.1, False), ("ab", True), ("abc", False), (True, True), (None, True)],
)
def test_a_band_is_about_numbers_and_the_length_of_texts(value: Any, holds: bool) -> None:
    assert Band(0.5, 2).holds(value) is holds


@pytest.mark.parametrize("value", [True, False, 0, 1, 1.0, None, [True], {"b": 1, "a": "é"}])
def test_a_value_that_is_no_text_is_counted_as_its_json(value: Any) -> None:
    assert word_of(value) == json.dumps(value, sort_keys=True, ensure_ascii=False)

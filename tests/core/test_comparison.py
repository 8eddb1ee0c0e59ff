"""A comparison: every record counts once in every field, and what differs is told as it stands in the answers."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.comparison import ABSENT, Comparison, values_of

values = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3)
answers = st.dictionaries(st.sampled_from("abc"), values | st.lists(values, max_size=2), min_size=1)


@given(st.lists(st.tuples(answers, answers), min_size=1, max_size=12))
def test_each_record_is_the_same_or_differs_in_every_field_that_it_has(pairs) -> None:
    found = Comparison()
    changed = [found.add(json.dumps(one), json.dumps(other), is_json=True) for one, other in pairs]

    assert found.records == len(pairs)
    assert found.equal == sum(not one for one in changed)
    for name, field in found.fields.items():
        having = [pair for pair in pairs if name in pair[0] or name in pair[1]]
        assert field.same + field.differ == len(having)
        assert field.differ == sum(field.changes.values()) == sum(name in one for one in changed)
    assert all(old != new for one in changed for old, new in one.values())


def test_fields_inside_objects_have_names_of_their_own_and_lists_are_one_value() -> None:
    answer = '```json\n{"price": {"amount": 3, "currency": "EUR"}, "tags": ["b", "a"], "note": null, "empty": {}}\n```'

    assert values_of(answer, is_json=True) == {
        "price.amount": "3",
        "price.currency": "EUR",
        "tags": '["b", "a"]',
        "note": "null",
        "empty": "{}",
    }


def test_free_text_is_one_field_and_space_around_it_does_not_count() -> None:
    found = Comparison()

    assert found.add("yes", " yes\n", is_json=False) == {}
    assert found.add("yes", "no", is_json=False) == {"answer": ("yes", "no")}
    assert found.fields["answer"].share == 0.5


def test_a_field_that_one_answer_lacks_differs() -> None:
    assert Comparison().add('{"a": 1}', '{"a": 1, "b": 2}', is_json=True) == {"b": (ABSENT, "2")}

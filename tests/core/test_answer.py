"""Answers: strict JSON in the job's shape or a verdict, whatever a model writes, and never its words in a detail."""

import json
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch.core.answer import MAX_BYTES, MAX_DEPTH, AnswerChecker, canonical, compiled
from nightbatch.core.verdict import GOOD, Reason, Verdict, VerdictKind

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["positive", "neutral", "negative"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "topics": {"type": "array", "items": {"type": "string", "maxLength": 10}},
    },
    "required": ["sentiment", "confidence"],
    "additionalProperties": False,
}
GOOD_TEXT = '{"sentiment": "neutral", "confidence": 0.5}'
check = AnswerChecker(SCHEMA)


def reason_of(text: str, checker: AnswerChecker = check) -> Reason:
    verdict = checker(text)
    assert verdict == GOOD or verdict.kind is VerdictKind.CHANGE
    return verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        GOOD_TEXT,
        f"\n  {GOOD_TEXT}\t\r\n",
        f"```json\n{GOOD_TEXT}\n```",
        f"```\n{GOOD_TEXT}\n```",
        f"```JSON\r\n{GOOD_TEXT}\r\n```",
        f"  ```json\n{GOOD_TEXT}```  ",
        f"```json\n\n{GOOD_TEXT}\n\n```",
    ],
)
def test_a_good_answer_is_good_with_or_without_fences(text: str) -> None:
    assert check(text) == GOOD
    assert check.read(text).text == GOOD_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "neutral",
        "{",
        GOOD_TEXT[:-1],
        f"Here it is: {GOOD_TEXT}",
        f"{GOOD_TEXT} I hope this helps.",
        f"{GOOD_TEXT}{GOOD_TEXT}",
        f"{GOOD_TEXT}\n{GOOD_TEXT}",
        f"Sure!\n```json\n{GOOD_TEXT}\n```",
        f"```json\n{GOOD_TEXT}\n```\nDone.",
        f"```json\n{GOOD_TEXT}",
        "```",
        "``````",
        '{"sentiment": "neutral", "confidence": NaN}',
        '{"sentiment": "neutral", "confidence": Infinity}',
        '{"sentiment": "neutral", "confidence": -Infinity}',
        '{"sentiment": "neutral", "confidence": 1e999}',
        '{"sentiment": "neutral", "confidence": .5}',
        '{"sentiment": "neutral", "confidence": 0.5,}',
        "{'sentiment': 'neutral', 'confidence': 0.5}",
        '{"sentiment": "neutral", "confidence": 0.5} // sure',
        '{"sentiment": "neutral", "sentiment": "negative", "confidence": 0.5}',
        '{"sentiment": {"a": 1, "a": 2}, "confidence": 0.5}',
        '{"sentiment": "neutral", "confidence": 0.5, "topics": [{"a": 1, "a": 1}]}',
        '{"sentiment": "neutral", "\\u0073entiment": "negative", "confidence": 0.5}',
        '{"sentiment": "neutral", "confidence": 0.5, "topics": ["\\u003a"], "topics": []}',
        '{"sentiment": "\\ud800", "confidence": 0.5}',
        '{"sentiment": "neu\ttral", "confidence": 0.5}',
        "\ufeff" + GOOD_TEXT,
        "[" * 5_000,
        '{"a":' * 5_000,
        "null" * 2,
    ],
)
def test_what_is_not_strict_json_is_told_as_such(text: str) -> None:
    assert reason_of(text) is Reason.NOT_JSON


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("null", "at /: breaks `type`"),
        ("[]", "at /: breaks `type`"),
        ('"neutral"', "at /: breaks `type`"),
        ("{}", "at /: breaks `required`"),
        ('{"sentiment": "secret", "confidence": 0.5}', "at /sentiment: breaks `enum`"),
        ('{"sentiment": "neutral", "confidence": "secret"}', "at /confidence: breaks `type`"),
        ('{"sentiment": "neutral", "confidence": 1.01}', "at /confidence: breaks `maximum`"),
        ('{"sentiment": "neutral", "confidence": 1, "secret": 1}', "at /: breaks `additionalProperties`"),
        ('{"sentiment": "neutral", "confidence": 1, "topics": ["a", 3]}', "at /topics/1: breaks `type`"),
        ('{"sentiment": "neutral", "confidence": 1, "topics": ["secret secret"]}', "at /topics/0: breaks `maxLength`"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nested deeper than 64"),
        ('{"a": ' * 900 + "1" + "}" * 900, "nested deeper than 64"),
    ],
)
def test_an_answer_off_the_schema_names_the_place_and_the_rule_but_not_the_value(text: str, detail: str) -> None:
    assert check(text) == Verdict(VerdictKind.CHANGE, Reason.OFF_SCHEMA, detail)


def test_a_name_that_the_model_made_up_is_not_repeated() -> None:
    free = AnswerChecker({"type": "object", "additionalProperties": {"type": "integer"}})

    assert free('{"my secret": "x"}').detail == "at /*: breaks `type`"


def test_nesting_up_to_the_limit_is_fine() -> None:
    anything = AnswerChecker({})

    assert anything("[" * MAX_DEPTH + "]" * MAX_DEPTH) == GOOD
    assert reason_of("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), anything) is Reason.OFF_SCHEMA
    assert anything(json.dumps([[]] * 500)) == GOOD


@pytest.mark.parametrize("checker", [check, AnswerChecker(None), AnswerChecker(None, embeddings=True)])
def test_an_answer_of_ten_megabytes_is_not_looked_at(checker: AnswerChecker) -> None:
    assert reason_of("x" * (MAX_BYTES + 1), checker) is Reason.TOO_LARGE
    assert reason_of("€" * (MAX_BYTES // 3 + 1), checker) is Reason.TOO_LARGE


@given(st.text(max_size=200))
def test_free_text_is_good_and_stays_as_it_is(text: str) -> None:
    free = AnswerChecker(None)

    assert free(text) == GOOD
    assert free.read(text).text == text


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans(), st.sampled_from([None, 2]))
def test_every_json_text_is_json(value: Any, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    anything = AnswerChecker({})

    assert anything(text) == GOOD
    assert anything.read(text).value == value
    assert anything.read(f"```json\n{text}\n```").text == text


@given(values, st.text(max_size=8), st.booleans())
def test_a_key_that_stands_twice_is_always_found(value: Any, key: str, ascii_only: bool) -> None:
    name = json.dumps(key, ensure_ascii=ascii_only)
    inner = json.dumps(value, ensure_ascii=ascii_only)
    text = f'{{"before": {inner}, {name}: {inner}, {json.dumps(key)}: 1}}'

    assert reason_of(text, AnswerChecker({})) is Reason.NOT_JSON


@given(st.text(max_size=60) | st.text(alphabet='{}[]",:0123456789eE.-+ntrufalse\\ `\n', max_size=60))
@settings(max_examples=500)
def test_whatever_a_model_writes_gets_a_verdict(text: str) -> None:
    """Strict here and strict in Python's own parser, with the switches that make it so, are the same."""
    expected = strictly_read(canonical(text))

    assert (AnswerChecker({})(text) == GOOD) == expected


def strictly_read(text: str) -> bool:
    def refuse(word: str) -> None:
        raise ValueError(word)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=unique)
        orjson.loads(json.dumps(value, allow_nan=False, ensure_ascii=False))
    except (ValueError, RecursionError):
        return False
    return True


@given(values)
def test_the_verdict_is_that_of_the_schema(value: Any) -> None:
    assert (check(json.dumps(value)) == GOOD) == jsonschema_rs.is_valid(SCHEMA, value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[0.25, -1, 3e-9]", Reason.NONE),
        ("[]", Reason.OFF_SCHEMA),
        ("{}", Reason.OFF_SCHEMA),
        ("0.5", Reason.OFF_SCHEMA),
        ("[true]", Reason.OFF_SCHEMA),
        ("[null]", Reason.OFF_SCHEMA),
        ('["0.5"]', Reason.OFF_SCHEMA),
        ("[[1]]", Reason.OFF_SCHEMA),
        ("[NaN]", Reason.NOT_JSON),
        ("[1,", Reason.NOT_JSON),
    ],
)
def test_an_embedding_is_an_array_of_numbers(text: str, reason: Reason) -> None:
    assert reason_of(text, AnswerChecker(None, embeddings=True)) is reason


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "at /type"),
        ({"properties": []}, "at /properties"),
        ({"minimum": "a"}, "at /minimum"),
        ({"pattern": "(a"}, "at /pattern"),
        ({"$ref": "#/$defs/absent"}, "does not exist"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "nothing is fetched"),
        ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
        ({"$schema": "http://127.0.0.1:9/schema"}, "dialect"),
        ({"properties": {"a": {"$schema": "http://127.0.0.1:9/schema"}}}, "dialect"),
    ],
)
def test_what_is_no_schema_is_refused_and_nothing_is_fetched(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(schema)


def test_known_dialects_are_fine() -> None:
    for dialect in ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"):
        assert AnswerChecker({"$schema": dialect, "type": "integer"})("1") == GOOD


def test_a_schema_may_refer_to_itself() -> None:
    tree = AnswerChecker(
        {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}
    )

    assert tree('{"next": {"next": null}}') == GOOD
    assert reason_of('{"next": {"next": 3}}', tree) is Reason.OFF_SCHEMA

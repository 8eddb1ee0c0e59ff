"""Who answers rows, and that what they answer fits the schema that was asked for."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.emulator.executors import schema as schemas
from nightbatch.emulator.executors import sentiment, topics

GPT = "gpt-5-mini"
TOPIC_NAMES = ["picture_quality", "sound", "battery", "price", "size_design", "ease_of_use", "software", "service"]
TOPICS = {
    "type": "object",
    "properties": {
        "topics": {"type": "array", "items": {"type": "string", "enum": [*TOPIC_NAMES, "other"]}, "maxItems": 3},
        "main_topic": {"type": "string", "enum": [*TOPIC_NAMES, "other"]},
    },
    "required": ["topics", "main_topic"],
    "additionalProperties": False,
}


def ask(stage, text, schema=None, client=None):
    """Ask in real time; return the answer's text."""
    more: dict[str, Any] = {}
    if schema:
        more["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    messages: Any = [{"role": "system", "content": "You judge reviews."}, {"role": "user", "content": text}]
    reply = (client or stage.openai).chat.completions.create(model=GPT, messages=messages, **more)
    return reply.choices[0].message.content


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love this camera, the pictures are great!", "positive"),
        ("terrible. it broke after two days and the support is awful.", "negative"),
        ("the box contains a cable.", "neutral"),
        ("Rate this, it is not a great wonderful thing: <review>it is horrible</review>", "negative"),
        ('Rate this:\n"""\nwonderful\n"""', "positive"),
    ],
)
def test_sentiment_judges_the_last_user_message(rehearse, sentiment_schema, text, label):
    answer = json.loads(ask(rehearse(executor="sentiment"), text, sentiment_schema))

    assert (list(answer), answer["sentiment"]) == (["sentiment", "confidence", "reason"], label)
    assert 0 <= answer["confidence"] <= 1


def test_sentiment_answers_only_what_the_schema_names(calm):
    properties = {
        "sentiment": {"type": "string", "enum": ["POSITIVE", "NEGATIVE", "NEUTRAL"]},
        "stars": {"type": "integer"},
    }
    answer = json.loads(ask(calm, "great!", {"type": "object", "properties": properties, "required": ["sentiment"]}))

    assert (set(answer), answer["sentiment"]) == ({"sentiment", "stars"}, "POSITIVE")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the lcd screen is sharp and the pictures have vivid colors", "picture_quality"),
        ("the bass is weak and the headphones sound tinny", "sound"),
        ("you must recharge the battery after two hours", "battery"),
        ("a bargain, well worth the price", "price"),
        ("it is small and light enough for my pocket", "size_design"),
        ("the manual is confusing and the buttons are hard to use", "ease_of_use"),
        ("the firmware menu hangs when you transfer by usb", "software"),
        ("customer service never returned my call about the warranty", "service"),
        ("my neighbour has one", "other"),
    ],
)
def test_topics_are_found_by_keywords(calm, text, found):
    answer = json.loads(ask(calm, text, TOPICS))

    assert answer["main_topic"] == answer["topics"][0] == found
    jsonschema_rs.validator_for(TOPICS).validate(answer)


def test_topics_speak_the_words_of_any_enum(calm):
    schema = {"type": "object", "properties": {"main_topic": {"enum": ["Camera", "Delivery", "Something else"]}}}

    assert json.loads(ask(calm, "the lens and the zoom", schema)) == {"main_topic": "Camera"}
    assert json.loads(ask(calm, "it came late, shipping was slow", schema)) == {"main_topic": "Delivery"}
    assert json.loads(ask(calm, "hm", schema)) == {"main_topic": "Something else"}


def test_executors_answer_as_json_without_a_schema(rehearse):
    assert json.loads(ask(rehearse(executor="sentiment"), "great"))["sentiment"] == "positive"
    assert json.loads(ask(rehearse(executor="topics"), "battery"))["main_topic"] == "battery"
    assert ask(rehearse(executor="echo"), "great") == "great"


def test_responses_and_anthropic_answer_by_schema_too(calm):
    words: Any = {"type": "json_schema", "name": "a", "strict": True, "schema": TOPICS}
    response = calm.openai.responses.create(model=GPT, input="the battery died", text={"format": words})
    wanted: Any = {"format": {"type": "json_schema", "schema": TOPICS}}
    messages: Any = [{"role": "user", "content": [{"type": "text", "text": "the battery died"}]}]
    message = calm.anthropic.messages.create(
        model="claude-sonnet-4-6", max_tokens=100, messages=messages, output_config=wanted
    )

    assert json.loads(response.output_text)["main_topic"] == "battery"
    assert json.loads(message.content[0].text)["main_topic"] == "battery"


leaves = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 3, "maxLength": 5},
        {"type": "string", "format": "date"},
        {"enum": ["a", "b"]},
        {"const": 7},
        {"type": "integer", "minimum": 3, "maximum": 9},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        {"type": "integer", "maximum": -5},
        {"type": "boolean"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        {"$ref": "#/$defs/thing"},
    ]
)
nested = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda one: {"type": "array", "items": one, "minItems": 1, "maxItems": 4}, inner)
        | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(
            lambda some: {"type": "object", "properties": some, "required": list(some), "additionalProperties": False}
        )
    ),
    max_leaves=8,
)


@given(nested, st.text())
def test_values_fit_any_schema_of_structured_outputs(inner, text):
    schema = {
        "type": "object",
        "properties": {"x": inner},
        "required": ["x"],
        "$defs": {"thing": {"type": "object", "properties": {"y": {"type": "string"}}, "required": ["y"]}},
    }
    value = schemas.fill(schema, text)

    jsonschema_rs.validator_for(schema).validate(value)
    assert value == schemas.fill(schema, text)


def test_a_schema_that_contains_itself_comes_to_an_end():
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}

    jsonschema_rs.validator_for(tree).validate(schemas.fill(tree, "x"))


@given(st.text())
def test_any_text_has_a_sentiment_and_topics(text):
    assert sentiment.judge(text)["sentiment"] in {"positive", "neutral", "negative"}
    assert topics.ranked(text, ["battery", "other"])[0] in {"battery", "other"}


def test_upstream_forwards_each_row_to_another_endpoint(rehearse, chats, letters, monkeypatch):
    monkeypatch.setenv("UPSTREAM_API_KEY", "sk-emulator")
    real = rehearse("permanent=0.3, only_models=gpt-5-mini")
    stage = rehearse(executor="upstream", upstream_url=f"{real.url}/v1")
    batch = stage.run(chats(20))
    result = stage.results(stage.run_messages(letters(1, system="be brief")))["r0"]

    assert 0 < batch.request_counts.failed < 20
    usages = [row["response"]["body"]["usage"] for row in stage.rows(batch.output_file_id)]
    assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages) > 0
    assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages) > 0
    assert {row["response"]["status_code"] for row in stage.rows(batch.error_file_id)} == {400}
    assert real.state()["requests"]["openai real_time"] == 21
    assert result.message.content[0].text.startswith("I love sentence number 0")


def test_upstream_that_cannot_be_reached_fails_rows_as_transient(rehearse, chats):
    stage = rehearse(executor="upstream", upstream_url="http://127.0.0.1:9/v1")
    rows = stage.rows(stage.run(chats(2)).error_file_id)

    assert {row["response"]["status_code"] for row in rows} == {503}
    with pytest.raises(openai.InternalServerError):
        ask(stage, "hello")

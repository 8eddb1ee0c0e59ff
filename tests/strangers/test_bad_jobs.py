"""Bad job files, from the command line: told in a sentence, with exit code 2, before anything is spent."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.strangers.desk import Desk, desk, parrot, spent

__all__ = ["desk", "parrot"]

SCHEMA = "answer: {schema: {type: object, properties: {a: %s}, required: [a]}}"

BAD = {
    "empty": ("", "it is empty"),
    "not YAML": ("name: a\n  b: [c\n", "it is not YAML"),
    "YAML that executes": ("owner: !!python/object/apply:os.system ['touch gotcha']", "nothing is run"),
    "an unknown key": ("schedul: x", "Did you mean schedule?"),
    "a wrong type": ("rounds: many", "rounds: "),
    "a bad cron line": ('schedule: "0 25 * * *"', "'25' is no hour"),
    "a bad zone": ("timezone: Europe/Berln", "there is no time zone"),
    "a negative budget": ("budget_usd: -5", "-5 is not more than 0"),
    "a budget of zero": ("budget_usd: 0", "0 is not more than 0"),
    "a schema that is no schema": ("answer: {schema: {type: objekt}}", "it is no JSON Schema"),
    "a schema that the provider refuses": (SCHEMA % "{oneOf: [{type: string}]}", "strict structured output"),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_job_file_is_told_before_anything_is_spent(desk: Desk, parrot: str, name: str, command: str) -> None:
    lines, sentence = BAD[name]
    before = spent(parrot)
    desk.records("one")
    if name in ("empty", "not YAML"):
        desk.put("tickets.yaml", lines)
    else:
        kept = (line for line in (desk.folder / "tickets.yaml").read_text().splitlines() if line[:6] != lines[:6])
        desk.put("tickets.yaml", "\n".join([*kept, lines]))

    ended = desk.type(command, "tickets.yaml")

    assert (ended.code, sentence in json.dumps(ended.answer, ensure_ascii=False)) == (2, True), ended
    assert (spent(parrot), (desk.folder / "gotcha").exists()) == (before, False)


@pytest.mark.parametrize("command", ["check", "plan", "run", "try"])
def test_a_file_that_is_not_there_is_said_to_be(desk: Desk, command: str) -> None:
    ended = desk.type(command, "nowhere.yaml")

    assert (ended.code, "nowhere.yaml" in json.dumps(ended.answer)) == (2, True), ended


PROMPTS = {
    "a template that cannot be read": ("{{ text", "end of template"),
    "a filter that there is not": ("{{ text|foo }}", "there is no filter named 'foo'"),
    "a column that there is not": ("{{ body }}", "body"),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_bad_template_is_told_before_anything_is_spent(desk: Desk, parrot: str, name: str) -> None:
    prompt, sentence = PROMPTS[name]
    before = spent(parrot)
    desk.records("one", "two")
    desk.job(prompt=prompt)

    ended = desk.run()

    assert (ended.code, sentence in json.dumps(ended.answer)) == (2, True), ended
    assert spent(parrot) == before


def test_answers_that_would_be_the_next_nights_records_are_refused(desk: Desk) -> None:
    desk.job(files="answers/*.jsonl")

    ended = desk.run()

    assert (ended.code, "read its answers" in json.dumps(ended.answer)) == (2, True), ended


@pytest.mark.parametrize(("name", "sink"), [("tickets", "other/"), ("others", "answers/")])
def test_two_jobs_with_one_name_or_one_sink_are_told(desk: Desk, name: str, sink: str) -> None:
    one = (desk.folder / "tickets.yaml").read_text()
    desk.put("second.yaml", one.replace("name: tickets", f"name: {name}").replace("answers/", sink))

    ended = desk.type("check", "tickets.yaml", "second.yaml")

    told = json.dumps(ended.answer)
    assert (ended.code, "tickets.yaml" in told, "second.yaml" in told) == (2, True, True), ended


CONNECTIONS = {
    "absent": (None, "openai_default"),
    "of another type": ({"conn_type": "postgres", "host": "db", "password": "x"}, "postgres"),
    "without a key": ({"conn_type": "openai"}, "key"),
    "no JSON": ("{", "openai_default"),
}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_connection_that_cannot_be_used_is_told_before_anything_is_spent(
    desk: Desk, parrot: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    connection, sentence = CONNECTIONS[name]
    before = spent(parrot)
    desk.records("one")
    monkeypatch.delenv("AIRFLOW_CONN_OPENAI_DEFAULT")
    if connection is not None:
        text = connection if isinstance(connection, str) else json.dumps(connection)
        monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", text)

    ended = desk.run()

    assert (ended.code, sentence in ended.answer["message"]) == (2, True), ended
    assert spent(parrot) == before


def test_a_model_without_a_price_breaks_no_budget(desk: Desk, parrot: str) -> None:
    before = spent(parrot)
    desk.records("one")
    desk.job(more="budget_usd: 1")
    text = (desk.folder / "tickets.yaml").read_text()
    desk.put("tickets.yaml", text.replace("gpt-5-mini", "gpt-77"))

    ended = desk.run()

    assert (ended.code, "price of openai gpt-77 is not known" in ended.answer["message"]) == (2, True), ended
    assert spent(parrot) == before


def test_a_model_without_a_price_is_told_where_no_budget_needs_one(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.records("one")
    text = (desk.folder / "tickets.yaml").read_text()
    desk.put("tickets.yaml", text.replace("gpt-5-mini", "gpt-77"))

    checked, ended = desk.type("check", "tickets.yaml"), desk.run()

    [warning] = checked.answer["jobs"]["tickets.yaml"]["warnings"]
    assert (checked.code, "booked as 0 USD" in warning, "gpt-77" in warning) == (0, True, True)
    assert (ended.code, "booked as 0 USD" in caplog.text) == (0, True), ended


def test_prices_of_ones_own_let_a_budget_be_kept(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.records("one")
    desk.job(more="budget_usd: 1")
    text = (desk.folder / "tickets.yaml").read_text()
    desk.put("tickets.yaml", text.replace("gpt-5-mini", "gpt-77"))
    row = "provider: openai, model: gpt-77, mode: batch, input: '1', output: '4', valid_from: 2026-01-01, source: ours"
    monkeypatch.setenv("NIGHTBATCH_PRICES", str(desk.folder / "prices.yaml"))

    without = desk.run()
    desk.put("prices.yaml", f"- {{{row}}}")
    ended = desk.run()

    assert (without.code, "NIGHTBATCH_PRICES" in without.answer["message"]) == (2, True), without
    assert (ended.code, Decimal(ended.answer["cost_usd"]) > 0) == (0, True), ended


@pytest.mark.parametrize("key", ["budget_usd", "budget_day_usd"])
def test_a_plan_says_that_no_shard_fits_the_budget(desk: Desk, key: str) -> None:
    desk.records("one")
    desk.job(more=f"{key}: 0.000001")

    ended = desk.type("plan", "tickets.yaml")

    [said] = ended.answer["too_small_budgets"]
    assert (ended.code, f"{key} is not enough: it is 0.000001 USD" in said, "at worst" in said) == (0, True, True), (
        ended
    )

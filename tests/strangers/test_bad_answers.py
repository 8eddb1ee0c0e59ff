"""Bad answers, from the command line: each gets a verdict, and is neither loaded nor in anybody's way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from nightbatch.emulator import EmulatorSettings, running
from tests.strangers.desk import FLOOD, SILENCE, Desk, at_vendor, desk, faulty, parrot, spent

__all__ = ["desk", "parrot"]

SCHEMA = """
answer:
  schema:
    type: object
    properties: {mood: {enum: [good, bad]}, score: {type: number}}
    required: [mood, score]
    additionalProperties: false
"""
GOOD = '{"mood": "good", "score": 1}'
BAD = {
    "prose": ("I think that it is good.", "not_json"),
    "JSON and more": (GOOD + " Anything else?", "not_json"),
    "cut in the middle": (GOOD[:-8], "not_json"),
    "NaN": ('{"mood": "good", "score": NaN}', "not_json"),
    "a key twice": ('{"mood": "good", "mood": "bad", "score": 1}', "not_json"),
    "a wrong type": ('{"mood": "good", "score": "1"}', "off_schema"),
    "a value that is not in the list": ('{"mood": "so-so", "score": 1}', "off_schema"),
    "a field too few": ('{"mood": "good"}', "off_schema"),
    "a field too many": ('{"mood": "good", "score": 1, "why": "x"}', "off_schema"),
    "a list": (f"[{GOOD}]", "off_schema"),
    "null": ("null", "off_schema"),
    "deeply nested": ('{"mood": "good", "score": ' + "[" * 5_000 + "]" * 5_000 + "}", "not_json"),
    "seven megabytes": (json.dumps({"mood": "x" * 7_000_000, "score": 1}), "off_schema"),
    "more than ten": (FLOOD, "too_large"),
    "nothing": (SILENCE, "empty_answer"),
}


def test_bad_answers_are_dead_letters_with_their_reason_and_the_good_one_is_loaded(desk: Desk) -> None:
    desk.job(prompt="{{ text }}", more=SCHEMA)
    desk.records(GOOD, *(answer for answer, _ in BAD.values()))

    ended = desk.run()

    assert (ended.code, ended.books["state"], list(desk.loaded())) == (0, "complete", ["k0"]), ended
    expected = {f"k{number}": reason for number, (_, reason) in enumerate(BAD.values(), start=1)}
    assert desk.reasons() == expected
    assert not any("Anything else" in detail for _, detail in desk.dead()), "a reason holds no answer"


def test_what_is_only_wrapped_is_read(desk: Desk) -> None:
    desk.job(prompt="{{ text }}", more=SCHEMA)
    desk.records(f"```json\n{GOOD}\n```", f"  \n{GOOD}\n")

    ended = desk.run()

    assert (ended.code, desk.dead()) == (0, []), ended
    assert [(row["mood"], row["score"]) for row in desk.loaded().values()] == [("good", 1)] * 2


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A vendor of the test's own, whose rows can be spoilt, and the desk's connection leads there."""
    with running(EmulatorSettings(executor="echo")) as url:
        monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", at_vendor(url))
        yield url


@pytest.mark.parametrize("fault", ["refusal", "truncated"])
def test_a_refusal_and_an_answer_that_was_cut_at_the_cap_are_dead_letters(desk: Desk, echo: str, fault: str) -> None:
    desk.records("hello", "good evening")

    with faulty(echo, **{fault: 1.0}, fault_attempts=0):
        ended = desk.run()

    assert (ended.code, desk.reasons(), desk.answers()) == (0, {"k0": REASONS[fault], "k1": REASONS[fault]}, {}), ended


REASONS = {"refusal": "refused", "truncated": "truncated"}


@pytest.mark.parametrize(
    "faults", [{"duplicate": 1.0}, {"unknown": 1.0}, {"shuffle": True, "counters_lie": True}], ids=str
)
def test_rows_that_come_twice_or_of_nobody_and_counters_that_lie_change_no_answer(
    desk: Desk, echo: str, faults: dict[str, Any]
) -> None:
    texts = [f"text {number}" for number in range(6)]
    desk.records(*texts)

    with faulty(echo, **faults):
        ended = desk.run()

    assert (ended.code, ended.books["state"], desk.dead(), spent(echo)) == (0, "complete", [], 1), ended
    assert desk.answers() == {f"k{number}": text for number, text in enumerate(texts)}


def test_a_counter_that_hides_a_failed_row_hides_nothing(desk: Desk, echo: str) -> None:
    desk.records("one", "two")

    with faulty(echo, permanent=1.0, counters_lie=True):
        ended = desk.run()

    assert (ended.code, len(desk.dead()), desk.answers()) == (0, 2, {}), ended


def test_a_row_that_is_in_no_file_is_pending_and_the_next_run_asks_it_again(desk: Desk, echo: str) -> None:
    desk.records("one", "two")

    with faulty(echo, missing=1.0):
        ended = desk.run()
    assert (ended.code, ended.answer["error"], ended.books["pending"]) == (1, "RunIncomplete", {"missing": 2}), ended

    again = desk.run()
    assert (again.code, desk.answers()) == (0, {"k0": "one", "k1": "two"}), again

"""Bad answers, from the command line: each gets a verdict, and is neither loaded nor in anybody's way."""

from __future__ import annotations

import json

from tests.strangers.desk import Desk, desk, parrot

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

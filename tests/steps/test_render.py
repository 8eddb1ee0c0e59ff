"""Render: every record becomes a question, in order; one that cannot be rendered says why."""

from __future__ import annotations

from nightbatch.core.verdict import Reason
from nightbatch.ports import Chunk
from nightbatch.steps.pull import Pulled, Question
from nightbatch.steps.render import render
from tests.memory_stack import job_of


def test_records_become_questions_and_bad_ones_stay_questions_with_a_reason() -> None:
    job = job_of(prompt={"system": "Be brief.", "user": "{{ text.upper() }}"})
    bad = Question("", None, Reason.BAD_KEY, "the key is null")
    chunk = Chunk(("id", "text"), [("a", "one"), ("b", None), ("c", "three")])

    (questions,) = render([Pulled(chunk, [bad])], job)

    told = {question.key: question.messages and question.messages.user for question in questions}
    assert told == {"": None, "a": "ONE", "b": None, "c": "THREE"}
    assert {question.key: question.reason for question in questions if question.messages is None} == {
        "": Reason.BAD_KEY,
        "b": Reason.BAD_RECORD,
    }


def test_half_a_surrogate_pair_is_no_text() -> None:
    chunk = Chunk(("id", "text"), [("a", "\ud800"), ("b", "😀")])

    (questions,) = render([Pulled(chunk, [])], job_of())

    reason = "user template: gives half a surrogate pair, which is no text"
    assert [(question.key, question.detail) for question in questions] == [("a", reason), ("b", "")]

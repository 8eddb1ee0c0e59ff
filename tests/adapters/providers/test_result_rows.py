"""Every shape of result row is read, and nothing a row says can break the others."""

from __future__ import annotations

from typing import get_args

import pytest
from anthropic.types import StopReason
from anthropic.types.messages import MessageBatch
from anthropic.types.shared.error_type import ErrorType
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch
from openai.types.chat.chat_completion import Choice
from openai.types.responses.response import IncompleteDetails
from tests.golden.rewrite import FOLDER

from nightbatch.adapters.providers import anthropic_batches, anthropic_rows, openai_batches, openai_rows
from nightbatch.core.money import Usage
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result

ANSWERED, ERRORED = Outcome.ANSWERED, Outcome.ERRORED

OPENAI = [
    Result("r1-0", ANSWERED, "Hi", usage=Usage(22, 16, 0, 2, 1), model="gpt-5-mini-2025-08-07"),
    Result("r2-0", ERRORED, error_kind=ErrorKind.PERMANENT, error_code="context_length_exceeded"),
    Result("r3-0", Outcome.EXPIRED, error_code="batch_expired"),
    Result("r4-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="status_0"),
    Result("r5-0", Outcome.CANCELLED, error_code="batch_cancelled"),
    Result("r6-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="request_timeout"),
    Result("r7-0", ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="insufficient_quota"),
    Result("r8-0", ANSWERED, "cut of", Finish.TRUNCATED, usage=Usage(3, 0, 0, 200), model="m"),
    Result("r9-0", ANSWERED, "I cannot.", Finish.REFUSED, usage=Usage(3, 0, 0, 4), model="m"),
    Result("r10-0", ANSWERED, "half", Finish.TRUNCATED, usage=Usage(30, 10, 0, 20, 15), model="m"),
    Result("r11-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="server_error", model="m"),
    Result("r12-0", ANSWERED, "[0.25,-1.5e-3]", usage=Usage(8), model="text-embedding-3-small"),
    Result("r13-0", ANSWERED, "[0.25,-1.5]", usage=Usage(8), model="text-embedding-3-small"),
    Result("r14-0", ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="402"),
    Result("r15-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="http_503"),
]
ANTHROPIC = [
    Result("r1-0", ANSWERED, '{"a":1}', usage=Usage(1110, 1000, 100, 5, 2), model="claude-sonnet-4-6"),
    Result("r2-0", ERRORED, error_kind=ErrorKind.PERMANENT, error_code="invalid_request_error"),
    Result("r3-0", Outcome.EXPIRED),
    Result("r4-0", Outcome.CANCELLED),
    Result("r5-0", ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="credit_balance_too_low"),
    Result("r6-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="overloaded_error"),
    Result("r7-0", ANSWERED, "cut", Finish.TRUNCATED, usage=Usage(1, 0, 0, 2), model="m"),
    Result("r8-0", ANSWERED, None, Finish.REFUSED, usage=Usage(1), model="m"),
    Result("r9-0", ANSWERED, None, Finish.PAUSED, usage=Usage(1, 0, 0, 1), model="m"),
    Result("r10-0", ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="organization_on_hold"),
    Result("r11-0", ERRORED, error_kind=ErrorKind.PERMANENT, error_code="invalid_request_error"),
    Result("r12-0", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="unknown_result:postponed"),
]
PARSERS = {"openai": openai_rows.parse_row, "anthropic": anthropic_rows.parse_row}


def lines(vendor: str) -> list[bytes]:
    return (FOLDER / vendor / "results.jsonl").read_bytes().split(b"\n")[:-1]


@pytest.mark.parametrize(("vendor", "expected"), [("openai", OPENAI), ("anthropic", ANTHROPIC)])
def test_documented_rows_are_read(vendor, expected):
    assert [PARSERS[vendor](line) for line in lines(vendor)] == expected


@pytest.mark.parametrize("vendor", sorted(PARSERS))
@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"null", b'{"no":"name"}', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_names_no_row_is_a_value_error(vendor, line):
    with pytest.raises(ValueError):
        PARSERS[vendor](line)


@pytest.mark.parametrize(
    ("vendor", "line"),
    [
        ("openai", b'{"custom_id":"a","response":{"status_code":"two hundred"}}'),
        ("openai", b'{"custom_id":"a","response":{"status_code":200,"body":{"choices":{"not":"a list"}}}}'),
        ("openai", b'{"custom_id":"a","response":{"status_code":200,"body":{"data":[{"embedding":"%"}]}}}'),
        ("anthropic", b'{"custom_id":"a","result":{"type":"succeeded","message":{"content":"not a list"}}}'),
        ("anthropic", b'{"custom_id":"a"}'),
    ],
)
def test_a_row_of_an_unknown_shape_fails_alone_and_is_sent_again(vendor, line):
    expected = Result("a", ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="unreadable_result")

    assert PARSERS[vendor](line) == expected


def test_half_a_surrogate_pair_costs_one_character_and_not_the_row():
    body = rb'{"choices":[{"message":{"content":"a\ud83db"},"finish_reason":"stop"}]}'
    row = b'{"custom_id":"a","response":{"status_code":200,"body":' + body + b"}}"

    assert openai_rows.parse_row(row).text == "a?b"


def test_line_separators_inside_an_answer_stay_inside():
    body = '{"choices":[{"message":{"content":"a\u2028b\u0085c"},"finish_reason":"stop"}]}'
    row = '{"custom_id":"a","response":{"status_code":200,"body":' + body + "}}"

    assert openai_rows.parse_row(row.encode()).text == "a\u2028b\u0085c"


def test_an_error_code_that_quotes_the_prompt_is_left_out():
    error = b'{"code":"Dear diary, today I","type":"invalid_request_error","message":"x"}'
    row = b'{"custom_id":"a","response":{"status_code":400,"body":{"error":' + error + b"}}}"

    assert openai_rows.parse_row(row).error_code == "invalid_request_error"


@pytest.mark.parametrize("vendor", sorted(PARSERS))
@given(junk=st.binary(max_size=200))
def test_junk_raises_a_value_error_and_nothing_else(vendor, junk):
    with pytest.raises(ValueError):
        PARSERS[vendor](junk)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (openai_batches.STATUS, Batch.model_fields["status"].annotation),
        (openai_rows.FINISH, Choice.model_fields["finish_reason"].annotation),
        (openai_rows.INCOMPLETE, get_args(IncompleteDetails.model_fields["reason"].annotation)[0]),
        (anthropic_batches.STATUS, MessageBatch.model_fields["processing_status"].annotation),
        (anthropic_rows.FINISH, StopReason),
        (anthropic_rows.KIND, ErrorType),
    ],
)
def test_our_maps_hold_every_word_of_the_sdk(ours, theirs):
    """An SDK that learns a word fails here, before a row meets it."""
    assert set(ours) == set(get_args(theirs))

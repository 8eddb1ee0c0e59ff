"""What can go wrong with single rows, each fault by its name."""

from __future__ import annotations

import json

import openai
import pytest


def answer_of(row):
    """Return the text of an OpenAI row."""
    return row["response"]["body"]["choices"][0]["message"]["content"]


def ending_of(row):
    """Return what stopped an OpenAI row's answer."""
    return row["response"]["body"]["choices"][0]["finish_reason"]


def test_permanent_rows_fail_every_time_with_the_error_nested_in_the_body(rehearse, chats):
    stage = rehearse("permanent=1")
    for _ in range(2):
        batch = stage.run(chats(3))
        rows = stage.rows(batch.error_file_id)

        assert (batch.status, batch.output_file_id, len(rows)) == ("completed", None, 3)
        assert {row["error"] for row in rows} == {None}
        assert {row["response"]["status_code"] for row in rows} == {400}
        assert {row["response"]["body"]["error"]["code"] for row in rows} == {"context_length_exceeded"}


def test_permanent_rows_are_errored_invalid_requests_at_anthropic(rehearse, letters):
    stage = rehearse("permanent=1")
    results = stage.results(stage.run_messages(letters(2)))

    assert {(one.type, one.error.error.type) for one in results.values()} == {("errored", "invalid_request_error")}


def test_error_place_top_puts_the_error_beside_a_null_response(rehearse, chats):
    stage = rehearse("permanent=1, error_place=top")
    (row,) = stage.rows(stage.run(chats(1)).error_file_id)

    assert row["response"] is None
    assert row["error"]["code"] == "context_length_exceeded"


def test_errors_in_output_mixes_failed_rows_into_the_output_file(rehearse, chats):
    stage = rehearse("permanent=0.5, errors_in_output=1")
    batch = stage.run(chats(20))
    codes = [row["response"]["status_code"] for row in stage.rows(batch.output_file_id)]

    assert batch.error_file_id is None
    assert set(codes) == {200, 400}


@pytest.mark.parametrize(("fault", "status"), [("transient", 500), ("status_zero", 0)])
def test_transient_rows_fail_once_and_pass_when_sent_again(rehearse, chats, fault, status):
    stage = rehearse(f"{fault}=1")
    first, second = stage.run(chats(3)), stage.run(chats(3))

    assert {row["response"]["status_code"] for row in stage.rows(first.error_file_id)} == {status}
    assert len(stage.rows(second.output_file_id)) == 3


@pytest.mark.parametrize(("fault", "kind"), [("transient", "api_error"), ("status_zero", "overloaded_error")])
def test_transient_rows_fail_once_at_anthropic_too(rehearse, letters, fault, kind):
    stage = rehearse(f"{fault}=1")
    first, second = (stage.results(stage.run_messages(letters(3))) for _ in range(2))

    assert {one.error.error.type for one in first.values()} == {kind}
    assert {one.type for one in second.values()} == {"succeeded"}


def test_status_zero_rows_have_an_empty_body_and_no_request_id(rehearse, chats):
    stage = rehearse("status_zero=1")
    (row,) = stage.rows(stage.run(chats(1)).error_file_id)

    assert row["response"] == {"status_code": 0, "request_id": "", "body": {}}


def test_expired_rows_end_the_batch_as_expired_with_its_partial_output(rehearse, chats):
    stage = rehearse("expired=0.5")
    batch = stage.run(chats(30))
    done, rest = stage.rows(batch.output_file_id), stage.rows(batch.error_file_id)

    assert (batch.status, len(done) + len(rest)) == ("expired", 30)
    assert len(done) > 5 < len(rest)
    assert {(row["response"], row["error"]["code"]) for row in rest} == {(None, "batch_expired")}
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(done), 0)
    again = stage.run([line for line in chats(30) if line["custom_id"] in {row["custom_id"] for row in rest}])
    assert (again.status, again.request_counts.completed) == ("completed", len(rest))


def test_expired_rows_are_expired_results_at_anthropic(rehearse, letters):
    stage = rehearse("expired=0.5")
    batch = stage.run_messages(letters(30))
    types = [result.type for result in stage.results(batch).values()]

    assert set(types) == {"succeeded", "expired"}
    assert batch.request_counts.expired == types.count("expired")


def test_truncated_answers_stop_in_the_middle_and_are_whole_the_second_time(rehearse, chats):
    stage = rehearse("truncated=1")
    (first,), (second,) = (stage.rows(stage.run(chats(1)).output_file_id) for _ in range(2))

    assert (ending_of(first), ending_of(second)) == ("length", "stop")
    assert answer_of(second).startswith(answer_of(first))
    assert first["response"]["body"]["usage"]["completion_tokens"] == 500


def test_truncated_answers_can_ask_for_a_larger_cap(rehearse, chats):
    stage = rehearse("truncated=1, truncated_until=larger_cap")
    caps = (500, 500, 1000, 1000)
    ends = [ending_of(stage.rows(stage.run(chats(1, max_completion_tokens=cap)).output_file_id)[0]) for cap in caps]

    assert ends == ["length", "length", "stop", "stop"]


def test_truncated_answers_end_as_max_tokens_at_anthropic_and_incomplete_in_responses(rehearse, letters):
    stage = rehearse("truncated=1")
    (result,) = stage.results(stage.run_messages(letters(1))).values()
    response = stage.openai.responses.create(model="gpt-5-mini", input="something that can be cut")

    assert result.message.stop_reason == "max_tokens"
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_cap_that_is_really_too_small_truncates_without_any_fault(calm, chats):
    (row,) = calm.rows(calm.run(chats(1, max_completion_tokens=3)).output_file_id)

    assert ending_of(row) == "length"
    assert row["response"]["body"]["usage"]["completion_tokens"] == 3


def test_off_schema_answers_are_json_of_another_shape_once(rehearse, chats, sentiment_schema):
    stage = rehearse("off_schema=1")
    (first,), (second,) = (stage.rows(stage.run(chats(1, schema=sentiment_schema)).output_file_id) for _ in range(2))

    assert set(json.loads(answer_of(first))) == {"confidence", "reason", "unexpected"}
    assert set(json.loads(answer_of(second))) == {"sentiment", "confidence", "reason"}


def test_not_json_answers_are_prose_once(rehearse, letters, sentiment_schema):
    stage = rehearse("not_json=1")
    first, second = (stage.results(stage.run_messages(letters(1, schema=sentiment_schema)))["r0"] for _ in range(2))

    with pytest.raises(json.JSONDecodeError):
        json.loads(first.message.content[0].text)
    assert json.loads(second.message.content[0].text)["sentiment"] == "positive"


def test_refusals_come_back_every_time_in_each_vendors_words(rehearse, chats, letters):
    stage = rehearse("refusal=1")
    for _ in range(2):
        (row,) = stage.rows(stage.run(chats(1)).output_file_id)
        result = stage.results(stage.run_messages(letters(1)))["r0"]

        assert answer_of(row) is None
        assert row["response"]["body"]["choices"][0]["message"]["refusal"]
        assert result.message.stop_reason == "refusal"


def test_only_models_lets_another_model_answer(rehearse, chats):
    stage = rehearse("refusal=1, only_models=gpt-5-mini+gpt-5-nano")

    assert answer_of(stage.rows(stage.run(chats(1)).output_file_id)[0]) is None
    assert answer_of(stage.rows(stage.run(chats(1, model="gpt-5")).output_file_id)[0])


def test_only_vendor_spares_the_other(rehearse, chats, letters):
    stage = rehearse("permanent=1, only_vendor=anthropic")

    assert stage.run(chats(1)).request_counts.failed == 0
    assert stage.run_messages(letters(1)).request_counts.errored == 1


def test_credit_error_is_an_invalid_request_at_anthropic_and_insufficient_quota_at_openai(rehearse, chats, letters):
    stage = rehearse("credit_error=1")
    result = stage.results(stage.run_messages(letters(1)))["r0"]
    (row,) = stage.rows(stage.run(chats(1)).error_file_id)

    assert result.error.error.type == "invalid_request_error"
    assert "credit balance is too low" in result.error.error.message
    assert row["response"]["body"]["error"]["code"] == "insufficient_quota"


def test_missing_rows_are_nowhere_and_come_when_sent_again(rehearse, chats, letters):
    stage = rehearse("missing=0.5")
    first, second = stage.both(stage.run(chats(20))), stage.both(stage.run(chats(20)))

    assert 0 < len(first) < 20 == len(second)
    assert 0 < len(stage.results(stage.run_messages(letters(20)))) < 20


def test_duplicate_rows_stand_twice(rehearse, chats, letters):
    stage = rehearse("duplicate=1")
    rows = stage.rows(stage.run(chats(3)).output_file_id)
    results = list(stage.anthropic.messages.batches.results(stage.run_messages(letters(3)).id))

    assert len(rows) == len(results) == 6
    assert len({row["custom_id"] for row in rows}) == 3


def test_unknown_rows_carry_a_custom_id_that_nobody_sent(rehearse, chats, letters):
    stage = rehearse("unknown=1")
    sent = {"r0", "r1"}

    assert set(stage.both(stage.run(chats(2)))) - sent == {"unknown-0", "unknown-1"}
    assert set(stage.results(stage.run_messages(letters(2)))) - sent == {"unknown-0", "unknown-1"}


def test_shuffle_changes_the_order_and_nothing_else(rehearse, chats):
    stage = rehearse("shuffle=1")
    rows = stage.rows(stage.run(chats(50)).output_file_id)
    order = [row["custom_id"] for row in rows]

    assert order != sorted(order, key=lambda name: int(name[1:]))
    assert set(order) == {f"r{number}" for number in range(50)}
    assert all(f"number {row['custom_id'][1:]}," in answer_of(row) for row in rows)


def test_u2028_stands_unescaped_in_rows(rehearse, chats, letters):
    stage = rehearse("u2028=1")
    text = stage.openai.files.content(stage.run(chats(2)).output_file_id).read().decode()
    results = stage.results(stage.run_messages(letters(2)))

    assert len(text.rstrip("\n").split("\n")) == 2 < len(text.splitlines())
    assert all("\u2028" in result.message.content[0].text for result in results.values())


def test_fault_attempts_says_how_often_a_row_is_hit(rehearse, chats):
    stage = rehearse("transient=1, fault_attempts=2")
    completed = [stage.run(chats(2)).request_counts.completed for _ in range(3)]
    always = rehearse("transient=1, fault_attempts=0")

    assert completed == [0, 0, 2]
    assert [always.run(chats(2)).request_counts.completed for _ in range(3)] == [0, 0, 0]


def test_the_same_seed_hits_the_same_rows_and_another_seed_others(rehearse, chats):
    def hit(seed):
        stage = rehearse("permanent=0.4", seed=seed)
        return {row["custom_id"] for row in stage.rows(stage.run(chats(40)).error_file_id)}

    assert hit(1) == hit(1) != hit(2)


def test_a_larger_cap_does_not_change_which_rows_are_hit(rehearse, chats):
    stage = rehearse("permanent=0.4")
    first, second = (stage.run(chats(40, max_completion_tokens=cap)) for cap in (300, 600))
    hit = [{row["custom_id"] for row in stage.rows(batch.error_file_id)} for batch in (first, second)]

    assert hit[0] == hit[1]


def test_shares_are_kept_roughly(rehearse, chats):
    batch = rehearse("permanent=0.2").run(chats(1000))

    assert 150 < batch.request_counts.failed < 250


def test_row_faults_hit_real_time_calls_too(rehearse):
    stage = rehearse("transient=1")
    ask = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}

    with pytest.raises(openai.InternalServerError):
        stage.openai.chat.completions.create(**ask)
    assert stage.openai.chat.completions.create(**ask).choices[0].message.content == "hi"

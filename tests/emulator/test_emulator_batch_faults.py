"""What can go wrong with whole batches and their files, each fault by its name."""

from __future__ import annotations

import time

import anthropic
import openai
import pytest


def seen_until(look, last, timeout_s=20):
    """Look until something is seen; return all that was seen."""
    seen, deadline = [look()], time.monotonic() + timeout_s
    while seen[-1] != last:
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)
        seen.append(look())
    return seen


def test_counters_lie_hides_the_failed_rows(rehearse, chats, letters):
    stage = rehearse("counters_lie=1, permanent=0.5")
    batch, messages = stage.run(chats(20)), stage.run_messages(letters(20))

    assert (batch.request_counts.completed, batch.request_counts.failed) == (20, 0)
    assert stage.rows(batch.error_file_id)
    assert (messages.request_counts.succeeded, messages.request_counts.errored) == (20, 0)
    assert {result.type for result in stage.results(messages).values()} == {"succeeded", "errored"}


def test_all_rows_failed_is_completed_with_only_an_error_file(rehearse, chats):
    batch = rehearse("permanent=1").run(chats(2))

    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.error_file_id


def test_blank_file_id_is_an_empty_string(rehearse, chats):
    failed = rehearse("permanent=1, blank_file_id=1").run(chats(2))
    good = rehearse("blank_file_id=1").run(chats(2))

    assert failed.output_file_id == ""
    assert good.error_file_id == ""


def test_zero_byte_error_file_is_there_when_no_row_failed(rehearse, chats):
    stage = rehearse("zero_byte_error_file=1")
    batch = stage.run(chats(2))

    assert stage.openai.files.content(batch.error_file_id).read() == b""
    assert len(stage.rows(batch.output_file_id)) == 2


@pytest.mark.parametrize("state", ["validating", "in_progress"])
def test_stuck_batches_stay_until_they_are_cancelled(rehearse, chats, state):
    stage = rehearse(f"stuck={state}, stuck_batch=1")
    stuck = stage.create(chats(2))
    assert stage.run(chats(2)).status == "completed"

    assert stage.openai.batches.retrieve(stuck.id).status == state
    stage.openai.batches.cancel(stuck.id)
    assert stage.ended(stuck.id).status == "cancelled"


def test_stuck_batches_expire_with_their_window(rehearse, chats, letters):
    stage = rehearse("stuck=in_progress", window_seconds=0.3)
    batch, messages = stage.run(chats(2)), stage.run_messages(letters(2))

    assert (batch.status, batch.output_file_id) == ("expired", None)
    assert {row["error"]["code"] for row in stage.rows(batch.error_file_id)} == {"batch_expired"}
    assert messages.request_counts.expired == 2


def test_a_batch_that_takes_longer_than_its_window_expires_with_what_it_has(rehearse, chats):
    stage = rehearse(batch_seconds=1.0, window_seconds=0.5)
    batch = stage.run(chats(40))
    done = stage.rows(batch.output_file_id)

    assert batch.status == "expired"
    assert (len(done), len(stage.rows(batch.error_file_id))) == (20, 20)


@pytest.mark.parametrize("fault", ["late_batch=2", "late_match=slow-job"])
def test_a_late_batch_takes_so_much_longer_and_the_others_do_not(rehearse, chats, fault):
    stage = rehearse(f"late_seconds=3600, {fault}")
    first = stage.create(chats(1), metadata={"job": "quick-job"})
    late = stage.create(chats(1), metadata={"job": "slow-job 2026-11-22"})
    third = stage.create(chats(1))

    assert stage.ended(first.id).status == stage.ended(third.id).status == "completed"
    assert stage.openai.batches.retrieve(late.id).status == "in_progress"
    assert [batch["late_seconds"] for batch in stage.state()["batches"]] == [0, 3600, 0]


def test_late_match_finds_an_anthropic_batch_by_its_first_custom_id(rehearse, letters):
    stage = rehearse("late_seconds=3600, late_match=slow")
    late = stage.create_messages([letters(1)[0] | {"custom_id": "slow-1"}])
    stage.run_messages(letters(1))

    assert stage.anthropic.messages.batches.retrieve(late.id).processing_status == "in_progress"


def test_speed_divides_durations(rehearse, chats):
    stage = rehearse("late_seconds=3600, late_batch=1", batch_seconds=3600, validate_seconds=600, speed=20_000)
    began = time.monotonic()

    assert stage.run(chats(1)).status == "completed"
    assert 0.3 < time.monotonic() - began < 5


def test_not_found_seconds_hides_a_new_batch_for_a_while(rehearse, chats):
    stage = rehearse("not_found_seconds=1")
    batch = stage.create(chats(1))
    seen = seen_until(lambda: stage.http.get(f"/v1/batches/{batch.id}").status_code, 200)

    assert set(seen) == {404, 200}
    assert time.time() >= batch.created_at + 1


def test_not_found_seconds_hides_a_new_message_batch_too(rehearse, letters):
    stage = rehearse("not_found_seconds=1")
    batch = stage.create_messages(letters(1))
    seen = seen_until(lambda: stage.http.get(f"/v1/messages/batches/{batch.id}").status_code, 200)

    assert set(seen) == {404, 200}
    assert time.time() >= batch.created_at.timestamp() + 1


def test_list_lag_seconds_keeps_a_new_batch_out_of_lists_for_a_while(rehearse, chats):
    stage = rehearse("list_lag_seconds=1")
    batch = stage.create(chats(1))
    seen = seen_until(lambda: len(stage.openai.batches.list().data), 1)

    assert set(seen) == {0, 1}
    assert stage.openai.batches.retrieve(batch.id).id == batch.id


def test_list_lag_seconds_keeps_a_new_message_batch_out_of_lists_too(rehearse, letters):
    stage = rehearse("list_lag_seconds=1")
    stage.create_messages(letters(1))
    seen = seen_until(lambda: len(stage.anthropic.messages.batches.list().data), 1)

    assert set(seen) == {0, 1}


def test_token_limit_at_create_refuses_the_next_create_call_and_leaves_no_batch(rehearse, chats, letters):
    stage = rehearse("token_limit_at_create=1")
    with pytest.raises(openai.BadRequestError) as refused:
        stage.create(chats(1))

    assert refused.value.code == "token_limit_exceeded"
    assert (stage.state()["batches"], stage.state()["creations"]["openai"]) == ([], 0)
    assert stage.run(chats(1)).status == "completed"
    strict = rehearse("token_limit_at_create=1")
    with pytest.raises(anthropic.RateLimitError):
        strict.create_messages(letters(1))


def test_token_limit_after_validation_fails_the_next_batch(rehearse, chats):
    stage = rehearse("token_limit_after_validation=1")
    first, second = stage.run(chats(1)), stage.run(chats(1))

    assert (first.status, second.status) == ("failed", "completed")
    assert [error.code for error in first.errors.data] == ["token_limit_exceeded"]
    assert "Enqueued token limit reached for gpt-5-mini" in first.errors.data[0].message


def test_enqueued_tokens_are_limited_by_model_and_released_at_the_end(rehearse, chats):
    stage = rehearse(enqueued_token_limits={"gpt-5-mini": 100}, batch_seconds=60)
    first = stage.create(chats(4))  # some 80 tokens
    stage_is = stage.ended(stage.create(chats(4)).id)
    other = stage.create(chats(4, model="gpt-5"))

    assert [error.code for error in stage_is.errors.data] == ["token_limit_exceeded"]
    assert stage.state()["enqueued_tokens"]["org-emulator/default gpt-5-mini"] > 50
    stage.openai.batches.cancel(first.id)
    assert stage.ended(first.id).status == "cancelled"
    assert stage.state()["enqueued_tokens"]["org-emulator/default gpt-5-mini"] == 0
    assert stage.openai.batches.retrieve(other.id).status in {"validating", "in_progress"}


def test_enqueued_tokens_over_the_limit_can_be_refused_at_create(rehearse, chats):
    stage = rehearse(enqueued_token_limit=50, over_limit_at="create")

    with pytest.raises(openai.BadRequestError, match="Enqueued token limit"):
        stage.create(chats(20))
    assert stage.run(chats(1)).status == "completed"


def test_requests_waiting_in_message_batches_are_limited(rehearse, letters):
    stage = rehearse(queued_request_limit=5, batch_seconds=60)
    stage.create_messages(letters(4))

    with pytest.raises(anthropic.RateLimitError):
        stage.create_messages(letters(2))
    stage.create_messages(letters(1))


def test_a_batch_keeps_the_faults_it_was_created_with(rehearse, chats):
    stage = rehearse(batch_seconds=0.3)
    spoilt, _ = stage.clients("sk-emulator", "permanent=1")
    first = stage.create(chats(2), client=spoilt)
    second = stage.create(chats(2))

    assert stage.ended(first.id).request_counts.failed == 2
    assert stage.ended(second.id).request_counts.failed == 0


def test_tokens_counted_at_create_are_released_when_validation_fails(rehearse, chats):
    stage = rehearse(enqueued_token_limit=60, over_limit_at="create")

    for _ in range(3):
        assert stage.run([*chats(2), "{broken"]).status == "failed"
    assert stage.run(chats(2)).status == "completed"
    assert set(stage.state()["enqueued_tokens"].values()) == {0}


def test_a_status_word_that_nobody_knows_stands_for_running_a_while(rehearse, chats, letters):
    stage = rehearse("status_word=pondering, status_seconds=1")
    with pytest.raises(openai.APIResponseValidationError) as batch:
        stage.create(chats(1))
    with pytest.raises(anthropic.APIResponseValidationError) as messages:
        stage.create_messages(letters(1))

    assert (batch.value.body["status"], messages.value.body["processing_status"]) == ("pondering", "pondering")
    time.sleep(1)
    assert stage.ended(batch.value.body["id"]).status == "completed"
    assert stage.messages_ended(messages.value.body["id"]).processing_status == "ended"


def test_hidden_results_come_some_time_after_the_end(rehearse, chats, letters):
    stage = rehearse("hidden_results_seconds=1")
    batch, messages = stage.run(chats(1)), stage.run_messages(letters(1))
    assert (batch.output_file_id, messages.results_url) == (None, None)

    seen_until(lambda: bool(stage.openai.batches.retrieve(batch.id).output_file_id), True)
    seen_until(lambda: bool(stage.anthropic.messages.batches.retrieve(messages.id).results_url), True)

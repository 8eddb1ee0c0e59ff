"""What the vendors refuse, refused in the same way."""

from __future__ import annotations

import anthropic
import openai
import pytest

from nightbatch.emulator import Account, Limits

GPT = "gpt-5-mini"


def failure(stage, lines, **more):
    """Run a batch that must fail; return its errors."""
    batch = stage.run(lines, **more)
    assert batch.status == "failed"
    assert batch.failed_at
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    return [(error.code, error.line) for error in batch.errors.data]


def test_lines_that_are_not_json_fail_the_batch_and_are_named(calm, chats):
    assert failure(calm, [chats(1)[0], "{broken", "[]", ""]) == [
        ("invalid_json_line", 2),
        ("invalid_json_line", 3),
        ("invalid_json_line", 4),
    ]


def test_an_empty_file_fails_the_batch(calm):
    assert failure(calm, []) == [("empty_file", None)]


def test_repeated_custom_ids_fail_the_batch(calm, chats):
    assert failure(calm, chats(2) + chats(2)) == [("duplicate_custom_id", 3), ("duplicate_custom_id", 4)]


def test_another_url_than_the_batches_fails_it(calm, chats):
    assert failure(calm, chats(1, url="/v1/responses")) == [("url_mismatch", 1)]


def test_two_models_fail_the_batch(calm, chats):
    second = chats(2, model="gpt-5")[1]

    assert failure(calm, [*chats(1), second]) == [("model_mismatch", 2)]


def test_an_unknown_model_fails_the_batch(calm, chats):
    assert failure(calm, chats(1, model="no-such-model")) == [("model_not_found", 1)]


@pytest.mark.parametrize("name", ["custom_id", "method", "url", "body"])
def test_a_line_without_its_envelope_fails_the_batch(calm, chats, name):
    (line,) = chats(1)
    del line[name]

    assert failure(calm, [line]) == [("missing_required_parameter", 1)]


def test_too_many_rows_or_bytes_fail_the_batch(rehearse, chats):
    stage = rehearse(limits=Limits(openai_rows=3))
    small = rehearse(limits=Limits(openai_batch_file_bytes=100))

    assert stage.run(chats(3)).status == "completed"
    assert failure(stage, chats(4)) == [("too_many_tasks", None)]
    assert failure(small, chats(3)) == [("file_too_large", None)]


def test_too_many_embedding_inputs_fail_the_batch(rehearse):
    stage = rehearse(limits=Limits(openai_embedding_inputs=3))
    body = {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 2}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/embeddings", "body": body} for n in range(2)]

    assert failure(stage, lines, endpoint="/v1/embeddings") == [("too_many_tasks", None)]


def test_a_bad_body_fails_its_row_and_not_the_batch(calm, chats):
    good, bad = chats(2)
    bad["body"]["messages"] = []
    batch = calm.run([good, bad])
    rows = calm.both(batch)

    assert batch.status == "completed"
    assert rows["r0"]["response"]["status_code"] == 200
    assert rows["r1"]["response"]["status_code"] == 400
    assert rows["r1"]["response"]["body"]["error"]["param"] == "messages"


@pytest.mark.parametrize(
    "metadata", [{f"k{n}": "v" for n in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}], ids=str
)
def test_metadata_over_its_limits_is_refused_at_create(calm, chats, metadata):
    with pytest.raises(openai.BadRequestError):
        calm.create(chats(1), metadata=metadata)


def test_metadata_at_its_limits_comes_back(calm, chats):
    metadata = {"k" * 62 + f"{n:02}": "v" * 512 for n in range(16)}

    assert calm.create(chats(1), metadata=metadata).metadata == metadata


def test_files_for_another_purpose_or_of_nobody_make_no_batch(calm):
    file = calm.openai.files.create(file=("a.txt", b"a"), purpose="user_data")
    settings = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}

    with pytest.raises(openai.BadRequestError):
        calm.openai.batches.create(input_file_id=file.id, **settings)
    with pytest.raises(openai.NotFoundError):
        calm.openai.batches.create(input_file_id="file-none", **settings)


def test_uploads_over_the_limit_are_refused(rehearse):
    stage = rehearse(limits=Limits(openai_upload_bytes=1000))

    with pytest.raises(openai.APIStatusError) as refused:
        stage.openai.files.create(file=("a.jsonl", b"a" * 1001), purpose="batch")
    assert refused.value.status_code == 413
    assert stage.state()["files"] == 0


@pytest.mark.parametrize("custom_id", ["", "a b", "é", "a" * 65, "a.b"])
def test_anthropic_refuses_custom_ids_outside_its_pattern(calm, letters, custom_id):
    with pytest.raises(anthropic.BadRequestError, match="custom_id"):
        calm.create_messages([letters(1)[0] | {"custom_id": custom_id}])


def test_anthropic_refuses_repeated_custom_ids_and_empty_batches(calm, letters):
    with pytest.raises(anthropic.BadRequestError, match="unique"):
        calm.create_messages(letters(2) + letters(1))
    with pytest.raises(anthropic.BadRequestError, match="at least 1"):
        calm.create_messages([])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"requests": 1}', b'{"requests": [{"custom_id": "a"}]}'])
def test_anthropic_refuses_bodies_that_are_no_batch(calm, body):
    reply = calm.http.post("/v1/messages/batches", content=body)

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert calm.state()["batches"] == []


def test_anthropic_refuses_too_many_rows_and_too_many_bytes(rehearse, letters):
    stage = rehearse(limits=Limits(anthropic_rows=3, anthropic_body_bytes=2000))

    assert stage.create_messages(letters(3)).id
    with pytest.raises(anthropic.BadRequestError, match="at most 3"):
        stage.create_messages(letters(4))
    with pytest.raises(anthropic.APIStatusError) as refused:
        stage.create_messages(letters(1, system="x" * 3000))
    assert refused.value.status_code == 413
    assert refused.value.type == "request_too_large"


@pytest.mark.parametrize(
    "params", [{"max_tokens": 0}, {"stream": True}, {"speed": "fast"}, {"messages": []}, {"model": ""}], ids=str
)
def test_anthropic_checks_parameters_only_when_the_batch_runs(calm, letters, params):
    batch = calm.run_messages([{"custom_id": "bad", "params": letters(1)[0]["params"] | params}, *letters(1)])
    results = calm.results(batch)

    assert results["bad"].error.error.type == "invalid_request_error"
    assert results["r0"].type == "succeeded"


def test_anthropic_takes_several_models_in_one_batch(calm, letters):
    second = letters(2, model="claude-haiku-4-5")[1]
    results = calm.results(calm.run_messages([*letters(1), second]))

    assert [results[name].message.model for name in ("r0", "r1")] == ["claude-sonnet-4-6", "claude-haiku-4-5"]


def test_keys_of_one_workspace_share_batches_and_others_do_not_see_them(rehearse, chats, letters):
    accounts = (Account("sk-emulator"), Account("sk-same"), Account("sk-other", workspace="other"))
    stage = rehearse(accounts=accounts)
    batch, messages = stage.run(chats(1)), stage.run_messages(letters(1))
    same, other = stage.clients("sk-same"), stage.clients("sk-other")

    assert same[0].batches.retrieve(batch.id).id == batch.id
    assert same[0].files.content(batch.output_file_id).read()
    assert same[1].messages.batches.retrieve(messages.id).id == messages.id
    assert (other[0].batches.list().data, other[0].files.list().data) == ([], [])
    assert other[1].messages.batches.list().data == []
    for call, thing in (
        (other[0].batches.retrieve, batch.id),
        (other[0].batches.cancel, batch.id),
        (other[0].files.content, batch.output_file_id),
        (other[0].files.delete, batch.input_file_id),
    ):
        with pytest.raises(openai.NotFoundError):
            call(thing)
    with pytest.raises(anthropic.NotFoundError):
        other[1].messages.batches.retrieve(messages.id)


def test_one_vendors_batch_is_not_the_others(calm, chats, letters):
    batch, messages = calm.create(chats(1)), calm.create_messages(letters(1))

    with pytest.raises(openai.NotFoundError):
        calm.openai.batches.retrieve(messages.id)
    with pytest.raises(anthropic.NotFoundError):
        calm.anthropic.messages.batches.retrieve(batch.id)


def test_ids_of_a_restarted_emulator_do_not_repeat(rehearse, chats):
    assert rehearse(seed=1).create(chats(1)).id != rehearse(seed=1).create(chats(1)).id
    named = [rehearse(seed=1, instance="same").create(chats(1)).id for _ in range(2)]
    assert named[0] == named[1]


def test_endpoints_that_are_not_executed_fail_their_rows_and_say_so(calm):
    body = {"model": "omni-moderation-latest", "input": "hi"}
    line = {"custom_id": "r0", "method": "POST", "url": "/v1/moderations", "body": body}
    (row,) = calm.rows(calm.run([line], endpoint="/v1/moderations").error_file_id)

    assert "does not execute /v1/moderations" in row["response"]["body"]["error"]["message"]

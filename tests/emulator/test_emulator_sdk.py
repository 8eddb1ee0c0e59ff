"""The official SDKs read every body, strictly."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from openai.types import Batch, CreateEmbeddingResponse, FileDeleted, FileObject, Model
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

GPT, CLAUDE = "gpt-5-mini", "claude-sonnet-4-6"
HELLO: Any = [{"role": "user", "content": "hello"}]


def strictly(kind: Any, raw: Any) -> Any:
    """Read a body by the SDK's own type: nothing missing, nothing coerced, nothing the type does not know."""
    raw = raw() if callable(raw) else raw  # the two SDKs differ: a property there, a method here
    text = raw if isinstance(raw, str) else json.dumps(raw)
    read = kind.model_validate_json(text, strict=True)
    assert not read.model_extra, f"{kind.__name__} does not know {read.model_extra}"
    return read


def test_openai_real_time_calls_parse_strictly(calm):
    client = calm.openai.with_raw_response

    chat = client.chat.completions.create(model=GPT, messages=HELLO)
    assert strictly(ChatCompletion, chat.text).choices[0].message.content == "hello"
    response = client.responses.create(model=GPT, input="hello")
    assert strictly(Response, response.text).output[0].content[0].text == "hello"
    embedded = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float")
    assert [len(one.embedding) for one in strictly(CreateEmbeddingResponse, embedded.text).data] == [1536, 1536]
    assert strictly(Model, client.models.retrieve(GPT).text).id == GPT


def test_openai_vectors_are_the_same_packed_and_plain(calm):
    lenient, _ = calm.clients(
        "sk-emulator", _strict_response_validation=False
    )  # else the SDK trips over its own base64
    packed = lenient.embeddings.create(model="text-embedding-3-small", input="a", dimensions=8)
    plain = calm.openai.embeddings.create(
        model="text-embedding-3-small", input="a", dimensions=8, encoding_format="float"
    )

    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert sum(one * one for one in plain.data[0].embedding) == pytest.approx(1)


def test_openai_files_parse_strictly_and_come_back_byte_for_byte(calm):
    content = "{}\n\u2028é\r\n".encode()
    raw = calm.openai.with_raw_response.files.create(
        file=("näme.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    file = strictly(FileObject, raw.text)

    assert (file.bytes, file.filename, file.expires_at) == (len(content), "näme.jsonl", file.created_at + 3600)
    assert calm.openai.files.content(file.id).read() == content
    assert strictly(FileObject, calm.openai.with_raw_response.files.retrieve(file.id).text) == file
    assert [one.id for one in calm.openai.files.list(purpose="batch")] == [file.id]
    assert strictly(FileDeleted, calm.openai.with_raw_response.files.delete(file.id).text).deleted
    with pytest.raises(openai.NotFoundError):
        calm.openai.files.retrieve(file.id)


def test_openai_batch_parses_strictly_in_every_state(rehearse, chats):
    stage = rehearse(batch_seconds=1.0, validate_seconds=0.5)
    created = stage.create(chats(4), metadata={"run": "r1"})
    bodies, status = {}, ""
    while status != "completed":
        raw = stage.openai.with_raw_response.batches.retrieve(created.id).text
        status = strictly(Batch, raw).status
        bodies[status] = json.loads(raw)

    assert {"validating", "in_progress", "completed"} <= set(bodies)
    done = bodies["completed"]
    assert done["request_counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert (done["metadata"], done["model"]) == ({"run": "r1"}, GPT)
    assert done["created_at"] <= done["in_progress_at"] <= done["finalizing_at"] <= done["completed_at"]
    assert done["expires_at"] - done["created_at"] == 86_400


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        ("/v1/chat/completions", {"messages": HELLO}, ChatCompletion),
        ("/v1/responses", {"input": "hello", "instructions": "be brief"}, Response),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}, Response),
        ("/v1/embeddings", {"input": ["hello"], "dimensions": 4}, CreateEmbeddingResponse),
    ],
)
def test_openai_rows_carry_the_bodies_of_the_real_time_calls(calm, endpoint, body, kind):
    line = {"custom_id": "r0", "method": "POST", "url": endpoint, "body": {"model": GPT, **body}}
    batch = calm.run([line], endpoint=endpoint)
    (row,) = calm.rows(batch.output_file_id)

    assert set(row) == {"id", "custom_id", "response", "error"}
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    strictly(kind, row["response"]["body"])


def test_openai_usage_of_a_batch_is_the_sum_of_its_rows(calm, chats):
    batch = calm.run(chats(5))
    usages = [row["response"]["body"]["usage"] for row in calm.rows(batch.output_file_id)]

    assert batch.usage.input_tokens == sum(one["prompt_tokens"] for one in usages)
    assert batch.usage.output_tokens == sum(one["completion_tokens"] for one in usages)
    assert batch.usage.input_tokens_details.cached_tokens == 0


def test_openai_list_pages_through_all_batches_the_newest_first(calm, chats):
    made = [calm.create(chats(1)).id for _ in range(5)]

    assert [batch.id for batch in calm.openai.batches.list(limit=2)] == made[::-1]
    with pytest.raises(openai.NotFoundError):
        calm.openai.batches.list(after="batch_nobody")


def test_openai_cancel_keeps_partial_output(rehearse, chats):
    stage = rehearse(batch_seconds=4.0)
    created = stage.create(chats(40))
    while stage.openai.batches.retrieve(created.id).request_counts.completed < 5:
        pass
    assert stage.openai.batches.cancel(created.id).status == "cancelling"
    batch = stage.ended(created.id)
    done, rest = stage.rows(batch.output_file_id), stage.rows(batch.error_file_id)

    assert batch.status == "cancelled"
    assert len(done) >= 5
    assert len(done) + len(rest) == 40
    assert {row["error"]["code"] for row in rest} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError):
        stage.openai.batches.cancel(created.id)


def test_anthropic_real_time_calls_parse_strictly(calm):
    client = calm.anthropic.with_raw_response

    message = client.messages.create(model=CLAUDE, max_tokens=10, messages=HELLO, system="be brief")
    assert strictly(Message, message.text).content[0].text == "hello"
    counted = client.messages.count_tokens(model=CLAUDE, messages=HELLO)
    assert strictly(MessageTokensCount, counted.text).input_tokens == 2
    assert strictly(ModelInfo, client.models.retrieve(CLAUDE).text).id == CLAUDE
    assert [model.id for model in calm.anthropic.models.list()]


def test_anthropic_batch_parses_strictly_and_counts_only_at_its_end(rehearse, letters):
    stage = rehearse(batch_seconds=0.3)
    raw = stage.anthropic.with_raw_response.messages.batches.create(requests=letters(4))
    created = strictly(MessageBatch, raw.text)

    assert created.request_counts.model_dump() == {
        "processing": 4,
        "succeeded": 0,
        "errored": 0,
        "canceled": 0,
        "expired": 0,
    }
    assert created.results_url is None
    batch = stage.messages_ended(created.id)
    assert (batch.request_counts.processing, batch.request_counts.succeeded) == (0, 4)
    text = stage.http.get(batch.results_url).text
    rows = [strictly(MessageBatchIndividualResponse, line) for line in text.splitlines()]
    assert {row.result.message.usage.service_tier for row in rows} == {"batch"}
    assert set(stage.results(batch)) == {"r0", "r1", "r2", "r3"}


def test_anthropic_takes_a_streamed_body(calm, letters):
    requests = letters(3)
    pieces = [b'{"requests":\n [', b",\n".join(json.dumps(one, indent=1).encode() for one in requests), b"]}"]
    batch = calm.anthropic.post(
        "/v1/messages/batches",
        content=iter(pieces),
        cast_to=MessageBatch,
        options={"headers": {"content-type": "application/json"}},
    )

    assert set(calm.results(calm.messages_ended(batch.id))) == {"r0", "r1", "r2"}


def test_anthropic_list_pages_in_both_directions(calm, letters):
    made = [calm.create_messages(letters(1)).id for _ in range(5)]
    listing = calm.anthropic.messages.batches.list

    assert [batch.id for batch in listing(limit=2)] == made[::-1]
    before = listing(limit=2, before_id=made[0])
    assert [batch.id for batch in before.data] == [made[2], made[1]]
    assert before.has_more


def test_anthropic_cancel_ends_with_canceled_rows(rehearse, letters):
    stage = rehearse(batch_seconds=30)
    created = stage.create_messages(letters(4))
    canceling = stage.anthropic.messages.batches.cancel(created.id)
    batch = stage.messages_ended(created.id)

    assert (canceling.processing_status, batch.cancel_initiated_at) == ("canceling", canceling.cancel_initiated_at)
    assert batch.request_counts.canceled == 4
    assert {result.type for result in stage.results(batch).values()} == {"canceled"}


def test_anthropic_delete_waits_for_the_end(rehearse, letters):
    stage = rehearse(batch_seconds=1.5)
    created = stage.create_messages(letters(1))
    with pytest.raises(anthropic.BadRequestError):
        stage.anthropic.messages.batches.delete(created.id)
    stage.messages_ended(created.id)
    raw = stage.anthropic.with_raw_response.messages.batches.delete(created.id).text

    assert strictly(DeletedMessageBatch, raw).id == created.id
    with pytest.raises(anthropic.NotFoundError):
        stage.anthropic.messages.batches.retrieve(created.id)


def test_replies_carry_the_headers_that_name_the_account(rehearse):
    from nightbatch.emulator import Account

    stage = rehearse(accounts=(Account("sk-emulator", "org-a", "night"),))
    first = stage.openai.with_raw_response.models.list().headers
    second = stage.anthropic.with_raw_response.models.list().headers

    assert (first["openai-organization"], first["openai-project"]) == ("org-a", "night")
    assert int(first["openai-processing-ms"]) >= 0
    assert first["x-request-id"].startswith("req_")
    assert second["anthropic-organization-id"] == "org-a"
    assert second["request-id"].startswith("req_")

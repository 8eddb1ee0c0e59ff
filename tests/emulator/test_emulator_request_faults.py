"""What can go wrong with single requests and connections, each fault by its name."""

from __future__ import annotations

import time

import anthropic
import httpx
import httpx2
import openai
import pytest

CREATED_ANYWAY = [
    ("create_timeout_after_success=1, hang_seconds=0.3", openai.APIConnectionError, anthropic.APIConnectionError),
    ("create_reset_after_success=1", openai.APIConnectionError, anthropic.APIConnectionError),
    ("create_500_after_success=1", openai.InternalServerError, anthropic.InternalServerError),
    ("create_529_after_success=1", openai.InternalServerError, anthropic.InternalServerError),
]


@pytest.mark.parametrize(("faults", "openai_error", "anthropic_error"), CREATED_ANYWAY)
def test_create_succeeds_and_its_reply_never_comes(rehearse, chats, letters, faults, openai_error, anthropic_error):
    stage = rehearse(faults)
    with pytest.raises(openai_error):
        stage.create(chats(1), metadata={"shard": "s1"})
    stage.create(chats(1), metadata={"shard": "s2"})
    assert [batch.metadata for batch in stage.openai.batches.list()] == [{"shard": "s2"}, {"shard": "s1"}]

    other = rehearse(faults)
    with pytest.raises(anthropic_error):
        other.create_messages(letters(1))
    assert len(other.anthropic.messages.batches.list().data) == 1


def test_create_that_is_refused_does_not_use_up_the_fault(rehearse, chats):
    stage = rehearse("create_500_after_success=1")
    with pytest.raises(openai.NotFoundError):
        stage.openai.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(openai.InternalServerError):
        stage.create(chats(1))


def test_a_client_that_gives_up_first_has_a_batch_too(rehearse, chats):
    stage = rehearse("create_timeout_after_success=1, hang_seconds=5")
    hasty, _ = stage.clients("sk-emulator", timeout=0.3)
    with pytest.raises(openai.APITimeoutError):
        stage.create(chats(1), client=hasty)

    assert len(stage.openai.batches.list().data) == 1


@pytest.mark.parametrize("header", ["", "2"])
def test_http_429_comes_with_and_without_retry_after(rehearse, header):
    stage = rehearse("http_429=2" + (f", http_429_retry_after={header}" if header else ""))
    with pytest.raises(openai.RateLimitError) as first:
        stage.openai.batches.list()
    with pytest.raises(anthropic.RateLimitError) as second:
        stage.anthropic.messages.batches.list()

    assert first.value.response.headers.get("retry-after", "") == header
    assert second.value.response.headers.get("retry-after", "") == header
    assert stage.openai.batches.list().data == []


def test_http_5xx_storms_pass(rehearse, letters):
    stage = rehearse("http_5xx=3, http_5xx_status=502")
    for call in (stage.openai.batches.list, stage.openai.files.list):
        with pytest.raises(openai.InternalServerError):
            call()
    with pytest.raises(anthropic.InternalServerError):
        stage.create_messages(letters(1))

    assert stage.openai.batches.list().data == []
    assert stage.state()["creations"] == {}


def test_http_5xx_share_hits_some_requests(rehearse):
    stage = rehearse("http_5xx_share=0.5")
    statuses = [stage.http.get("/v1/batches").status_code for _ in range(40)]

    assert set(statuses) == {200, 503}


def test_http_401_refuses_a_good_key_for_a_while(rehearse):
    stage = rehearse("http_401=2")
    with pytest.raises(openai.AuthenticationError):
        stage.openai.batches.list()
    with pytest.raises(anthropic.AuthenticationError):
        stage.anthropic.messages.batches.list()
    assert stage.openai.batches.list().data == []


def test_wrong_keys_and_no_key_are_refused(calm):
    vendors = calm.clients("sk-wrong")

    with pytest.raises(openai.AuthenticationError) as refused:
        vendors[0].batches.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError):
        vendors[1].messages.batches.list()
    assert [httpx.get(calm.url + path).status_code for path in ("/v1/batches", "/emulator/state")] == [401, 401]


def test_credit_error_requests_are_invalid_requests_at_anthropic(rehearse, letters):
    stage = rehearse("credit_error_requests=1")

    with pytest.raises(anthropic.BadRequestError, match="credit balance is too low"):
        stage.create_messages(letters(1))
    assert stage.create_messages(letters(1)).id


@pytest.mark.parametrize("fault", ["reset=1", "hang=1, hang_seconds=0.2"])
def test_connections_that_break_have_done_nothing(rehearse, chats, fault):
    stage = rehearse(f"{fault}, on=create_batch")
    with pytest.raises(openai.APIConnectionError):
        stage.create(chats(1))

    assert stage.openai.batches.list().data == []
    assert stage.run(chats(1)).status == "completed"


def test_slow_drip_sends_the_whole_body_slowly(rehearse, chats):
    stage = rehearse()
    batch = stage.run(chats(3))
    whole = stage.openai.files.content(batch.output_file_id).read()
    stage.http.patch("/emulator/faults", json={"slow_drip": 1, "drip_bytes": 200, "drip_seconds": 0.05})
    began = time.monotonic()

    assert stage.openai.files.content(batch.output_file_id).read() == whole
    assert time.monotonic() - began >= 0.05 * (len(whole) // 200)


def test_garbled_bodies_are_not_json(rehearse):
    stage = rehearse("garbled=1, on=retrieve_batch+list_batches")
    reply = stage.http.get("/v1/batches")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    with pytest.raises(ValueError, match="Expecting"):
        reply.json()
    assert stage.http.get("/v1/batches").json()["data"] == []


def test_truncated_download_stops_half_way(rehearse, chats, letters):
    stage = rehearse("truncated_download=2")
    batch, messages = stage.run(chats(3000)), stage.run_messages(letters(3000))

    with pytest.raises(openai.APIConnectionError):
        stage.openai.files.content(batch.output_file_id).read()
    with pytest.raises(httpx2.RemoteProtocolError, match="peer closed"):
        stage.results(messages)
    assert len(stage.rows(batch.output_file_id)) == 3000
    assert len(stage.results(messages)) == 3000


def test_faults_can_be_asked_for_by_header_and_are_used_up_by_workspace(calm):
    spoilt, _ = calm.clients("sk-emulator", "http_429=2, on=list_batches")

    for _ in range(2):
        with pytest.raises(openai.RateLimitError):
            spoilt.batches.list()
    assert spoilt.batches.list().data == []
    assert calm.openai.batches.list().data == []


def test_unknown_faults_in_a_header_are_refused_by_name(calm):
    spoilt, _ = calm.clients("sk-emulator", "htpp_429=2")

    with pytest.raises(openai.BadRequestError, match="no such fault: htpp_429"):
        spoilt.batches.list()


def test_http_404_hides_what_is_there_and_nothing_else(rehearse, chats):
    stage = rehearse("http_404=1, on=retrieve_batch")
    batch = stage.create(chats(1))
    with pytest.raises(openai.NotFoundError):
        stage.openai.batches.retrieve(batch.id)

    assert stage.openai.batches.retrieve(batch.id).id == batch.id


def test_a_login_page_comes_with_a_good_status_and_makes_nothing(rehearse, chats):
    stage = rehearse("login_page=1, on=create_batch")
    headers = {"authorization": "Bearer sk-emulator"}
    reply = httpx.post(f"{stage.url}/v1/batches", headers=headers, json={})

    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/html")
    assert "openai-organization" not in reply.headers
    assert stage.openai.batches.list().data == []


def test_a_garbled_download_has_its_length_and_no_whole_line(rehearse, chats):
    stage = rehearse("garbled_download=1")
    batch = stage.run(chats(1))
    garbled, good = (stage.openai.files.content(batch.output_file_id).read() for _ in range(2))

    assert len(garbled) == len(good)
    assert garbled.endswith(b"<<")
    assert good.endswith(b"}\n")

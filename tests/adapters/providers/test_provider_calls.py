"""The last mile to a vendor: where a connection points, what a refusal means, and what may be said of it."""

from __future__ import annotations

import io
import socket
from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from nightbatch.adapters.providers import anthropic_refusals, openai_refusals
from nightbatch.adapters.providers.anthropic import AnthropicProvider
from nightbatch.adapters.providers.anthropic_batches import Batch as AnthropicBatch
from nightbatch.adapters.providers.anthropic_batches import Counts
from nightbatch.adapters.providers.anthropic_batches import state_of as anthropic_state
from nightbatch.adapters.providers.calls import read_refusal, retry_after_s
from nightbatch.adapters.providers.openai import OpenAIProvider
from nightbatch.adapters.providers.openai_batches import Batch, state_of
from nightbatch.adapters.providers.refusal import Purpose, Refusal
from nightbatch.adapters.providers.upload_stream import UploadStream
from nightbatch.adapters.providers.wire import base_url, chunked, short_text
from nightbatch.core.batch import BatchStatus
from nightbatch.errors import AccountTrouble, ConnectionInvalid, ProviderBusy, QueueFull, RequestRefused
from nightbatch.ports import Connection

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "https://default"),
        ({"host": "http://127.0.0.1:80/v1"}, "http://127.0.0.1:80/v1"),
        ({"host": "http://127.0.0.1", "port": 80, "schema": "v1"}, "http://127.0.0.1:80/v1"),
        ({"host": "api.example.com/v1/"}, "https://api.example.com/v1"),
        ({"host": "localhost", "port": 8080}, "http://localhost:8080"),
        ({"host": "example.com", "schema": "http"}, "http://example.com"),
        ({"host": "h", "extra": {"base_url": "https://a/v1"}}, "https://a/v1"),
        ({"host": "h", "extra": {"kwargs": {"base_url": "https://b/v1"}}}, "https://b/v1"),
    ],
)
def test_a_connection_points_where_airflow_users_expect(fields, expected):
    connection = Connection("c", "openai", **fields)

    assert base_url(connection, client_kwargs="kwargs", default="https://default") == expected


@pytest.mark.parametrize("provider", [OpenAIProvider, AnthropicProvider])
def test_a_connection_without_a_key_names_the_variable(provider):
    with pytest.raises(ConnectionInvalid, match=f"{provider.name.upper()}_API_KEY"):
        provider(Connection("c", provider.name), request_timeout_s=1)


@pytest.mark.parametrize("provider", [OpenAIProvider, AnthropicProvider])
def test_a_connection_of_another_type_is_refused_before_its_password_goes_anywhere(provider):
    with pytest.raises(ConnectionInvalid, match=f"it is of type postgres, and {provider.name} is needed"):
        provider(Connection("warehouse", "postgres", host="db", password="secret"), request_timeout_s=1)


@pytest.mark.parametrize("provider", [OpenAIProvider, AnthropicProvider])
def test_a_vendor_that_is_not_there_is_named_with_its_address_and_connection_and_without_secrets(provider):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connection = Connection(
        "mine", provider.name, password="k", host=f"http://me:secret@127.0.0.1:{port}/v1?key=secret"
    )

    with pytest.raises(ProviderBusy) as caught:
        provider(connection, request_timeout_s=5).account()

    where = f"no connection to http://127.0.0.1:{port} (connection mine): is it up? Nothing is lost"
    assert where in str(caught.value)
    assert "secret" not in str(caught.value)


def test_links_lead_to_the_vendors_own_pages():
    openai = OpenAIProvider(Connection("c", "openai", password="k"), request_timeout_s=1)
    anthropic = AnthropicProvider(
        Connection("c", "anthropic", password="k", extra={"workspace_id": "w1"}), request_timeout_s=1
    )

    assert openai.batch_url("batch_1") == "https://platform.openai.com/batches/batch_1"
    assert anthropic.batch_url("msgbatch_1") == "https://platform.claude.com/workspaces/w1/batches"


@pytest.mark.parametrize(
    ("refusal", "purpose", "error"),
    [
        (Refusal(400, "token_limit_exceeded"), Purpose.CREATE, QueueFull),
        (Refusal(429, "rate_limit_exceeded"), Purpose.CREATE, ProviderBusy),
        (Refusal(429, "insufficient_quota"), Purpose.CREATE, AccountTrouble),
        (Refusal(402, "http_402"), Purpose.CREATE, AccountTrouble),
        (Refusal(401, "invalid_api_key"), Purpose.READ, AccountTrouble),
        (Refusal(403, "http_403"), Purpose.READ, AccountTrouble),
        (Refusal(409, "http_409"), Purpose.CREATE, ProviderBusy),
        (Refusal(413, "http_413"), Purpose.SEND, RequestRefused),
        (Refusal(400, "invalid_request_error"), Purpose.READ, ProviderBusy),
        (Refusal(307, "http_307"), Purpose.CREATE, RequestRefused),
    ],
)
def test_what_an_openai_refusal_means(refusal, purpose, error):
    assert type(openai_refusals.classify(refusal, "testing", purpose)) is error


@pytest.mark.parametrize(
    ("refusal", "purpose", "error"),
    [
        (Refusal(400, "invalid_request_error", "Your credit balance is too low to"), Purpose.CREATE, AccountTrouble),
        (Refusal(400, "invalid_request_error", "requests.0: bad"), Purpose.CREATE, RequestRefused),
        (Refusal(400, "invalid_request_error", "", "organization_on_hold"), Purpose.CREATE, AccountTrouble),
        (Refusal(413, "request_too_large"), Purpose.CREATE, RequestRefused),
        (Refusal(429, "rate_limit_error", "too fast"), Purpose.CREATE, ProviderBusy),
        (Refusal(429, "rate_limit_error", "in the Message Batches processing queue"), Purpose.CREATE, QueueFull),
        (Refusal(403, "permission_error"), Purpose.READ, AccountTrouble),
        (Refusal(529, "overloaded_error"), Purpose.SEND, ProviderBusy),
        (Refusal(400, "invalid_request_error"), Purpose.READ, ProviderBusy),
    ],
)
def test_what_an_anthropic_refusal_means(refusal, purpose, error):
    assert type(anthropic_refusals.classify(refusal, "testing", purpose)) is error


def test_a_refusal_without_json_leaves_its_status():
    assert read_refusal(httpx2.Response(502, text="<html>bad gateway</html>")).code == "http_502"
    assert read_refusal(httpx2.Response(400, json={"error": "no"})).message == "no"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sun, 22 Nov 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_a_wait_is_read_in_every_form(headers, expected):
    assert retry_after_s(headers, now=NOW) == expected


def test_a_quoted_message_is_short_printable_and_without_keys():
    message = "Incorrect API key provided: sk-proj-abc**\n\x1b[31mred\u2028" + "x" * 500

    told = short_text(message)

    assert "abc" not in told
    assert len(told) == 200
    assert told.isprintable()


def test_a_full_queue_is_told_apart_from_a_batch_with_answers():
    errors = {"data": [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m."}]}
    failed = {"id": "b", "status": "failed", "created_at": 1, "errors": errors}

    refused = state_of(_openai(failed))
    answered = state_of(_openai({**failed, "output_file_id": "file-1"}))

    assert (refused.status, refused.queue_full, answered.queue_full) == (BatchStatus.ENDED, True, False)
    assert refused.problem == "token_limit_exceeded: Enqueued token limit reached for m."


def test_a_problem_with_a_line_does_not_quote_it():
    errors = {"data": [{"code": "invalid_json_line", "line": 3, "message": "Dear diary"}] * 2}

    state = state_of(_openai({"id": "b", "status": "failed", "created_at": 1, "errors": errors}))

    assert state.problem == "invalid_json_line (line 3); 2 errors in all"


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_file_id_that_is_null_or_empty_is_no_file(nothing):
    batch = {"id": "b", "status": "completed", "created_at": 1, "output_file_id": nothing, "error_file_id": "f"}

    assert state_of(_openai(batch)).result_files == ("error:f",)


def test_an_ended_batch_without_its_results_is_not_read_yet():
    """Read now, every row would be missing, and would be sent and paid again."""
    counts = Counts(processing=0, succeeded=1, errored=0, canceled=0, expired=0)
    batch = AnthropicBatch("b", "ended", counts, created_at=NOW)

    assert anthropic_state(batch).status is BatchStatus.RUNNING
    batch.archived_at = NOW + timedelta(days=29)
    assert (anthropic_state(batch).status, "archived" in anthropic_state(batch).problem) == (BatchStatus.ENDED, True)


def test_an_upload_can_be_read_once_and_knows_its_length():
    stream = UploadStream(iter([b"ab", b"", b"cdef"]), size_bytes=6)

    assert (stream.seek(0, io.SEEK_END), stream.seek(0)) == (6, 0)
    assert list(iter(lambda: stream.read(4), b"")) == [b"ab", b"cdef"]
    with pytest.raises(io.UnsupportedOperation):
        stream.seek(0)


def test_small_pieces_are_gathered_and_none_is_lost():
    pieces = [b"x" * n for n in range(50)]

    chunks = list(chunked(pieces, size_bytes=100))

    assert b"".join(chunks) == b"".join(pieces)
    assert all(len(chunk) >= 100 for chunk in chunks[:-1])


def _openai(fields: dict[str, object]) -> Batch:
    import msgspec

    return msgspec.convert(fields, Batch)

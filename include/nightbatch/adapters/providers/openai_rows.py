"""Reads one row of an OpenAI result file, or one real-time answer, into our words."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import orjson

from nightbatch.adapters.providers.wire import mended_json, short_code
from nightbatch.core.money import Usage
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result

UNRUN = {
    "batch_expired": Outcome.EXPIRED,
    "batch_cancelled": Outcome.CANCELLED,
}
"""Top-level codes of rows that never ran. Source: platform.openai.com/docs/guides/batch, copy of 2026."""

ACCOUNT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "account_deactivated",
        "invalid_api_key",
        "invalid_organization",
        "unsupported_country_region_territory",
    }
)
"""Codes that speak of the account, whatever their HTTP status. Seen in the vendor's error guide and in reports."""

FINISH = {
    "stop": Finish.DONE,
    "tool_calls": Finish.DONE,
    "function_call": Finish.DONE,
    "length": Finish.TRUNCATED,
    "content_filter": Finish.REFUSED,
}
"""Every `finish_reason` of a chat completion. Source: openai 3.54.0, `types.chat.chat_completion.Choice`."""

INCOMPLETE = {
    "max_output_tokens": Finish.TRUNCATED,
    "max_messages": Finish.TRUNCATED,
    "steered": Finish.TRUNCATED,
    "content_filter": Finish.REFUSED,
}
"""Every reason of an incomplete response. Source: openai 3.54.0, `types.responses.response.IncompleteDetails`."""

_ANSWERED, _DONE = Outcome.ANSWERED, Finish.DONE
"""For what is done for every row: to find an enum's member takes longer than to find a name of this module."""

_TRANSIENT_STATUSES = frozenset({0, 408, 409, 425, 429, 499})
_ACCOUNT_STATUSES = frozenset({401, 402, 403})
_TRANSIENT_CODES = frozenset(
    {"request_timeout", "server_error", "rate_limit_exceeded", "vector_store_timeout", "failed_to_download_image"}
)
_UNANSWERED_STATUSES = frozenset({"failed", "cancelled", "queued", "in_progress"})
_ACCOUNT_OPENINGS = ("you exceeded your current quota", "your credit balance", "billing hard limit")
"""How messages about money begin. Only the beginning counts: what follows in other messages may quote a prompt."""


class _Error(msgspec.Struct, gc=False):
    code: Any = None
    type: Any = None
    message: Any = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


_NO_DETAILS = _Details()


class Billed(msgspec.Struct, gc=False):
    """What was used, in the words of every endpoint and of the batch object."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Message(msgspec.Struct, gc=False):
    content: str | list[_Part] | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    finish_reason: str | None = None


class _Item(msgspec.Struct, gc=False):
    type: str = ""
    content: list[_Part] | None = None


class _Vector(msgspec.Struct, gc=False):
    embedding: msgspec.Raw


class _Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class _Body(msgspec.Struct, gc=False):
    """The bodies of a chat completion, a response, embeddings and an error, laid over each other."""

    model: str = ""
    usage: Billed | None = None
    error: _Error | str | None = None
    choices: list[_Choice] | None = None
    output: list[_Item] | None = None
    data: list[_Vector] | None = None
    status: str | None = None
    incomplete_details: _Incomplete | None = None


class _Response(msgspec.Struct, gc=False):
    status_code: int = 0
    body: _Body | None = None


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


class _Name(msgspec.Struct, gc=False):
    custom_id: str


_row = msgspec.json.Decoder(_Row).decode
_name = msgspec.json.Decoder(_Name).decode
_body = msgspec.json.Decoder(_Body).decode


def parse_row(line: bytes) -> Result:
    """
    Read one line. Raises ValueError for a line that names no row.

    A line that names its row but has a shape nobody described is an error of that row alone, to be sent again.
    """
    try:
        row = _decode(line)
    except msgspec.ValidationError:
        return _errored(_name(line).custom_id, ErrorKind.TRANSIENT, "unreadable_result")
    if row.response is None or (row.response.body is None and row.error is not None):
        return _unanswered(row.custom_id, row.error)
    try:
        return _responded(row.custom_id, row.response.status_code, row.response.body or _Body())
    except (ValueError, struct.error):
        return _errored(row.custom_id, ErrorKind.TRANSIENT, "unreadable_result")


def parse_answer(content: bytes) -> Result:
    """Read a real-time answer of status 200. Raises ValueError where it is none."""
    return _responded("", 200, _body(content))


def error_kind(status: int, code: str, message: str) -> ErrorKind:
    """Say what an error asks for, from its HTTP status (0 where there was none), code and message."""
    if code in ACCOUNT_CODES or message.lower().startswith(_ACCOUNT_OPENINGS):
        return ErrorKind.ACCOUNT
    if status in _ACCOUNT_STATUSES:
        return ErrorKind.ACCOUNT
    if status in _TRANSIENT_STATUSES or status >= 500 or code in _TRANSIENT_CODES:
        return ErrorKind.TRANSIENT
    return ErrorKind.PERMANENT


def _decode(line: bytes) -> _Row:
    try:
        return _row(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _row(mended_json(line))


def _unanswered(custom_id: str, error: _Error | None) -> Result:
    """Read a row that has only a top-level error: it never ran, or its own call broke."""
    if error is None:
        return _errored(custom_id, ErrorKind.TRANSIENT, "no_response")
    if error.code in UNRUN:
        return Result(custom_id, UNRUN[error.code], error_code=error.code)
    # Some compatible servers put the HTTP status here, as text.
    digits = str(error.code)
    status = int(digits) if digits.isdecimal() and len(digits) == 3 else 0
    code = short_code(error.code, short_code(error.type, f"http_{status}" if status else "unknown_error"))
    return _errored(custom_id, error_kind(status, code, str(error.message or "")), code)


def _responded(custom_id: str, status: int, body: _Body) -> Result:
    error = _Error(message=body.error) if isinstance(body.error, str) else body.error
    if error is not None or not 200 <= status < 300:
        return _failed(custom_id, status, error or _Error(), body)
    if body.choices is not None:
        text, finish = _chat(body.choices)
    elif body.output is not None or body.status is not None:
        if body.status in _UNANSWERED_STATUSES:
            return _errored(custom_id, ErrorKind.TRANSIENT, f"response_{body.status}", body)
        text, finish = _response(body)
    elif body.data is not None:
        text, finish = _embedding(body.data), Finish.DONE
    else:
        return _errored(custom_id, ErrorKind.TRANSIENT, "empty_body", body)
    return Result(custom_id, _ANSWERED, text, finish, None, "", usage_of(body.usage), body.model)


def _failed(custom_id: str, status: int, error: _Error, body: _Body) -> Result:
    default = "status_0" if status == 0 else f"http_{status}"
    code = short_code(error.code, short_code(error.type, default))
    # A failed response comes with status 200; only its code tells.
    kind_status = 400 if 200 <= status < 300 else status
    return _errored(custom_id, error_kind(kind_status, code, str(error.message or "")), code, body)


def _errored(custom_id: str, kind: ErrorKind, code: str, body: _Body | None = None) -> Result:
    usage = usage_of(body.usage) if body else Usage()
    return Result(
        custom_id, Outcome.ERRORED, error_kind=kind, error_code=code, usage=usage, model=body.model if body else ""
    )


def _chat(choices: list[_Choice]) -> tuple[str | None, Finish]:
    if not choices or choices[0].message is None:
        return None, _DONE
    message, finish = choices[0].message, FINISH.get(choices[0].finish_reason or "", _DONE)
    if message.refusal:
        return message.refusal, Finish.REFUSED
    if isinstance(message.content, list):
        return _joined(message.content), finish
    return message.content, finish


def _response(body: _Body) -> tuple[str | None, Finish]:
    parts = [part for item in body.output or () if item.type == "message" for part in item.content or ()]
    refusals = [part.refusal for part in parts if part.refusal]
    if refusals:
        return "".join(refusals), Finish.REFUSED
    finish = Finish.DONE
    if body.status == "incomplete":
        reason = body.incomplete_details.reason if body.incomplete_details else None
        # An unknown reason still means that the answer is not whole.
        finish = INCOMPLETE.get(reason or "", Finish.TRUNCATED)
    return _joined(parts), finish


def _joined(parts: list[_Part]) -> str | None:
    texts = [part.text for part in parts if part.text is not None]
    return "".join(texts) if texts else None


def _embedding(data: list[_Vector]) -> str | None:
    if not data:
        return None
    raw = bytes(data[0].embedding).strip()
    if not raw.startswith(b'"'):
        return raw.decode()
    packed = base64.b64decode(orjson.loads(raw), validate=True)
    return orjson.dumps(struct.unpack(f"<{len(packed) // 4}f", packed)).decode()


def usage_of(usage: Billed | None) -> Usage:
    """Put what was used into our words; the parts are never more than the whole."""
    if usage is None:
        return Usage()
    read = usage.input_tokens_details or usage.prompt_tokens_details or _NO_DETAILS
    told = usage.output_tokens_details or usage.completion_tokens_details or _NO_DETAILS
    total = usage.input_tokens or usage.prompt_tokens or 0
    cached, written = read.cached_tokens or 0, read.cache_write_tokens or 0
    if cached or written or total < 0:
        cached = min(cached, total)
        written = min(written, total - cached)
    output = usage.output_tokens or usage.completion_tokens or 0
    # By place: by name it takes more than twice as long.
    return Usage(total, cached, written, output, told.reasoning_tokens or 0)

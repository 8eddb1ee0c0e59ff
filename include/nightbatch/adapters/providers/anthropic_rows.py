"""Reads one row of an Anthropic result file, or one real-time answer, into our words."""

from __future__ import annotations

import msgspec

from nightbatch.adapters.providers.wire import mended_json, short_code
from nightbatch.core.money import Usage
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result

FINISH = {
    "end_turn": Finish.DONE,
    "stop_sequence": Finish.DONE,
    "tool_use": Finish.DONE,
    "max_tokens": Finish.TRUNCATED,
    "model_context_window_exceeded": Finish.TRUNCATED,
    "refusal": Finish.REFUSED,
    "pause_turn": Finish.PAUSED,
}
"""Every stop reason. Source: anthropic 2.12.0, `types.stop_reason`; a test compares."""

KIND = {
    "invalid_request_error": ErrorKind.PERMANENT,
    "not_found_error": ErrorKind.PERMANENT,
    "memory_precondition_failed_error": ErrorKind.PERMANENT,
    "memory_path_conflict_error": ErrorKind.PERMANENT,
    "authentication_error": ErrorKind.ACCOUNT,
    "billing_error": ErrorKind.ACCOUNT,
    "permission_error": ErrorKind.ACCOUNT,
    "rate_limit_error": ErrorKind.TRANSIENT,
    "timeout_error": ErrorKind.TRANSIENT,
    "api_error": ErrorKind.TRANSIENT,
    "overloaded_error": ErrorKind.TRANSIENT,
    "conflict_error": ErrorKind.TRANSIENT,
}
"""Every type of error. Source: anthropic 2.12.0, `types.shared.error_type`; a test compares."""

ACCOUNT_CODES = frozenset(
    {
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
        "organization_type_not_supported",
        "cmek_key_disabled",
        "claude_code_key_creator_not_member",
    }
)
"""Codes in `error.details.error_code` that speak of the account. Source: anthropic 2.12.0, `types.shared`."""

_ACCOUNT_OPENINGS = ("your credit balance is too low", "you have reached your specified")
"""How messages about money begin. Only the beginning counts: what follows in other messages may quote a prompt."""

_UNRUN = {"expired": Outcome.EXPIRED, "canceled": Outcome.CANCELLED}


class _Details(msgspec.Struct, gc=False):
    error_code: str | None = None


class _Error(msgspec.Struct, gc=False):
    type: str = ""
    message: str = ""
    details: _Details | None = None


class _Envelope(msgspec.Struct, gc=False):
    """What stands under `result.error`: its own type is the word "error"; the error is one level deeper."""

    type: str = ""
    error: _Error | None = None
    message: str = ""


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None


class _OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    input_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int = 0
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct, gc=False):
    content: list[_Block]
    model: str = ""
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Result(msgspec.Struct, gc=False):
    type: str
    message: _Message | None = None
    error: _Envelope | None = None


class _Row(msgspec.Struct, gc=False):
    custom_id: str
    result: _Result


class _Name(msgspec.Struct, gc=False):
    custom_id: str


_row = msgspec.json.Decoder(_Row).decode
_name = msgspec.json.Decoder(_Name).decode
_message = msgspec.json.Decoder(_Message).decode


def parse_row(line: bytes) -> Result:
    """
    Read one line. Raises ValueError for a line that names no row.

    A line that names its row but has a shape nobody described is an error of that row alone, to be sent again.
    """
    try:
        row = _decode(line)
    except msgspec.ValidationError:
        return Result(
            _name(line).custom_id,
            Outcome.ERRORED,
            error_kind=ErrorKind.TRANSIENT,
            error_code="unreadable_result",
        )
    result = row.result
    if result.type == "succeeded" and result.message is not None:
        return _answered(row.custom_id, result.message)
    if result.type in _UNRUN:
        return Result(row.custom_id, _UNRUN[result.type])
    kind, code = _error(result)
    return Result(row.custom_id, Outcome.ERRORED, error_kind=kind, error_code=code)


def parse_answer(content: bytes) -> Result:
    """Read a real-time answer of status 200. Raises ValueError where it is none."""
    return _answered("", _message(content))


def error_kind(type_: str, message: str, details_code: str = "") -> ErrorKind:
    """Say what an error asks for. Want of credit comes as `invalid_request_error`, so the message decides there."""
    if details_code in ACCOUNT_CODES or message.lower().startswith(_ACCOUNT_OPENINGS):
        return ErrorKind.ACCOUNT
    return KIND.get(type_, ErrorKind.TRANSIENT)


def _decode(line: bytes) -> _Row:
    try:
        return _row(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _row(mended_json(line))


def _error(result: _Result) -> tuple[ErrorKind, str]:
    if result.type != "errored" or result.error is None:
        return ErrorKind.TRANSIENT, short_code(f"unknown_result:{result.type}", "unknown_result")
    envelope = result.error
    error = envelope.error or _Error(envelope.type, envelope.message)
    details_code = short_code(error.details.error_code, "") if error.details else ""
    kind = error_kind(error.type, error.message, details_code)
    if kind is ErrorKind.ACCOUNT and error.type == "invalid_request_error":
        return kind, details_code or "credit_balance_too_low"
    return kind, details_code or short_code(error.type, "unknown_error")


def _answered(custom_id: str, message: _Message) -> Result:
    texts = [block.text for block in message.content if block.type == "text" and block.text is not None]
    finish = FINISH.get(message.stop_reason or "", Finish.DONE)
    text = "".join(texts) if texts else None
    return Result(custom_id, Outcome.ANSWERED, text, finish, usage=_usage(message.usage), model=message.model)


def _usage(usage: _Usage | None) -> Usage:
    """Add up all input: the vendor's `input_tokens` leaves out what was read from or written to the cache."""
    if usage is None:
        return Usage()
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    details = usage.output_tokens_details or _OutputDetails()
    return Usage(
        input_tokens=usage.input_tokens + cached + written,
        cached_tokens=cached,
        cache_write_tokens=written,
        output_tokens=usage.output_tokens,
        reasoning_tokens=details.thinking_tokens or 0,
    )

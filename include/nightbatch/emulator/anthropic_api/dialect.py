"""Requests of a message batch as they arrive, and the lines of its results."""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson

from nightbatch.emulator.answers import ANSWERED, EXOTIC, Answer, Kind, Problem
from nightbatch.emulator.anthropic_api.bodies import TYPES, error_body, message_body
from nightbatch.emulator.asks import Ask, BadRequest, Json, read_anthropic, tokens
from nightbatch.emulator.dice import digest
from nightbatch.emulator.rows import Row

CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""What a custom_id may be. Source: platform.claude.com, Message Batches, copy of 2026-09-20."""

_NOT_IN_BATCHES = ("stream", "speed", "store", "previous_thread_event_id", "cache_hint", "context_hint")
"""Parameters that a batch does not take. Source: platform.claude.com, batch processing, copy of 2026-09-20."""


class BadBatch(Exception):
    """The body of a create call is not a batch; the message says what the vendor would answer."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: str
    params: msgspec.Raw


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[_Request]


@dataclass(slots=True)
class Arrived:
    """What a create call brought."""

    rows: int = 0
    first_custom_id: str = ""
    models: list[str] = field(default_factory=list)
    input_tokens: int = 0


def take_apart(body: Path, lines: Path, max_rows: int) -> Arrived:
    """Turn the body of a create call into JSON Lines, one request each. Blocking: for a thread.

    The body is mapped into memory, not read: only the places of its requests are held.

    Raises:
        BadBatch: The body is not JSON, not a batch, has too many requests, or a custom_id that is bad or repeated.
    """
    arrived, seen = Arrived(), set[str]()
    with body.open("rb") as file, lines.open("wb") as out:
        for request in _requests(file.fileno(), max_rows):
            _check_custom_id(request.custom_id, arrived.rows, seen)
            params = orjson.loads(bytes(request.params))
            _learn(arrived, params)
            out.write(orjson.dumps({"custom_id": request.custom_id, "params": params}) + b"\n")
            arrived.rows += 1
            arrived.first_custom_id = arrived.first_custom_id or request.custom_id
    return arrived


def _requests(descriptor: int, max_rows: int) -> list[_Request]:
    try:
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        found = msgspec.json.decode(mapped, type=_Body).requests
    except (ValueError, msgspec.DecodeError) as error:
        raise BadBatch(f"The request body is not valid: {error}") from error
    if not found:
        raise BadBatch("requests: List should have at least 1 item after validation, not 0")
    if len(found) > max_rows:
        raise BadBatch(f"requests: List should have at most {max_rows} items after validation, not {len(found)}")
    return found


def _check_custom_id(custom_id: str, index: int, seen: set[str]) -> None:
    if not CUSTOM_ID.fullmatch(custom_id):
        pattern = "^[a-zA-Z0-9_-]{1,64}$"
        raise BadBatch(f"requests.{index}.custom_id: String should match pattern '{pattern}'")
    if custom_id in seen:
        raise BadBatch(f"requests: custom_id must be unique, found duplicate: {custom_id}")
    seen.add(custom_id)


def _learn(arrived: Arrived, params: object) -> None:
    """Note the models and the rough number of tokens, before anything is checked."""
    model = params.get("model") if isinstance(params, dict) else None
    if isinstance(model, str) and model not in arrived.models:
        arrived.models.append(model)
    arrived.input_tokens += tokens(str(params.get("messages", ""))) if isinstance(params, dict) else 0


@dataclass(frozen=True, slots=True)
class AnthropicDialect:
    """Reads the requests and writes the results of one batch."""

    batch_id: str

    def read(self, line: bytes) -> tuple[str, Callable[[], Ask]]:
        """Return a request's custom_id, and what reads its parameters."""
        request = orjson.loads(line)
        return request["custom_id"], lambda: _in_batch(request["params"])

    def problem(self, error: BadRequest) -> Problem:
        """Word parameters that a message does not take."""
        return Problem(error.status, TYPES.get(error.status, "invalid_request_error"), error.message)

    def write(self, row: Row, answer: Answer) -> tuple[str, bytes]:
        """Write a result; there is one file for all."""
        return "results", orjson.dumps({"custom_id": row.custom_id, "result": self._result(row, answer)})

    def _result(self, row: Row, answer: Answer) -> Json:
        if answer.kind is Kind.EXPIRED:
            return {"type": "expired"}
        if answer.kind is Kind.CANCELLED:
            return {"type": "canceled"}
        if answer.kind in ANSWERED and row.ask is not None:
            key = digest(self.batch_id, row.custom_id, size=12).hex() + (EXOTIC if answer.exotic else "")
            return {"type": "succeeded", "message": message_body(row.ask, answer, key=key, tier="batch")}
        return {"type": "errored", "error": error_body(answer.problem or Problem(500, "api_error", "unknown"), None)}


def _in_batch(params: object) -> Ask:
    """Read a message's parameters, and refuse those that only real-time calls take."""
    if isinstance(params, dict):
        for name in _NOT_IN_BATCHES:
            if params.get(name):
                raise BadRequest(f"{name}: Extra inputs are not permitted in a batch")
    return read_anthropic(params)

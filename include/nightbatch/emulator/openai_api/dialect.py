"""Lines of OpenAI's batch files: checked when the batch is validated, read and written when it is executed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from nightbatch.emulator.answers import ANSWERED, EXOTIC, Answer, Kind, Problem
from nightbatch.emulator.asks import Ask, BadRequest, Json, embedding_inputs, read_openai
from nightbatch.emulator.dice import digest
from nightbatch.emulator.faults import Faults
from nightbatch.emulator.openai_api.bodies import answer_body, error_body
from nightbatch.emulator.rows import Row
from nightbatch.emulator.settings import Limits

MAX_ERRORS = 50
"""Problems of one file that are reported; the vendor's number is not published."""

_TOP_LEVEL = frozenset({Kind.EXPIRED, Kind.CANCELLED})
"""Rows that never ran: their error stands beside a null response. Source: OpenAI's batch guide."""


@dataclass(frozen=True, slots=True)
class OpenAIDialect:
    """Reads and writes the lines of one batch."""

    batch_id: str
    endpoint: str
    created_at: float
    faults: Faults

    def read(self, line: bytes) -> tuple[str, Callable[[], Ask]]:
        """Return a validated line's custom_id, and what reads its body."""
        request = orjson.loads(line)
        return request["custom_id"], lambda: read_openai(self.endpoint, request["body"])

    def problem(self, error: BadRequest) -> Problem:
        """Word a body that the endpoint does not take."""
        return bad_request(error)

    def write(self, row: Row, answer: Answer) -> tuple[str, bytes]:
        """Write a result; good ones go to `output`, others to `error`."""
        key = digest(self.batch_id, row.index, row.custom_id, size=16).hex()
        good = answer.kind in ANSWERED
        line = {"id": f"batch_req_{key}", "custom_id": row.custom_id, **self._ending(row, answer, key)}
        return "output" if good or self.faults.errors_in_output else "error", orjson.dumps(line)

    def _ending(self, row: Row, answer: Answer, key: str) -> Json:
        if answer.kind in ANSWERED and row.ask is not None:
            request_id = f"req_{key}{EXOTIC if answer.exotic else ''}"
            body = answer_body(row.ask, answer, key=key, created=self.created_at)
            return {"response": {"status_code": 200, "request_id": request_id, "body": body}, "error": None}
        if answer.kind is Kind.STATUS_ZERO:
            return {"response": {"status_code": 0, "request_id": "", "body": {}}, "error": None}
        problem = answer.problem or Problem(500, "server_error", "unknown error")
        top = {"code": problem.code or str(problem.status), "message": problem.message}
        if answer.kind in _TOP_LEVEL or self.faults.error_place == "top":
            return {"response": None, "error": top}
        body = error_body(problem)
        return {"response": {"status_code": problem.status, "request_id": f"req_{key}", "body": body}, "error": None}


def bad_request(error: BadRequest) -> Problem:
    """Word a body that the endpoint does not take."""
    return Problem(error.status, "invalid_request_error", error.message, error.code, error.param)


@dataclass(slots=True)
class Checked:
    """What validation found in a batch's file."""

    rows: int = 0
    models: list[str] = field(default_factory=list)
    input_tokens: int = 0
    embedding_inputs: int = 0
    first_custom_id: str = ""
    errors: list[Json] = field(default_factory=list)

    def wrong(self, code: str, message: str, *, line: int | None = None, param: str | None = None) -> None:
        """Note a problem."""
        if len(self.errors) < MAX_ERRORS:
            self.errors.append({"code": code, "message": message, "line": line, "param": param})


def check(path: Path, endpoint: str, limits: Limits) -> Checked:
    """Validate a batch's file. Blocking: for a thread. Memory: 8 bytes and a set entry for each row."""
    checked = Checked()
    if path.stat().st_size > limits.openai_batch_file_bytes:
        checked.wrong("file_too_large", f"The file is larger than {limits.openai_batch_file_bytes:,} bytes.")
        return checked
    seen: set[bytes] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            checked.rows += 1
            if checked.rows > limits.openai_rows:
                checked.wrong("too_many_tasks", f"The batch has more than {limits.openai_rows:,} requests.")
                return checked
            _check_line(line, number, endpoint, seen, checked)
    if checked.rows == 0:
        checked.wrong(
            "empty_file", "The input file is empty. Please ensure that the batch contains at least one request."
        )
    if checked.embedding_inputs > limits.openai_embedding_inputs:
        checked.wrong("too_many_tasks", f"More than {limits.openai_embedding_inputs:,} embedding inputs in one batch.")
    return checked


def _check_line(line: bytes, number: int, endpoint: str, seen: set[bytes], checked: Checked) -> None:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict):
        checked.wrong("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
        return
    problem = _envelope_problem(request, endpoint)
    if problem:
        checked.wrong(*problem[:2], line=number, param=problem[2])
        return
    _check_custom_id(request["custom_id"], number, seen, checked)
    _check_body(request["body"], number, endpoint, checked)


def _envelope_problem(request: Json, endpoint: str) -> tuple[str, str, str] | None:
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(request.get(name), kind) or request[name] == "":
            return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
    if request["method"] != "POST":
        return "invalid_method", f"The method '{request['method']}' is not supported; use POST.", "method"
    if request["url"] != endpoint:
        return "url_mismatch", f"The URL '{request['url']}' does not match the batch's endpoint '{endpoint}'.", "url"
    return None


def _check_custom_id(custom_id: str, number: int, seen: set[bytes], checked: Checked) -> None:
    hashed = digest(custom_id)
    if hashed in seen:
        message = f"The custom_id '{custom_id}' for this request is a duplicate of another request."
        checked.wrong("duplicate_custom_id", message, line=number, param="custom_id")
    seen.add(hashed)
    checked.first_custom_id = checked.first_custom_id or custom_id


def _check_body(body: dict[str, Any], number: int, endpoint: str, checked: Checked) -> None:
    model = body.get("model")
    if isinstance(model, str) and model not in checked.models:
        checked.models.append(model)
        if model.startswith("no-such-"):
            checked.wrong("model_not_found", f"The model '{model}' does not exist.", line=number, param="model")
        elif len(checked.models) == 2:
            message = f"The model '{model}' does not match the model of the first line, '{checked.models[0]}'."
            checked.wrong("model_mismatch", message, line=number, param="model")
    try:
        checked.input_tokens += read_openai(endpoint, body).input_tokens
        if endpoint == "/v1/embeddings":
            checked.embedding_inputs += len(embedding_inputs(body))
    except BadRequest:
        return  # the row itself says so when it is executed

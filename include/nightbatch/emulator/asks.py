"""What one row asks, whichever vendor's words it came in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import orjson

from nightbatch.emulator.settings import Vendor

Json = dict[str, Any]
Kind = Literal["chat", "responses", "embeddings", "messages"]

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
OPENAI_KINDS: dict[str, Kind] = {CHAT: "chat", RESPONSES: "responses", EMBEDDINGS: "embeddings"}
"""Endpoints whose rows are executed. Source: the issue's scope; OpenAI takes more, see docs/emulator.md."""

CAPS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""What each vendor calls the cap on output tokens."""

_ROWS_OWN = frozenset({"model", "temperature", "top_p", "user", "metadata", "service_tier", "seed", *CAPS})
"""Fields that do not make a request another question."""


class BadRequest(Exception):
    """The body of one request is not what the endpoint takes."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        self.message, self.param, self.code, self.status = message, param, code, status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, read.

    Attributes:
        key: Hash of the body without its cap on tokens: what row faults are decided by.
        question: Hash of what is asked, without model and parameters: what is remembered as seen and as paid.
    """

    vendor: Vendor
    kind: Kind
    model: str
    system: str
    user: str
    schema: Json | None
    cap: int | None
    input_tokens: int
    body: Json
    key: bytes
    question: bytes


def tokens(text: str) -> int:
    """Count tokens as the emulator does: one for four bytes of UTF-8, rounded up."""
    return -(-len(text.encode()) // 4)


def read_openai(endpoint: str, body: Any) -> Ask:
    """Read the body of a call to one of OpenAI's endpoints."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    if endpoint not in OPENAI_KINDS:
        raise BadRequest(f"The emulator does not execute {endpoint}.", param="url", code="unsupported_value")
    kind = OPENAI_KINDS[endpoint]
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    if model.startswith("no-such-"):
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise BadRequest(message, code="model_not_found", status=404)
    if body.get("stream"):
        raise BadRequest("The emulator does not stream.", param="stream", code="unsupported_value")
    system, users = _OPENAI_TEXTS[kind](body)
    return _ask("openai", kind, body, system=system, users=users, schema=_openai_schema(kind, body))


def read_anthropic(params: Any) -> Ask:
    """Read the parameters of one message."""
    if not isinstance(params, dict):
        raise BadRequest("params: Input should be a valid dictionary")
    if not isinstance(params.get("model"), str) or not params["model"]:
        raise BadRequest("model: Field required")
    if params["model"].startswith("no-such-"):
        raise BadRequest(f"model: {params['model']}", status=404)
    cap = params.get("max_tokens")
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise BadRequest("max_tokens: Field required" if cap is None else "max_tokens: must be greater than 0")
    messages = _messages(params, "messages: Field required")
    system = _text(params.get("system") or "")
    users = [_text(one.get("content")) for one in messages if one.get("role") == "user"]
    if not users:
        raise BadRequest("messages: at least one message with the role user is required")
    wanted = (params.get("output_config") or {}).get("format") or {}
    schema = wanted.get("schema") if wanted.get("type") == "json_schema" else None
    return _ask("anthropic", "messages", params, system=system, users=users, schema=schema)


def _ask(vendor: Vendor, kind: Kind, body: Json, *, system: str, users: list[str], schema: Json | None) -> Ask:
    cap = next((body[name] for name in CAPS if isinstance(body.get(name), int)), None)
    if cap is not None and cap < 1:
        raise BadRequest("The cap on output tokens must be at least 1.", code="integer_below_min_value")
    uncapped = {name: value for name, value in body.items() if name not in CAPS}
    asked = {name: value for name, value in body.items() if name not in _ROWS_OWN}
    size = tokens(system) + sum(map(tokens, users))
    key, question = _hash(uncapped), _hash(asked)
    return Ask(vendor, kind, body["model"], system, users[-1], schema, cap, max(size, 1), body, key, question)


def _hash(value: Json) -> bytes:
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=8).digest()


def _chat_texts(body: Json) -> tuple[str, list[str]]:
    messages = _messages(body, "Missing required parameter: 'messages'.")
    system = "\n".join(_text(one.get("content")) for one in messages if one.get("role") in {"system", "developer"})
    users = [_text(one.get("content")) for one in messages if one.get("role") not in {"system", "developer"}]
    return system, users or [system]


def _responses_texts(body: Json) -> tuple[str, list[str]]:
    given = body.get("input")
    instructions = body.get("instructions") or ""
    if isinstance(given, str):
        return instructions, [given]
    if not isinstance(given, list) or not given:
        raise BadRequest("Missing required parameter: 'input'.", param="input", code="missing_required_parameter")
    system, users = _chat_texts({"messages": given})
    return "\n".join(filter(None, [instructions, system])), users


def _embedding_texts(body: Json) -> tuple[str, list[str]]:
    return "", [" ".join(map(str, one)) if isinstance(one, list) else one for one in embedding_inputs(body)]


def embedding_inputs(body: Json) -> list[Any]:
    """Return the texts, or lists of token numbers, that a body wants embedded."""
    given = body.get("input")
    if isinstance(given, list) and given and all(isinstance(one, int) for one in given):
        return [given]
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or not all(isinstance(one, (str, list)) for one in inputs):
        raise BadRequest("'$.input' is invalid.", param="input")
    if any(len(one) == 0 for one in inputs):
        raise BadRequest("'$.input' cannot be an empty string.", param="input")
    return inputs


_OPENAI_TEXTS = {"chat": _chat_texts, "responses": _responses_texts, "embeddings": _embedding_texts}


def _openai_schema(kind: Kind, body: Json) -> Json | None:
    """Find the JSON Schema of a structured answer; any object for `json_object`."""
    where = (body.get("text") or {}).get("format") if kind == "responses" else body.get("response_format")
    if not isinstance(where, dict):
        return None
    if where.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
    if where.get("type") != "json_schema":
        return None
    schema = where.get("schema") if kind == "responses" else (where.get("json_schema") or {}).get("schema")
    if not isinstance(schema, dict):
        raise BadRequest("Missing required parameter: 'schema'.", param="response_format", code="invalid_json_schema")
    return schema


def _messages(body: Json, missing: str) -> list[Json]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise BadRequest(missing, param="messages", code="missing_required_parameter")
    return messages


def _text(content: Any) -> str:
    """Join the texts of a message, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "\n".join(_parts(content))


def _parts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]

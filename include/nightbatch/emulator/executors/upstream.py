"""Sends each row to a real OpenAI-compatible endpoint, so that a rehearsal has real answers."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from typing import Any

import orjson

from nightbatch.emulator.asks import Ask
from nightbatch.emulator.executors.reply import Reply

TIMEOUT_S = 120.0


class Upstream:
    """Forwards rows. OpenAI bodies go as they are; Anthropic's become chat completions of the same model name."""

    def __init__(self, url: str, key_env: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"upstream_url {url!r}: give the base URL of an OpenAI-compatible endpoint, with its /v1")
        self._url, self._key = url.rstrip("/"), os.environ.get(key_env, "")

    def __call__(self, ask: Ask) -> Reply:
        """Ask the real model. Errors become the row's errors; no connection is a 503."""
        if ask.vendor == "openai":
            status, body = self._post(_PATHS[ask.kind], ask.body)
            return Reply("", *_billed(body), status=status, body=body)
        status, body = self._post("/chat/completions", _as_chat(ask))
        if status > 299:
            return Reply(status=status, body=body)
        usage = body.get("usage") or {}
        try:
            text = body["choices"][0]["message"].get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError):
            return Reply(status=502, body={"error": {"message": "upstream: no choices in the reply"}})
        return Reply(text, usage.get("prompt_tokens"), usage.get("completion_tokens"))

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, orjson.dumps(body), headers)  # noqa: S310 (checked above)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 (checked above)
                body = _object(response.read())
                return (502 if "error" in body else response.status), body
        except urllib.error.HTTPError as error:
            return error.code, _object(error.read())
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            return 503, {
                "error": {"message": f"upstream: {error}", "type": "server_error", "param": None, "code": None}
            }


_PATHS = {"chat": "/chat/completions", "responses": "/responses", "embeddings": "/embeddings"}


def _as_chat(ask: Ask) -> dict[str, Any]:
    turns = [{"role": one["role"], "content": one["content"]} for one in ask.body["messages"]]
    system = [{"role": "system", "content": ask.system}] if ask.system else []
    body: dict[str, Any] = {"model": ask.model, "messages": [*system, *turns], "max_completion_tokens": ask.cap}
    if ask.schema:
        named = {"name": "answer", "strict": True, "schema": ask.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def _billed(body: dict[str, Any]) -> tuple[int, int, int]:
    """Read the tokens that a reply bills: input, output and, of the input, cached; in the words of any endpoint."""
    usage = body.get("usage") or {}
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    billed = (usage.get("prompt_tokens", usage.get("input_tokens")), usage.get("completion_tokens"))
    return billed[0] or 0, billed[1] or usage.get("output_tokens") or 0, details.get("cached_tokens") or 0


def _object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object; wrap anything else as an error, so that no reply is lost."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict):
        return body
    message = raw[:200].decode(errors="replace")
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}

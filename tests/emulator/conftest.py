"""A rehearsal: a running emulator, both vendors' clients, and short ways to run a batch on them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import anthropic
import httpx
import openai
import pytest

from nightbatch.emulator import DEFAULT_KEY, EmulatorSettings, Faults, running

GPT, CLAUDE = "gpt-5-mini", "claude-sonnet-4-6"
CHAT = "/v1/chat/completions"
SENTIMENT = {
    "type": "object",
    "properties": {
        "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reason": {"type": "string"},
    },
    "required": ["sentiment", "confidence", "reason"],
    "additionalProperties": False,
}


class Rehearsal:
    """One emulator and what talks to it. Clients never retry, and read replies strictly."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.openai, self.anthropic = self.clients(DEFAULT_KEY)
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {DEFAULT_KEY}"}, timeout=30)

    def clients(self, key: str, faults: str = "", **more: Any) -> tuple[openai.OpenAI, anthropic.Anthropic]:
        """Return clients with another key, or with faults in their headers."""
        given: dict[str, Any] = {"api_key": key, "max_retries": 0, "_strict_response_validation": True, **more}
        given["default_headers"] = {"X-Emulator-Faults": faults} if faults else {}
        return openai.OpenAI(base_url=f"{self.url}/v1", **given), anthropic.Anthropic(base_url=self.url, **given)

    def upload(self, lines: Sequence[Any], client: openai.OpenAI | None = None) -> str:
        """Upload a batch's file; lines are requests, or text as it is. Return its id."""
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        file = (client or self.openai).files.create(file=("input.jsonl", text.encode()), purpose="batch")
        return file.id

    def create(self, lines: Sequence[Any], *, client: openai.OpenAI | None = None, **more: Any) -> Any:
        """Create an OpenAI batch."""
        settings = {"endpoint": CHAT, "completion_window": "24h", **more}
        client = client or self.openai
        return client.batches.create(input_file_id=self.upload(lines, client), **settings)

    def ended(self, batch_id: str) -> Any:
        """Wait for an OpenAI batch."""
        over = {"completed", "failed", "expired", "cancelled"}
        return until(lambda: self.openai.batches.retrieve(batch_id), lambda batch: batch.status in over)

    def run(self, lines: Sequence[Any], **more: Any) -> Any:
        """Run an OpenAI batch to its end."""
        return self.ended(self.create(lines, **more).id)

    def rows(self, *file_ids: str | None) -> list[dict[str, Any]]:
        """Return the rows of OpenAI's result files, in their order."""
        raw = b"".join(self.openai.files.content(file_id).read() for file_id in file_ids if file_id)
        return [json.loads(line) for line in raw.split(b"\n") if line]

    def both(self, batch: Any) -> dict[str, dict[str, Any]]:
        """Return the rows of both result files, by custom_id."""
        return {row["custom_id"]: row for row in self.rows(batch.output_file_id, batch.error_file_id)}

    def create_messages(self, requests: Sequence[Any], *, client: anthropic.Anthropic | None = None) -> Any:
        """Create an Anthropic batch."""
        return (client or self.anthropic).messages.batches.create(requests=list(requests))

    def messages_ended(self, batch_id: str) -> Any:
        """Wait for an Anthropic batch."""
        retrieve = self.anthropic.messages.batches.retrieve
        return until(lambda: retrieve(batch_id), lambda batch: batch.processing_status == "ended")

    def run_messages(self, requests: Sequence[Any], **more: Any) -> Any:
        """Run an Anthropic batch to its end."""
        return self.messages_ended(self.create_messages(requests, **more).id)

    def results(self, batch: Any) -> dict[str, Any]:
        """Return an Anthropic batch's results, by custom_id, as the SDK reads them."""
        return {row.custom_id: row.result for row in self.anthropic.messages.batches.results(batch.id)}

    def state(self) -> Any:
        """Return what the admin surface says."""
        return self.http.get("/emulator/state").raise_for_status().json()


def until(look: Callable[[], Any], is_over: Callable[[Any], bool], timeout_s: float = 60) -> Any:
    """Look again and again until it is over."""
    deadline = time.monotonic() + timeout_s
    while not is_over(seen := look()):
        assert time.monotonic() < deadline, f"still not over: {seen}"
        time.sleep(0.02)
    return seen


@pytest.fixture
def rehearse() -> Iterator[Callable[..., Rehearsal]]:
    """Start an emulator; `faults` may be text, other arguments are its settings."""
    with ExitStack() as stack:

        def start(faults: str = "", **settings: Any) -> Rehearsal:
            wanted = EmulatorSettings(faults=Faults.parse(faults), **settings)
            return Rehearsal(stack.enter_context(running(wanted)))

        yield start


@pytest.fixture
def calm(rehearse: Callable[..., Rehearsal]) -> Rehearsal:
    """An emulator without faults."""
    return rehearse()


@pytest.fixture
def chats() -> Callable[..., list[dict[str, Any]]]:
    """Write lines of OpenAI chat requests, `r0` and up."""

    def write(count: int = 10, *, schema: Any = None, url: str = CHAT, **body: Any) -> list[dict[str, Any]]:
        body = {"model": GPT, "max_completion_tokens": 500, **body}
        if schema:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        return [
            {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body | {"messages": _user(number)}}
            for number in range(count)
        ]

    return write


@pytest.fixture
def letters() -> Callable[..., list[dict[str, Any]]]:
    """Write requests of an Anthropic batch, `r0` and up."""

    def write(count: int = 10, *, schema: Any = None, **params: Any) -> list[dict[str, Any]]:
        params = {"model": CLAUDE, "max_tokens": 500, **params}
        if schema:
            params["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return [{"custom_id": f"r{number}", "params": {"messages": _user(number), **params}} for number in range(count)]

    return write


def _user(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"I love sentence number {number}, it is great and long enough to be cut."}]


@pytest.fixture
def sentiment_schema() -> Any:
    """The schema of the demo's first job."""
    return SENTIMENT

"""Bodies as OpenAI sends them. Shapes: the types of openai 3.54.0, read 2026-11-22."""

from __future__ import annotations

import base64
import random
import struct
from typing import Any

from nightbatch.emulator.answers import Answer, Kind, Problem
from nightbatch.emulator.asks import Ask, Json, embedding_inputs
from nightbatch.emulator.clock import DAY_S
from nightbatch.emulator.dice import digest
from nightbatch.emulator.store import Batch, StoredFile, Usage

DIMENSIONS = {"text-embedding-3-large": 3072}
"""Default lengths of vectors other than 1536. Source: the texts of openai 3.54.0."""


def error_body(problem: Problem) -> Json:
    """Return an error."""
    error = {"message": problem.message, "type": problem.type, "param": problem.param, "code": problem.code}
    return {"error": error}


def answer_body(ask: Ask, answer: Answer, *, key: str, created: float) -> Json:
    """Return the body of a good call, whatever its endpoint.

    Args:
        key: Makes the ids in the body.
    """
    if answer.body is not None:
        return answer.body
    return _BODIES[ask.kind](ask, answer, key, int(created))


def _chat(ask: Ask, answer: Answer, key: str, created: int) -> Json:
    refused = answer.kind is Kind.REFUSAL
    message: Json = {
        "role": "assistant",
        "content": None if refused else answer.text,
        "refusal": answer.text if refused else None,
        "annotations": [],
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "length" if answer.kind is Kind.TRUNCATED else "stop",
    }
    return {
        "id": f"chatcmpl-{key}",
        "object": "chat.completion",
        "created": created,
        "model": ask.model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": answer.input_tokens,
            "completion_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _response(ask: Ask, answer: Answer, key: str, created: int) -> Json:
    cut = answer.kind is Kind.TRUNCATED
    content: Json = {"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}
    if answer.kind is Kind.REFUSAL:
        content = {"type": "refusal", "refusal": answer.text}
    status = "incomplete" if cut else "completed"
    message = {"type": "message", "id": f"msg_{key}", "role": "assistant", "status": status, "content": [content]}
    return {
        "id": f"resp_{key}",
        "object": "response",
        "created_at": created,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": ask.body.get("instructions"),
        "metadata": ask.body.get("metadata") or {},
        "model": ask.model,
        "output": [message],
        "parallel_tool_calls": True,
        "temperature": ask.body.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": [],
        "top_p": ask.body.get("top_p", 1.0),
        "max_output_tokens": ask.cap,
        "service_tier": "default",
        "text": ask.body.get("text") or {"format": {"type": "text"}},
        "usage": {
            **_usage(Usage(answer.input_tokens, answer.cached_tokens, answer.output_tokens)),
            "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
        },
    }


def _embedding(ask: Ask, answer: Answer, key: str, created: int) -> Json:
    size = ask.body.get("dimensions") or DIMENSIONS.get(ask.model, 1536)
    packed = ask.body.get("encoding_format") == "base64"
    vectors = [vector(str(text), size) for text in embedding_inputs(ask.body)]
    data = [
        {"object": "embedding", "index": index, "embedding": _base64(one) if packed else one}
        for index, one in enumerate(vectors)
    ]
    usage = {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens}
    return {"object": "list", "data": data, "model": ask.model, "usage": usage}


_BODIES = {"chat": _chat, "responses": _response, "embeddings": _embedding}


def vector(text: str, size: int) -> list[float]:
    """Return a vector of length one that only the text decides."""
    chance = random.Random(digest(text)).random  # noqa: S311 (must be the same every time, not secret)
    raw = [chance() - 0.5 for _ in range(size)]
    length = sum(one * one for one in raw) ** 0.5 or 1.0
    return [round(one / length, 8) for one in raw]


def _base64(numbers: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def file_body(file: StoredFile) -> Json:
    """Return a file object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "expires_at": int(file.expires_at) if file.expires_at is not None else None,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


def batch_body(batch: Batch, *, at: float) -> Json:
    """Return a batch object."""
    body: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.models[0] if batch.models else None,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": _status(batch, at=at),
        "output_file_id": None if batch.hides_results(at=at) else batch.output_file_id,
        "error_file_id": None if batch.hides_results(at=at) else batch.error_file_id,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.created_at) + DAY_S,
        "request_counts": _counts(batch, at=at),
        "usage": _usage(batch.usage),
        "metadata": batch.metadata,
    }
    return body | {name: int(batch.times[name]) if name in batch.times else None for name in _TIMES}


def _status(batch: Batch, *, at: float) -> str:
    is_running = batch.status in ("validating", "in_progress")
    return (batch.unknown_status(at=at) if is_running else "") or batch.status


def _counts(batch: Batch, *, at: float) -> Json:
    """Return the request counts; while rows are under way, as many as time has passed."""
    if batch.status == "in_progress" and batch.duration_s > 0:
        share = (at - batch.times["in_progress_at"]) / batch.duration_s
        return {"total": batch.rows, "completed": min(int(batch.rows * share), batch.rows), "failed": 0}
    completed, failed = batch.counts["completed"], batch.counts["failed"]
    if batch.faults.counters_lie:
        completed, failed = completed + failed, 0
    return {"total": batch.rows, "completed": completed, "failed": failed}

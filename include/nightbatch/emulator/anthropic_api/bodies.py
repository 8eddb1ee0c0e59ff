"""Bodies as Anthropic sends them. Shapes: the types of anthropic 2.12.0, read 2026-11-22."""

from __future__ import annotations

from nightbatch.emulator.answers import Answer, Kind, Problem
from nightbatch.emulator.asks import Ask, Json
from nightbatch.emulator.clock import DAY_S, now_s, rfc3339
from nightbatch.emulator.store import Batch

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Error types by status. Source: anthropic 2.12.0 and its documentation of errors."""


def error_body(problem: Problem, request_id: str | None) -> Json:
    """Return an error."""
    fallback = "invalid_request_error" if problem.status < 500 else "api_error"
    kind = problem.type if problem.type in _KNOWN else TYPES.get(problem.status, fallback)
    return {"type": "error", "error": {"type": kind, "message": problem.message}, "request_id": request_id}


_KNOWN = {*TYPES.values(), "api_error"}


def message_body(ask: Ask, answer: Answer, *, key: str, tier: str) -> Json:
    """Return an answered message.

    Args:
        key: Makes the message's id.
        tier: `batch` or `standard`.
    """
    refused = answer.kind is Kind.REFUSAL
    stop_reason = "refusal" if refused else "max_tokens" if answer.kind is Kind.TRUNCATED else "end_turn"
    explained = {"type": "refusal", "category": None, "explanation": None}
    return {
        "id": f"msg_{key}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [{"type": "text", "text": answer.text, "citations": None}] if answer.text else [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "stop_details": explained if refused else None,
        "usage": {
            "input_tokens": answer.input_tokens - answer.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": answer.cached_tokens,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": answer.output_tokens,
            "service_tier": tier,
        },
    }


def batch_body(batch: Batch, base_url: str) -> Json:
    """Return a message batch."""
    ended, now = batch.status == "ended", now_s()
    shows_results = ended and not batch.hides_results(at=now)
    url = f"{base_url}v1/messages/batches/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": ("" if ended else batch.unknown_status(at=now)) or batch.status,
        "request_counts": _counts(batch),
        "created_at": rfc3339(batch.created_at),
        "expires_at": rfc3339(batch.created_at + DAY_S),
        "ended_at": _time(batch, "ended_at"),
        "cancel_initiated_at": _time(batch, "canceling_at"),
        "archived_at": None,
        "results_url": url if shows_results else None,
    }


def _time(batch: Batch, name: str) -> str | None:
    return rfc3339(batch.times[name]) if name in batch.times else None


def _counts(batch: Batch) -> Json:
    """Return the request counts: all but `processing` stay 0 until the batch ends."""
    names = ("succeeded", "errored", "canceled", "expired")
    if batch.status != "ended":
        return {"processing": batch.rows, **dict.fromkeys(names, 0)}
    if batch.faults.counters_lie:
        return {"processing": 0, **dict.fromkeys(names, 0), "succeeded": batch.rows}
    return {"processing": 0, **{name: batch.counts[name] for name in names}}

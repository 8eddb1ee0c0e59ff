"""A reason: why a row is not good, in one word."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a row is not good; the words people see in dead letters and reports."""

    NONE = ""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    MISSING = "missing"
    TRANSIENT = "transient_error"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    PAUSED = "paused"
    EMPTY = "empty_answer"
    NOT_JSON = "not_json"
    OFF_SCHEMA = "off_schema"
    INVALID_REQUEST = "invalid_request"
    ACCOUNT = "account_trouble"
    UNREADABLE = "unreadable_result"
    BUDGET = "budget"
    NOT_SENT = "not_sent"
    BAD_KEY = "bad_key"
    DUPLICATE_KEY = "duplicate_key"
    BAD_RECORD = "bad_record"
    TOO_LARGE = "too_large"
    REQUEST_REFUSED = "request_refused"
    CANARY = "canary"
    DISCARDED = "discarded"
    QUEUE = "queue_too_small"

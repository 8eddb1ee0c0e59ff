"""Says what an Anthropic refusal of a whole request means."""

from __future__ import annotations

from nightbatch.adapters.providers.anthropic_rows import error_kind
from nightbatch.adapters.providers.refusal import Purpose, Refusal
from nightbatch.adapters.providers.wire import short_text
from nightbatch.core.result import ErrorKind
from nightbatch.errors import AccountTrouble, NightbatchError, ProviderBusy, QueueFull, RequestRefused

NAME = "anthropic"

_ACCOUNT_STATUSES = frozenset({401, 402, 403})
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429, 499})
_QUEUE_WORDS = ("processing queue", "batch requests in", "batch queue", "queued batch")
"""How a full queue of batch requests is told apart from too many calls a minute; the wording is not documented."""


def classify(refusal: Refusal, doing: str, purpose: Purpose) -> NightbatchError:
    """
    Turn a refusal into one of our errors; in every case the vendor made nothing.

    What cannot be *read* is never refused for good: the caller asks again, and is bounded elsewhere.
    """
    status, code, message = refusal.status, refusal.details_code or refusal.code, refusal.message
    is_about_money = error_kind("", message, refusal.details_code) is ErrorKind.ACCOUNT
    if is_about_money or status in _ACCOUNT_STATUSES:
        said = "the key was refused" if status == 401 else short_text(message)
        return AccountTrouble(NAME, code=code, message=said)
    if status == 429 and purpose is Purpose.CREATE and any(words in message.lower() for words in _QUEUE_WORDS):
        return QueueFull(NAME, cause=code)
    if purpose is Purpose.READ or status in _TRANSIENT_STATUSES or status >= 500:
        cause = f"HTTP {status}, {code}"
        return ProviderBusy(NAME, doing, cause=cause, retry_after_s=refusal.retry_after_s)
    return RequestRefused(NAME, code=code, message=short_text(message))

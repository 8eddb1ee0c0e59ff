"""Says what an OpenAI refusal of a whole request means."""

from __future__ import annotations

from nightbatch.adapters.providers.openai_batches import TOKEN_LIMIT
from nightbatch.adapters.providers.openai_rows import error_kind
from nightbatch.adapters.providers.refusal import Purpose, Refusal
from nightbatch.adapters.providers.wire import short_text
from nightbatch.core.result import ErrorKind
from nightbatch.errors import AccountTrouble, NightbatchError, ProviderBusy, QueueFull, RequestRefused

NAME = "openai"


def classify(refusal: Refusal, doing: str, purpose: Purpose) -> NightbatchError:
    """
    Turn a refusal into one of our errors; in every case the vendor made nothing.

    What cannot be *read* is never refused for good: the caller asks again, and is bounded elsewhere.
    """
    status, code, message = refusal.status, refusal.code, refusal.message
    if code == TOKEN_LIMIT or "enqueued token" in message.lower():
        return QueueFull(NAME, cause=code)
    match error_kind(status, code, message):
        case ErrorKind.ACCOUNT:
            # The message about a bad key quotes most of the key.
            said = "the key was refused" if status == 401 else short_text(message)
            return AccountTrouble(NAME, code=code, message=said)
        case ErrorKind.TRANSIENT:
            cause = f"HTTP {status}, {code}"
            return ProviderBusy(NAME, doing, cause=cause, retry_after_s=refusal.retry_after_s)
    if purpose is Purpose.READ:
        return ProviderBusy(NAME, doing, cause=f"HTTP {status}, {code}")
    return RequestRefused(NAME, code=code, message=short_text(message))

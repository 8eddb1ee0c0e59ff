"""Everything that can be told to go wrong, each fault with its name, its default and what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

T = TypeVar("T")


class UnknownFault(ValueError):
    """A fault was asked for that does not exist, or with a value it cannot take."""


def _share(text: str) -> float:
    """Declare a fault that hits a share of all rows."""
    return field(default=0.0, metadata={"does": text, "unit": "share of rows, 0 to 1"})


def _times(text: str) -> int:
    """Declare a fault that hits the next n requests, and then no more."""
    return field(default=0, metadata={"does": text, "unit": "requests"})


def _seconds(text: str, default: float = 0.0) -> float:
    return field(default=default, metadata={"does": text, "unit": "seconds"})


def _option(text: str, default: T, unit: str) -> T:
    return field(default=default, metadata={"does": text, "unit": unit})


def _choice(text: str, *allowed: str) -> str:
    """Declare a fault with named variants; the first one is the default."""
    unit = " or ".join(name or "(empty)" for name in allowed)
    return field(default=allowed[0], metadata={"does": text, "unit": unit, "allowed": allowed})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """One set of faults; all off by default. `docs/emulator.md` shows them as a table."""

    # Rows, by share. A row is hit or not by hash(seed, request body without its cap on tokens, fault's name).
    permanent: float = _share("the row fails with 400 every time it is sent")
    transient: float = _share("the row fails with 500 (Anthropic: api_error)")
    status_zero: float = _share("the row has status_code 0 and an empty body (Anthropic: overloaded_error)")
    expired: float = _share("the row did not run in time; an OpenAI batch then ends as `expired`")
    truncated: float = _share("the answer stops in the middle, at the cap on output tokens")
    off_schema: float = _share("the answer is JSON, but not what the schema asks for")
    not_json: float = _share("the answer is prose where JSON was asked for")
    refusal: float = _share("the model refuses, every time")
    credit_error: float = _share("no money left: Anthropic says invalid_request_error, OpenAI insufficient_quota")
    missing: float = _share("the row is in no result file")
    duplicate: float = _share("the row stands twice in its result file")
    unknown: float = _share("a row with a custom_id that nobody sent stands after this one")
    u2028: float = _share("the answer carries U+2028 and U+0085, unescaped")
    fault_attempts: int = _option("how often a row that passes when sent again is hit; 0 is always", 1, "sights")
    truncated_until: str = _choice("what ends a truncation", "second_sight", "larger_cap")
    only_models: str = _option("row faults hit these models only, names joined by +", "", "names")
    only_vendor: str = _choice("all faults hit this vendor only", "", "openai", "anthropic")

    # Batches and their files. A batch keeps the faults that were set when it was created.
    shuffle: bool = _option("results come in another order than requests", False, "0 or 1")
    error_place: str = _choice("where an OpenAI row has its error", "body", "top")
    errors_in_output: bool = _option("OpenAI rows that failed stand in the output file", False, "0 or 1")
    counters_lie: bool = _option("request counts say that nothing failed", False, "0 or 1")
    blank_file_id: bool = _option("a file id that would be null is an empty string (OpenAI)", False, "0 or 1")
    zero_byte_error_file: bool = _option("an error file of zero bytes if no row failed (OpenAI)", False, "0 or 1")
    stuck: str = _choice("the batch stays in this state until cancelled or expired", "", "validating", "in_progress")
    stuck_batch: int = _option("which batch is stuck, counted from 1; 0 is every one", 0, "number")
    late_seconds: float = _seconds("how much longer a late batch takes")
    late_batch: int = _option("which batch is late, counted from 1 over all vendors; 0 is by late_match", 0, "number")
    late_match: str = _option(
        "late is every batch with this text in metadata, file name or first custom_id", "", "text"
    )
    token_limit_after_validation: int = _times("the batch goes failed with token_limit_exceeded (OpenAI)")
    token_limit_at_create: int = _times("create answers 400 token_limit_exceeded (OpenAI), 429 (Anthropic)")
    status_word: str = _option("a status that no documentation knows, in place of the running one", "", "text")
    status_seconds: float = _seconds("how long a batch has that status", 5.0)
    hidden_results_seconds: float = _seconds("an ended batch names no result file for so long")
    not_found_seconds: float = _seconds("a new batch answers 404 for so long")
    list_lag_seconds: float = _seconds("a new batch is in no list for so long")

    # The reply to a create call that did succeed.
    create_timeout_after_success: int = _times("create succeeds, the reply hangs for hang_seconds, then closes")
    create_reset_after_success: int = _times("create succeeds, the connection is reset before the reply")
    create_500_after_success: int = _times("create succeeds, the reply is 500")
    create_529_after_success: int = _times("create succeeds, the reply is 529 overloaded")

    # Any request. `on` narrows them down.
    http_401: int = _times("a good key is refused")
    http_404: int = _times("what is there is not found")
    http_429: int = _times("429 rate limited")
    http_429_retry_after: float = _seconds("Retry-After that goes with a 429; 0 sends none")
    http_5xx: int = _times("a server error, nothing done")
    http_5xx_status: int = _option("which server error", 503, "HTTP status")
    http_5xx_share: float = _option("share of requests that get the server error", 0.0, "share of requests, 0 to 1")
    credit_error_requests: int = _times("refused for want of credit, as in credit_error")
    reset: int = _times("the connection is reset, nothing done")
    hang: int = _times("no reply for hang_seconds, then the connection closes, nothing done")
    hang_seconds: float = _seconds("how long a hanging reply hangs", 30.0)
    slow_drip: int = _times("the body comes in small pieces")
    drip_bytes: int = _option("bytes in one piece", 64, "bytes")
    drip_seconds: float = _seconds("pause after each piece", 0.05)
    garbled: int = _times("the body is not the JSON it says it is")
    garbled_download: int = _times("a result file comes whole in length, and garbled")
    login_page: int = _times("a proxy's page in HTML comes, with status 200, and nothing is done")
    truncated_download: int = _times("a result file stops half way, and the connection closes")
    on: str = _option("the requests meant above: names of operations joined by +; empty is all", "", "names")

    def __post_init__(self) -> None:
        """Refuse values out of range, naming the fault."""
        for one in fields(self):
            value, allowed = getattr(self, one.name), one.metadata.get("allowed")
            if allowed and value not in allowed:
                raise UnknownFault(f"{one.name}={value}: choose one of {', '.join(map(repr, allowed))}")
            if "0 to 1" in one.metadata["unit"] and not 0 <= value <= 1:
                raise UnknownFault(f"{one.name}={value}: give a share from 0 to 1")
            if isinstance(value, (int, float)) and value < 0:
                raise UnknownFault(f"{one.name}={value}: give a number from 0 up")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read faults as they stand in a header or on the command line: `name=value, name=value`."""
        return cls().but(split(text))

    def but(self, changes: Mapping[str, Any]) -> Faults:
        """Return these faults with some changed; values may be text."""
        known = {one.name: one for one in fields(self)}
        unknown = sorted(set(changes) - set(known))
        if unknown:
            raise UnknownFault(f"no such fault: {', '.join(unknown)}. Known: {', '.join(sorted(known))}")
        typed = {name: _typed(name, value, known[name].default) for name, value in changes.items()}
        return replace(self, **typed)

    def as_dict(self) -> dict[str, Any]:
        """Return all faults by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def split(text: str) -> dict[str, str]:
    """Split `a=1, b=2` into names and values; a name alone means 1."""
    pairs = (part.partition("=") for part in text.split(",") if part.strip())
    return {name.strip(): value.strip() if equals else "1" for name, equals, value in pairs}


def _typed(name: str, value: Any, default: Any) -> Any:
    """Turn a value, often text, into the type that a fault has."""
    try:
        if isinstance(default, bool):
            return str(value).lower() in {"1", "true", "yes", "on"}
        return type(default)(value)
    except (TypeError, ValueError) as error:
        raise UnknownFault(f"{name}={value!r}: expected {type(default).__name__}") from error

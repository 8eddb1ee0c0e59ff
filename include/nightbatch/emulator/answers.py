"""What becomes of one row: the executor's answer, or the fault that hits it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b

import orjson

from nightbatch.emulator.asks import Ask, Json, tokens
from nightbatch.emulator.dice import roll
from nightbatch.emulator.executors import Executor
from nightbatch.emulator.faults import Faults
from nightbatch.emulator.sightings import Sightings


class Kind(StrEnum):
    """How a row ends. Each name but the first four and the last two is also a fault's."""

    GOOD = "good"
    INVALID = "invalid"
    UPSTREAM_ERROR = "upstream_error"
    CANCELLED = "cancelled"
    CREDIT = "credit_error"
    PERMANENT = "permanent"
    TRANSIENT = "transient"
    STATUS_ZERO = "status_zero"
    EXPIRED = "expired"
    MISSING = "missing"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    OFF_SCHEMA = "off_schema"
    NOT_JSON = "not_json"


ANSWERED = frozenset({Kind.GOOD, Kind.REFUSAL, Kind.TRUNCATED, Kind.OFF_SCHEMA, Kind.NOT_JSON})
"""Rows that the model did answer, and that are billed."""

_ALWAYS = (Kind.CREDIT, Kind.PERMANENT, Kind.REFUSAL)
"""Faults that hit a row every time it is sent."""
_AT_FIRST = (
    Kind.TRANSIENT,
    Kind.STATUS_ZERO,
    Kind.EXPIRED,
    Kind.MISSING,
    Kind.TRUNCATED,
    Kind.OFF_SCHEMA,
    Kind.NOT_JSON,
)
"""Faults that hit a row only the first `fault_attempts` times it is sent."""

EXOTIC = "\u2028one line\u0085or three\u2028"
"""Characters that split lines for `str.splitlines`, but not for JSON."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, in the words that both vendors' bodies are made of."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a row.

    Attributes:
        exotic: Whether the row must carry U+2028 and U+0085.
        body: The whole body, when a real model made it.
    """

    kind: Kind
    text: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    problem: Problem | None = None
    exotic: bool = False
    body: Json | None = None


@dataclass(frozen=True, slots=True)
class Answerer:
    """Answers rows for one workspace, and remembers that it did.

    Attributes:
        seed: Decides which rows a fault hits.
        scope: The vendor and the workspace whose memory is used.
    """

    seed: int
    scope: str
    faults: Faults
    executor: Executor
    sightings: Sightings
    cached_share: float = 0.0

    def answer(self, ask: Ask) -> Answer:
        """Decide a row's fate, run it, and bill it."""
        sight = blake2b(self.scope.encode() + ask.question, digest_size=8).digest()
        seen, cap = self.sightings.see(sight)
        kind = self._fate(ask, seen, cap) if self._is_meant(ask) else Kind.GOOD
        answer = self._carried_out(ask, kind)
        if answer.kind is Kind.TRUNCATED:
            self.sightings.truncated(sight, ask.cap or 0)
        if answer.kind in ANSWERED:
            self.sightings.bill(sight, good=answer.kind is Kind.GOOD)
        return answer

    def hits(self, ask: Ask, fault: str) -> bool:
        """Say whether a fault that leaves the row its answer hits this row."""
        share = getattr(self.faults, fault)
        return bool(share) and self._is_meant(ask) and roll(self.seed, fault, ask.key) < share

    def _is_meant(self, ask: Ask) -> bool:
        names = self.faults.only_models
        return not names or ask.model in names.split("+")

    def _fate(self, ask: Ask, seen: int, cap: int) -> Kind:
        """Return the first fault that hits, in the order of `Kind`."""
        again = 0 < self.faults.fault_attempts <= seen
        for kind in Kind:
            share = getattr(self.faults, kind.value, 0.0)
            if not share or roll(self.seed, kind.value, ask.key) >= share:
                continue
            if kind in _ALWAYS:
                return kind
            if kind is Kind.TRUNCATED and self.faults.truncated_until == "larger_cap":
                if seen == 0 or (ask.cap or 0) <= cap:
                    return kind
            elif kind in _AT_FIRST and not again:
                return kind
        return Kind.GOOD

    def _carried_out(self, ask: Ask, kind: Kind) -> Answer:
        if kind not in ANSWERED:
            return Answer(kind, problem=PROBLEMS[ask.vendor].get(kind))
        reply = self.executor(ask)
        if reply.status > 299:
            return Answer(Kind.UPSTREAM_ERROR, problem=upstream_problem(reply.status, reply.body or {}))
        exotic = self.hits(ask, "u2028")
        size = ask.input_tokens if reply.input_tokens is None else reply.input_tokens
        cached = math.floor(size * self.cached_share) if reply.cached_tokens is None else reply.cached_tokens
        answer = Answer(kind, input_tokens=size, cached_tokens=cached, exotic=exotic, body=reply.body)
        if reply.body is not None or ask.kind == "embeddings":
            return replace(answer, kind=Kind.GOOD, output_tokens=reply.output_tokens or 0)
        return _worded(ask, answer, reply.text + (EXOTIC if exotic and ask.schema is None else ""))


def invalid(vendor: str, problem: Problem) -> Answer:
    """Return the answer to a row that cannot be read."""
    return Answer(Kind.INVALID, problem=problem)


def _worded(ask: Ask, answer: Answer, text: str) -> Answer:
    """Give an answer its text, spoilt as its kind says, and cut off at the cap on output tokens."""
    kind = answer.kind
    if kind is Kind.REFUSAL:
        text = "I'm sorry, but I can't help with that."
    elif kind is Kind.OFF_SCHEMA:
        text = _off_schema(ask, text)
    elif kind is Kind.NOT_JSON:
        text = f"Sure! Here is what you asked for: {text[: len(text) // 2]} ..."
    elif kind is Kind.TRUNCATED:
        text = text[: len(text) // 2]
    if ask.cap is not None and tokens(text) > ask.cap:
        kind, text = Kind.TRUNCATED, text.encode()[: ask.cap * 4].decode(errors="ignore")
    spent = ask.cap if kind is Kind.TRUNCATED and ask.cap is not None else max(tokens(text), 1)
    return replace(answer, kind=kind, text=text, output_tokens=spent)


def _off_schema(ask: Ask, text: str) -> str:
    """Drop the first property of an answer and add one that nobody asked for."""
    if ask.schema is None:
        return '{"unexpected": true}'
    value = orjson.loads(text)
    kept = dict(list(value.items())[1:]) if isinstance(value, dict) else {}
    return orjson.dumps({**kept, "unexpected": True}).decode()


def upstream_problem(status: int, body: Json) -> Problem:
    """Read the error that a real model answered with."""
    error = body.get("error") if isinstance(body.get("error"), dict) else {}
    error = error or {}
    message = str(error.get("message") or "upstream error")
    return Problem(status, str(error.get("type") or "server_error"), message, error.get("code"), error.get("param"))


CREDIT_MESSAGE = (
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
    "purchase credits."
)
"""What Anthropic says, as an invalid_request_error. Source: bespokelabsai/curator#296."""

_EXPIRED = "This request could not be executed before the completion window expired."
PROBLEMS: dict[str, dict[Kind, Problem]] = {
    "openai": {
        Kind.CREDIT: Problem(
            429,
            "insufficient_quota",
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
        ),
        Kind.PERMANENT: Problem(
            400,
            "invalid_request_error",
            "This model's maximum context length is 128000 tokens. Please reduce the length of the messages.",
            "context_length_exceeded",
            "messages",
        ),
        Kind.TRANSIENT: Problem(500, "server_error", "The server had an error while processing your request."),
        Kind.STATUS_ZERO: Problem(503, "server_error", "The engine is currently overloaded.", "overloaded"),
        Kind.EXPIRED: Problem(408, "batch_expired", _EXPIRED, "batch_expired"),
        Kind.MISSING: Problem(500, "server_error", "The request was lost."),
        Kind.CANCELLED: Problem(
            499, "batch_cancelled", "This request was not executed: the batch was cancelled.", "batch_cancelled"
        ),
    },
    "anthropic": {
        Kind.CREDIT: Problem(400, "invalid_request_error", CREDIT_MESSAGE),
        Kind.PERMANENT: Problem(400, "invalid_request_error", "prompt is too long: 209000 tokens > 200000 maximum"),
        Kind.TRANSIENT: Problem(500, "api_error", "Internal server error"),
        Kind.STATUS_ZERO: Problem(529, "overloaded_error", "Overloaded"),
        Kind.EXPIRED: Problem(504, "timeout_error", "The request was not executed in time."),
        Kind.MISSING: Problem(500, "api_error", "The request was lost."),
        Kind.CANCELLED: Problem(500, "api_error", "The batch was canceled."),
    },
}
"""The errors that faults answer with. Shapes: openai 3.54.0, anthropic 2.12.0; messages as users have reported them."""

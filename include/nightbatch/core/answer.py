"""An answer: whether a model's text is what the job asked for, and the exact text that is loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from .schema import compiled, values_of
from .verdict import GOOD, Reason, Verdict, VerdictKind

MAX_BYTES = 10_000_000
"""Longest answer that is looked at, in UTF-8 bytes; no model writes one, so it is a broken or hostile reply."""

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects. Parsers here stop at 1,024, many databases and readers far earlier."""

_FENCED = re.compile(r"```[ \t]*[A-Za-z0-9_+-]*[ \t]*\r?\n(.*)\n?[ \t]*```", re.DOTALL)


def canonical(text: str) -> str:
    """
    Give the JSON text inside an answer: without surrounding white space and without code fences.

    Models wrap JSON into Markdown fences although they are told not to. Fences around the whole answer change
    nothing about it and are taken off; anything else around the JSON is not forgiven.
    """
    text = text.strip()
    if text.startswith("```"):
        fenced = _FENCED.fullmatch(text)
        if fenced:
            return fenced[1].strip()
    return text


class Read(NamedTuple):
    """An answer that was looked at."""

    verdict: Verdict
    text: str | None
    """What is loaded of a good one: free text as it is, JSON as the function `canonical` gives it."""
    value: Any = None
    """The text decoded; free text as it is."""


class AnswerChecker:
    """
    Judges answers against a job's schema; use it as `core.verdict.Check`.

    Without a schema every text is good. Never raises for an answer, however broken; raises ValueError for a schema
    that is none. Details name the place and the broken rule, and never anything that the model wrote.
    """

    def __init__(self, schema: Mapping[str, Any] | None, *, embeddings: bool = False) -> None:
        self._embeddings = embeddings
        self._validator = None if schema is None else compiled(schema)
        self._names = frozenset() if schema is None else frozenset(_property_names(schema))

    def __call__(self, text: str) -> Verdict:
        """Judge one answer."""
        return self.read(text).verdict

    def read(self, text: str) -> Read:
        """Judge one answer, and give it as it is loaded."""
        # A character has at most four bytes, so most answers need not be encoded to be measured.
        if len(text) * 4 > MAX_BYTES and len(text.encode(errors="replace")) > MAX_BYTES:
            return Read(_bad(Reason.TOO_LARGE, f"over {MAX_BYTES:,} bytes"), text)
        if self._embeddings:
            return Read(_judge_vector(text), canonical(text))
        if self._validator is None:
            return Read(GOOD, text, text)
        text = canonical(text)
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return Read(_bad(Reason.NOT_JSON, _where(error)), text)
        return Read(self._judge(text, answer), text, answer)

    def _judge(self, text: str, answer: Any) -> Verdict:
        # What few brackets open cannot be deep, and needs no walk.
        if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(answer, MAX_DEPTH):
            return _bad(Reason.OFF_SCHEMA, f"nested deeper than {MAX_DEPTH}")
        if _may_repeat_keys(text, answer) and _repeats_a_key(text):
            return _bad(Reason.NOT_JSON, "a key stands twice in one object")
        if self._validator is None or self._validator.is_valid(answer):
            return GOOD
        return _bad(Reason.OFF_SCHEMA, self._first_problem(answer))

    def _first_problem(self, answer: Any) -> str:
        if self._validator is None:
            return ""
        error = next(self._validator.iter_errors(answer), None)
        if error is None:
            return "does not fit"
        # A name that the schema does not know was made up by the model.
        parts = [str(part) if isinstance(part, int) or part in self._names else "*" for part in error.instance_path]
        keyword = next((part for part in reversed(error.schema_path) if isinstance(part, str)), "schema")
        return f"at /{'/'.join(parts)}: breaks `{keyword}`"


def _bad(reason: Reason, detail: str) -> Verdict:
    return Verdict(VerdictKind.CHANGE, reason, detail)


def _where(error: json.JSONDecodeError) -> str:
    # The parser's message quotes nothing of the text, only what it expected.
    return f"{error.msg.split(':')[0]} at character {error.pos:,} of {len(error.doc):,}"


def _judge_vector(text: str) -> Verdict:
    try:
        vector = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _bad(Reason.NOT_JSON, _where(error))
    if not isinstance(vector, list) or not vector:
        return _bad(Reason.OFF_SCHEMA, "no array of numbers")
    if not all(type(number) in (float, int) and math.isfinite(number) for number in vector):
        return _bad(Reason.OFF_SCHEMA, "an array that holds something else than numbers")
    return GOOD


def _may_repeat_keys(text: str, answer: Any) -> bool:
    """
    Say whether a text may say a key twice; False is certain.

    orjson keeps the last of two equal keys in silence, and a parser that tells is eight times slower. Each key brings
    a colon: as long as no escape can write one, a text has more colons than what was kept of it if and only if
    something was dropped.
    """
    colons = text.count(":")
    # Each key of the outermost object needs one, so where there are no more, none is left for a key that was dropped.
    if type(answer) is dict and colons == len(answer):
        return False
    if "\\u" in text:
        return True
    return colons != orjson.dumps(answer).count(b":")


def _repeats_a_key(text: str) -> bool:
    try:
        json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError:
        return True
    return False


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise _RepeatedKeyError
    return unique


def _is_deeper(answer: Any, depth: int) -> bool:
    """Say whether arrays and objects nest deeper; walks level by level, so no depth can overflow the stack."""
    level = [answer]
    for _ in range(depth):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inner(outer)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _inner(outer: dict[str, Any] | list[Any]) -> Any:
    return outer.values() if isinstance(outer, dict) else outer


def _property_names(schema: Mapping[str, Any]) -> Iterator[str]:
    """Give the names of all properties that the schema's author wrote."""
    for properties in values_of(schema, "properties"):
        if isinstance(properties, Mapping):
            yield from properties

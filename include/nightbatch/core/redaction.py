"""Redaction: what must not leave becomes a pseudonym, the same one for the same text, and is put back in an answer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from nightbatch.core.arrow import text_array

Span = tuple[int, int]
"""Where something that must not leave begins and ends in a text, in characters."""

_MARK = "\ufdd0"
"""Stands around a match while it is looked for: a noncharacter, which no text may hold (Unicode, section 23.7)."""

MAX_CHARS = 2_000
"""Longest text that one pseudonym may stand for: an answer may name it often, and must not grow beyond reason."""

_TAIL = 17
PSEUDONYM = re.compile(r"[a-z]{1,20}_[a-z2-7]{16}", re.IGNORECASE)
"""A kind, and 80 bits of a keyed hash in base32: a word that models copy as it is, and that JSON need not escape."""


def pattern_problem(pattern: str) -> str:
    """Say what is wrong with a pattern; nothing where it can be used."""
    try:
        [found] = _marked([""], pattern)
    except ValueError as error:  # of which Arrow's own is one
        return str(error).removeprefix("Invalid regular expression: ")[:200].rstrip(".")
    return "it matches where there is nothing" if found else ""


def spans(texts: Sequence[str], pattern: str) -> Iterator[list[Span]]:
    """
    Find a pattern in each text.

    By RE2, Arrow's, whose time grows with the text alone: no pattern and no record can make it run for hours.
    """
    for marked in _marked(texts, pattern):
        found: list[Span] = []
        at = 0
        for number, piece in enumerate(marked.split(_MARK)):
            if number % 2 and piece:
                found.append((at, at + len(piece)))
            at += len(piece)
        yield found


def sendable(text: str) -> str:
    """Give a text without the noncharacter that marks matches."""
    return text.replace(_MARK, "\ufffd")


def _marked(texts: Sequence[str], pattern: str) -> list[str]:
    import pyarrow.compute as pc  # here, so that only jobs that redact pay for it

    marked = pc.replace_substring_regex(text_array(texts), pattern=pattern, replacement=rf"{_MARK}\0{_MARK}")
    found: list[str] = marked.to_pylist()
    return found


def pseudonym(key: str, kind: str, original: str) -> str:
    """Name an original: the same for the same key, kind and text, and nobody without the key can guess which."""
    digest = hmac.digest(key.encode(), f"{kind}\0{original}".encode(), hashlib.sha256)
    return f"{kind}_{base64.b32encode(digest[:10]).decode().lower()}"


def hide(text: str, found: Iterable[tuple[Span, str]], key: str) -> tuple[str, dict[str, str]]:
    """
    Put pseudonyms in the place of what was found (span, kind); gives the text, and pseudonym → original.

    Where finds overlap, all that they cover together becomes one, of the kind that begins first. Raises ValueError for
    one that is too long.
    """
    parts: list[str] = []
    originals: dict[str, str] = {}
    at = 0
    for (start, end), kind in _apart(found):
        if end - start > MAX_CHARS:
            raise ValueError(f"a find of {end - start:,} characters; at most {MAX_CHARS:,} are taken")
        name = pseudonym(key, kind, text[start:end])
        originals[name] = text[start:end]
        parts += [text[at:start], name]
        at = end
    return "".join([*parts, text[at:]]), originals


def _apart(found: Iterable[tuple[Span, str]]) -> Iterator[tuple[Span, str]]:
    """Join what overlaps, in the order of the text."""
    start, end, kind = 0, 0, ""
    for (next_start, next_end), next_kind in sorted(found, key=lambda one: (one[0][0], -one[0][1], one[1])):
        if next_start < end:
            end = max(end, next_end)
            continue
        if end:
            yield (start, end), kind
        start, end, kind = next_start, next_end, next_kind
    if end:
        yield (start, end), kind


def tails(text: str) -> set[str]:
    """Give the ends of all that looks like a pseudonym; letters that a text puts right before one do not hide it."""
    return {match[0][-_TAIL:].lower() for match in PSEUDONYM.finditer(text)}


def named(originals: Mapping[str, str], ends: set[str]) -> dict[str, str]:
    """Give those originals whose pseudonyms end like this."""
    return {name: original for name, original in originals.items() if name[-_TAIL:] in ends}


def put_back(text: str, originals: Mapping[str, str], *, is_json: bool) -> str:
    """Put originals in the place of their pseudonyms; what is none of these stays. JSON stays JSON."""
    names = {name[-_TAIL:]: name for name in originals}

    def original(match: re.Match[str]) -> str:
        name = names.get(match[0][-_TAIL:].lower(), "")
        if not name or not match[0].lower().endswith(name):
            return match[0]
        found = originals[name]
        return match[0][: -len(name)] + (json.dumps(found, ensure_ascii=False)[1:-1] if is_json else found)

    return PSEUDONYM.sub(original, text) if names else text

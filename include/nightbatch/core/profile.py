"""A profile: what good answers look like, as counts that stay small however many answers there are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

WHOLE = "answer"
"""What an answer that is free text is called, where fields have names."""

MAX_VALUES = 100
"""A field with more values than these is not counted by value: the ledger keeps the counts of every shard."""

EACH = "[]"
"""A step of a path: each item of an array. `topics[]` is what a field is called whose path is `topics`, then this."""

_MAX_DEPTH = 5


class Measure(StrEnum):
    """What is counted of a field."""

    VALUES = "values"
    """How often each value of an enum, or of a boolean, stands there."""
    LENGTH = "length"
    """The characters of a text."""
    NUMBER = "number"
    """Only whether it is inside its band."""


@dataclass(frozen=True)
class Field:
    """One field of an answer that something is counted of."""

    path: tuple[str, ...]
    """The properties that lead to it; empty for an answer that is free text."""
    measure: Measure
    values: frozenset[str] = frozenset()
    """Those that the schema allows, as text."""

    @property
    def name(self) -> str:
        """Name it as a job file does: `rating`, `price.currency` inside an object, `topics[]` for items of an array."""
        return ".".join(self.path).replace(f".{EACH}", EACH) or WHOLE

    @property
    def is_many(self) -> bool:
        """Say whether an answer may hold it several times, or not at all: it stands inside an array."""
        return EACH in self.path

    def of(self, answer: Any) -> Any:
        """Find the value in a decoded answer of a field that is not many; None where it is absent."""
        for part in self.path:
            answer = answer.get(part) if isinstance(answer, dict) else None
        return answer

    def each(self, answer: Any) -> list[Any]:
        """Find all its values in a decoded answer; None where the property is absent."""
        return values_at(self.path, answer)


@dataclass(frozen=True)
class Band:
    """Which numbers, or lengths of a text, are as they should be; None leaves a side open."""

    least: float | None = None
    most: float | None = None

    def holds(self, value: Any) -> bool:
        """Say whether a number, or the characters of a text, is inside; what is absent is."""
        if isinstance(value, str):
            value = len(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return True
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        """Say it like `0.2 to 1`."""
        least, most = ("…" if end is None else f"{end:g}" for end in (self.least, self.most))
        return f"{least} to {most}"


@dataclass
class Profile:
    """Counts over good answers. Nothing that a model wrote stands in it but values that the schema lists."""

    answers: int = 0
    values: dict[str, dict[str, int]] = field(default_factory=dict)
    """Field -> value -> answers."""
    chars: dict[str, int] = field(default_factory=dict)
    """Field -> characters in all answers together."""
    outside: dict[str, int] = field(default_factory=dict)
    """Field -> answers outside its band."""

    def __add__(self, other: Profile) -> Profile:
        """Add the answers of two profiles up."""
        values = {
            name: _sum(self.values.get(name, {}), other.values.get(name, {}))
            for name in sorted(self.values.keys() | other.values.keys())
        }
        chars, outside = _sum(self.chars, other.chars), _sum(self.outside, other.outside)
        return Profile(self.answers + other.answers, values, chars, outside)

    def share(self, name: str, value: str) -> float:
        """Give the share of answers that have a value; 0 where there are none."""
        counts = self.values.get(name, {})
        total = sum(counts.values())
        return counts.get(value, 0) / total if total else 0.0

    def length(self, name: str) -> float:
        """Give the mean number of characters of a text."""
        return self.chars.get(name, 0) / self.answers if self.answers else 0.0

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Profile:
        """Read what `as_json` wrote; nothing gives a profile of no answers."""
        return cls(**values)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted(one.keys() | other.keys())}


class Profiler:
    """Counts good answers, one by one; its memory is the schema's fields, and a row takes microseconds."""

    def __init__(self, schema: Mapping[str, Any] | None, bands: Mapping[str, Band] | None = None) -> None:
        found = ((one, one.name, (bands or {}).get(one.name)) for one in fields_of(schema))
        self._fields = [
            # Most fields stand at the top of an answer, where one look-up finds them.
            (one, name, band, _top(one), one.measure is Measure.VALUES, one.measure is Measure.LENGTH)
            for one, name, band in found
            if band or one.measure is not Measure.NUMBER
        ]
        self.profile = Profile()

    def add(self, answer: Any) -> None:
        """Count a decoded answer that fits the schema; free text as it is."""
        profile = self.profile
        profile.answers += 1
        is_object = isinstance(answer, dict)
        for one, name, band, top, is_counted, is_measured in self._fields:
            if is_object and top is not None:
                value = answer.get(top)
            elif one.is_many:
                for value in one.each(answer):
                    self._count(one, name, value)
                continue
            else:
                value = one.of(answer)
            if is_counted:
                self._count(one, name, value)
            elif is_measured and isinstance(value, str):
                profile.chars[name] = profile.chars.get(name, 0) + len(value)
            if band is not None and not band.holds(value):
                profile.outside[name] = profile.outside.get(name, 0) + 1

    def _count(self, one: Field, name: str, value: Any) -> None:
        word = value if type(value) is str else word_of(value)
        if word in one.values:
            counts = self.profile.values.setdefault(name, {})
            counts[word] = counts.get(word, 0) + 1


def _top(one: Field) -> str | None:
    return one.path[0] if len(one.path) == 1 and not one.is_many else None


def values_at(path: Sequence[str], answer: Any) -> list[Any]:
    """Find the values at a path in a decoded answer: one, or inside arrays as many as there are items."""
    found = [answer]
    for part in path:
        if part == EACH:
            found = [item for value in found if isinstance(value, list) for item in value]
        else:
            found = [value.get(part) if isinstance(value, dict) else None for value in found]
    return found


def path_of(name: str) -> tuple[str, ...]:
    """Give the path of a field by its name."""
    return tuple(name.replace(EACH, f".{EACH}").split("."))


def word_of(value: Any) -> str:
    """Write a value as text: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):  # a schema's most usual value but text, and JSON takes ten times as long to write it
        return "true" if value else "false"
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def fields_of(schema: Mapping[str, Any] | None) -> list[Field]:
    """List what can be counted of a job's answers, in the schema's order; of free text its length."""
    if schema is None:
        return [Field((), Measure.LENGTH)]
    return list(_fields(schema, schema, ()))


def _fields(part: Mapping[str, Any], root: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Field]:
    part = _plain(part, root)
    if len(path) < _MAX_DEPTH and isinstance(part.get("properties"), Mapping):
        for name, inner in part["properties"].items():
            if isinstance(inner, Mapping):
                yield from _fields(inner, root, (*path, name))
    elif len(path) < _MAX_DEPTH and isinstance(part.get("items"), Mapping):
        # Of what may come many times only values are counted: neither a mean length nor a band says much of it.
        inside = _fields(part["items"], root, (*path, EACH))
        yield from (one for one in inside if one.measure is Measure.VALUES)
    elif path:
        yield from _leaf(part, path)


def _leaf(part: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Field]:
    types = part.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    values = frozenset(map(word_of, part.get("enum", [part["const"]] if "const" in part else [])))
    if "boolean" in types and not values:
        values = frozenset(("true", "false", *(["null"] if "null" in types else [])))
    if values:
        if len(values) <= MAX_VALUES:
            yield Field(path, Measure.VALUES, values)
    elif "string" in types:
        yield Field(path, Measure.LENGTH)
    elif types & {"number", "integer"}:
        yield Field(path, Measure.NUMBER)


def _plain(part: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references inside the schema, and look past a null that may stand in a value's place."""
    for _ in range(_MAX_DEPTH):
        choices = [one for one in part.get("anyOf", ()) if isinstance(one, Mapping) and one.get("type") != "null"]
        target = part.get("$ref")
        if isinstance(target, str) and target.startswith("#/"):
            part = _at(root, target)
        elif len(choices) == 1:
            part = choices[0]
        else:
            return part
    return part


def _at(root: Mapping[str, Any], pointer: str) -> Mapping[str, Any]:
    found: Any = root
    for part in pointer[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}

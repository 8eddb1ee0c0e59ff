"""Problems of a job in plain sentences: all of them at once, each with its place and a remedy."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from .job import (
    Answer,
    DeadlineSpec,
    FileSinkSpec,
    FileSourceSpec,
    Job,
    ModelChoice,
    Notify,
    Prompt,
    QuerySourceSpec,
    RedactSpec,
    ShardSpec,
    TableSinkSpec,
)
from .job_meanings import meanings
from .job_parts import Part
from .job_values import nearest
from .job_yaml import Loc

Found = tuple[Loc, str, str]
"""Place, problem, remedy."""

_PARTS: dict[str, type[BaseModel]] = {
    "prompt": Prompt,
    "answer": Answer,
    "models": ModelChoice,
    "deadline": DeadlineSpec,
    "redact": RedactSpec,
    "shard": ShardSpec,
    "notify": Notify,
}
_MODEL = {"provider": "openai", "model": "any", "connection": "any", "max_output_tokens": 1}
# Values that are right anywhere. They take the place of what is wrong, so that the checks behind it can run too.
_STAND_INS: dict[Loc, Any] = {
    ("name",): "any",
    ("source",): {"query": "select 1", "connection": "any source", "key": "any", "whole_table": True},
    ("source", "key"): "any",
    ("source", "connection"): "any source",
    ("source", "query"): "select :window_start, :window_end",
    ("source", "files"): "any/source/",
    ("prompt",): {"user": "any"},
    ("prompt", "user"): "any",
    ("prompt", "embed"): "any",
    ("answer",): {"text": True},
    ("models",): [_MODEL],
    ("models", 0): _MODEL,
    **{("models", 0, key): value for key, value in _MODEL.items()},
    ("sink",): {"table": "any", "connection": "any sink"},
    ("sink", "table"): "any",
    ("sink", "connection"): "any sink",
    ("sink", "files"): "any/sink/",
    ("deadline",): {"at": "00:00"},
}
_PASSES = 12


def check(data: Mapping[str, Any]) -> tuple[Job | None, list[Found]]:
    """
    Make a job of plain values, or say all that is wrong with them.

    pydantic stops at a part that is wrong before it looks at how the parts fit together. So what is wrong is
    replaced by a stand-in and the rest is looked at again, until nothing new turns up.
    """
    found: dict[tuple[Loc, str], Found] = {}
    mended: set[Loc] = set()
    trial = copy.deepcopy(dict(data))
    for _ in range(_PASSES):
        try:
            job = Job.model_validate(trial)
        except ValidationError as error:
            errors = [item for item in error.errors(include_url=False) if not _is_echo(item)]
        else:
            return (job if not found else None), list(found.values())
        for item in errors:
            # What arises only around a stand-in says nothing about the file.
            if not any(_touch(item["loc"], place) for place in mended):
                place, problem, remedy = _told(item, data)
                found.setdefault((place, problem), (place, problem, remedy))
        # Backwards, so that an item that is taken out of a list moves none that is still to come.
        for item in reversed(errors):
            place = item["loc"]
            while place in mended:  # it did not help, so what is around it goes
                place = place[:-1]
            mended.add(place)
            _mend(trial, place, is_unknown=item["type"] == "extra_forbidden")
            _set_apart(trial, place)
    return None, list(found.values())


def known_keys(loc: Loc, data: Mapping[str, Any]) -> list[str]:
    """Name the keys that a job file may have at a place."""
    part = _part_at(loc, data)
    if part is None:
        return []
    keys = [field.alias or name for name, field in part.model_fields.items()]
    return [key for key in keys if key not in ("frame", "frame_name")]


def _part_at(loc: Loc, data: Mapping[str, Any]) -> type[BaseModel] | None:
    if not loc:
        return Job
    here = data.get(str(loc[0]))
    if loc == ("source",):
        return QuerySourceSpec if isinstance(here, Mapping) and "query" in here else FileSourceSpec
    if loc == ("sink",):
        return FileSinkSpec if isinstance(here, Mapping) and "files" in here else TableSinkSpec
    length = 2 if loc[0] == "models" else 1
    return _PARTS.get(str(loc[0])) if len(loc) == length else None


def _is_echo(error: Any) -> bool:
    """Say whether a list is called too short only because items of it are wrong, which is told of them."""
    return bool(error["type"] == "too_short" and error["input"])


def _touch(one: Loc, other: Loc) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _mend(trial: dict[str, Any], loc: Loc, *, is_unknown: bool) -> None:
    data: Any = trial
    for step in loc[:-1]:
        if not _has(data, step):
            return
        data = data[step]
    if not loc or not _holds(data):
        return
    stand_in = _STAND_INS.get(tuple(0 if isinstance(step, int) else step for step in loc))
    if is_unknown or stand_in is None:
        if _has(data, loc[-1]):
            del data[loc[-1]]
    elif isinstance(data, dict) or _has(data, loc[-1]):
        data[loc[-1]] = copy.deepcopy(stand_in)


def _holds(data: Any) -> bool:
    return isinstance(data, dict | list)


def _set_apart(data: Any, loc: Loc) -> None:
    """Keep a model that was mended from looking the same as another one."""
    if loc[:1] == ("models",) and len(loc) > 1 and _has(data.get("models"), loc[1]):
        model = data["models"][loc[1]]
        if isinstance(model, dict):
            model["connection"] = f"any {loc[1]}"


def _has(data: Any, step: str | int) -> bool:
    if isinstance(data, dict):
        return step in data
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _told(error: Any, data: Mapping[str, Any]) -> Found:
    loc, kind, context, value = error["loc"], error["type"], error.get("ctx", {}), error["input"]
    if kind == "nightbatch":
        return loc, context["problem"], _sentence(context["remedy"])
    if kind == "extra_forbidden":
        return loc, "this key is not known", _unknown_remedy(loc, data)
    if kind == "missing":
        return loc, "it is missing", _missing_remedy(loc, data)
    return loc, *_worded(kind, context, value, error["msg"])


def _unknown_remedy(loc: Loc, data: Mapping[str, Any]) -> str:
    keys = known_keys(loc[:-1], data)
    near = nearest(str(loc[-1]), keys)
    return f"Did you mean {near}?" if near else f"Known keys here: {', '.join(keys)}."


def _missing_remedy(loc: Loc, data: Mapping[str, Any]) -> str:
    part = _part_at(loc[:-1], data)
    meaning = meanings(part).get(str(loc[-1]), "") if part and issubclass(part, Part) else ""
    return f"Add it: {_sentence(meaning)}" if meaning else "Add it."


_LIMITS = {
    "greater_than": ("{value} is not more than {gt}", "Write a number above {gt}"),
    "greater_than_equal": ("{value} is less than {ge}", "Write a number from {ge}"),
    "less_than_equal": ("{value} is more than {le}", "Write a number up to {le}"),
    "string_too_short": ("it is empty", "Write at least one character, or remove the key"),
    "string_too_long": ("it is longer than {max_length} characters", "Shorten it"),
    "too_short": ("the list is empty", "Name at least one"),
    "literal_error": ("{value} is none of the known words", "Write one of {expected}"),
    "enum": ("{value} is none of the known words", "Write one of {expected}"),
    "finite_number": ("{value} is no finite number", "Write a plain number"),
}
_WANTED = {
    "string": ("text", "Put it in quotes"),
    "int": ("a whole number", "Write digits only, without quotes"),
    "float": ("a number", "Write a number, like 0.05"),
    "decimal": ("a number", "Write an amount, like 2.50"),
    "bool": ("true or false", "Write true or false"),
    "tuple": ("a list", "Write items below it, each with a dash, or in [ ]"),
    "list": ("a list", "Write items below it, each with a dash, or in [ ]"),
    "dict": ("a mapping of keys", "Write its keys below it, indented"),
    "model": ("a mapping of keys", "Write its keys below it, indented"),
    "time_delta": ("a span of time", "Write a whole number with a unit, like 90s, 15m, 6h or 30d"),
    "date": ("a day", "Write it like 2026-11-21"),
    "time": ("a time of day", 'Write it in quotes, like "07:00"'),
}
_PATTERNS = {
    "name": "Use small letters, digits and _, a letter first, at most 40, like review_sentiment",
    "provider": "Write openai or anthropic",
    "mail": "Write an address like data-team@example.com",
}


def _worded(kind: str, context: Mapping[str, Any], value: Any, message: str) -> tuple[str, str]:
    said = _quoted(value)
    if kind == "string_pattern_mismatch":
        pattern = str(context.get("pattern", ""))
        word = "mail" if "@" in pattern else "name" if "39" in pattern else "provider"
        return f"{said} does not have the right form", _sentence(_PATTERNS[word])
    if kind in _LIMITS:
        limits = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
        problem, remedy = (text.format(value=said, **limits) for text in _LIMITS[kind])
        return problem, _sentence(remedy)
    for start, (wanted, remedy) in sorted(_WANTED.items(), key=lambda item: -len(item[0])):
        if kind.startswith(f"{start}_"):
            return f"{said} is not {wanted}", _sentence(remedy)
    return message[:1].lower() + message[1:], "See docs/job-file.md."


def _quoted(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None:
        return "an empty value"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."

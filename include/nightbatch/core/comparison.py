"""A comparison: where the answers of two prompts to the same records differ, field by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .answer import canonical
from .profile import WHOLE, word_of

ABSENT = "(absent)"
"""Stands for a field that an answer does not have."""


@dataclass
class FieldChanges:
    """How often one field is the same in both answers, and what it is instead where it is not."""

    name: str
    same: int = 0
    differ: int = 0
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(First prompt's value, second's) -> records."""

    @property
    def share(self) -> float:
        """Give the share of records in which it differs."""
        return self.differ / (self.same + self.differ)


@dataclass
class Comparison:
    """Answers that were good with both prompts, counted by field, in the order in which fields came."""

    records: int = 0
    equal: int = 0
    """Records with the same answer in every field."""
    fields: dict[str, FieldChanges] = field(default_factory=dict)

    def add(self, first: str, second: str, *, is_json: bool) -> dict[str, tuple[str, str]]:
        """Count one record's two answers; give the fields in which they differ."""
        one, other = (values_of(text, is_json=is_json) for text in (first, second))
        changed = {}
        for name in dict.fromkeys((*one, *other)):
            pair = one.get(name, ABSENT), other.get(name, ABSENT)
            found = self.fields.setdefault(name, FieldChanges(name))
            if pair[0] == pair[1]:
                found.same += 1
            else:
                found.differ += 1
                found.changes[pair] += 1
                changed[name] = pair
        self.records += 1
        self.equal += not changed
        return changed


def values_of(text: str, *, is_json: bool) -> dict[str, str]:
    """Give the values of an answer by name: those inside objects as `price.amount`, a list as a whole, all as text."""
    return dict(_leaves(json.loads(canonical(text)), "")) if is_json else {WHOLE: text.strip()}


def _leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name or WHOLE, word_of(value)

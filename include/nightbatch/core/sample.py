"""A sample of a source: which column may name its records, and which hold the text to ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from .template import BadTemplateError, PromptTemplate

MANY_CHARS = 20
"""Columns whose values have more characters than so many, on average, are taken for text."""
MOST_TEXTS = 3
FEW = 0.1
"""The share of records that may have the key of another one where a person chose it: real sources have a few."""


@dataclass(frozen=True)
class Sample:
    """The first records of a source."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]

    def values(self, column: str) -> list[Any]:
        """Give a column's values, in order."""
        at = self.columns.index(column)
        return [row[at] for row in self.rows]

    def key_problem(self, column: str, *, few_share: bool = False) -> str:
        """Say why a column cannot name the records of the sample; empty where it can, or `few_share` one."""
        values = self.values(column)
        if missing := sum(value is None or value == "" for value in values):
            return f"{missing:,} of {len(values):,} records have none"
        if not all(isinstance(value, str | int | UUID) and not isinstance(value, bool) for value in values):
            return "its values are neither text nor whole numbers"
        twice = self.shared(column)
        if twice > (len(values) * FEW if few_share else 0):
            return f"{twice:,} of {len(values):,} records share it with another one"
        return ""

    def shared(self, column: str) -> int:
        """Count the records whose value an earlier one has."""
        values = self.values(column)
        return len(values) - len(set(values))

    def guess_key(self) -> str:
        """Choose the column that names the records: unique, never null, and named like one; empty where none is."""
        able = [column for column in self.columns if not self.key_problem(column)]
        return min(able, key=self._unlike_a_key, default="")

    def _unlike_a_key(self, column: str) -> tuple[bool, bool, float, int]:
        name = column.lower()
        is_key = name in ("id", "key", "uuid")
        ends_so = name.endswith(("_id", "_key", "_uuid")) or name.endswith("id")
        return not is_key, not ends_so, self._chars(column), self.columns.index(column)

    def _chars(self, column: str) -> float:
        values = self.values(column)
        return sum(len(str(value)) for value in values) / max(len(values), 1)

    def guess_texts(self, key: str) -> tuple[str, ...]:
        """Choose the columns to ask about, in their order: long texts, else the longest text, else all that is left."""
        others = [column for column in self.columns if column != key]
        texts = [column for column in others if any(isinstance(value, str) for value in self.values(column))]
        by_length = sorted(texts, key=self._chars, reverse=True)
        chosen = [column for column in by_length if self._chars(column) >= MANY_CHARS] or by_length[:1]
        plain = [column for column in others if all(isinstance(value, int | float) for value in self.values(column))]
        kept = set((chosen or plain)[:MOST_TEXTS])
        return tuple(column for column in others if column in kept)


def can_be_said(column: str) -> bool:
    """Say whether a template can name a column: one with a space or a word of the template language cannot."""
    try:
        # Letters alone are not enough: `not`, `loop` and our own names are letters too.
        return column.isidentifier() and PromptTemplate("", f"{{{{ {column} }}}}").columns == {column}
    except BadTemplateError:
        return False

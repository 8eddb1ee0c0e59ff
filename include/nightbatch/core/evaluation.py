"""An evaluation: how often answers agree with labels, and which are taken for which."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from .profile import word_of

MAX_LABELS = 100
"""With more labels than these nobody reads a table, and what was named is no label."""


def label_of(value: Any) -> str:
    """Write a label, or an answer, as text, so that the two can be compared: `true`, `3` for 3.0, no space around."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else word_of(str(value) if isinstance(value, Decimal) else value).strip()


@dataclass
class Evaluation:
    """Answers of one prompt and model beside their labels."""

    prompt_version: str
    model: str
    rows: int = 0
    agree: int = 0
    cost_usd: Decimal = Decimal(0)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    """Label -> answer -> rows. An answer that is no label is counted as `(other)`, so that texts stay out."""

    def add(self, label: str, answer: str, cost_usd: Decimal | None, *, labels: Iterable[str]) -> None:
        """Take in one answer that has a label."""
        self.rows += 1
        self.agree += label == answer
        self.cost_usd += cost_usd or 0
        counts = self.confusion.setdefault(label, {})
        shown = answer if answer in labels else OTHER
        counts[shown] = counts.get(shown, 0) + 1

    @property
    def accuracy(self) -> float:
        """Give the share of answers that are the label."""
        return self.agree / self.rows if self.rows else 0.0

    @property
    def usd_a_row(self) -> Decimal:
        """Give the cost of a labelled record on average; a duplicate costs nothing, and counts."""
        return self.cost_usd / self.rows if self.rows else Decimal(0)

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {
            "prompt_version": self.prompt_version,
            "model": self.model,
            "rows": self.rows,
            "agree": self.agree,
            "accuracy": round(self.accuracy, 6),
            "usd_a_record": f"{self.usd_a_row:.9f}",
            "confusion": self.confusion,
        }


OTHER = "(other)"

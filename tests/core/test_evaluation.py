"""How answers are compared with labels."""

from decimal import Decimal
from typing import Any

import pytest

from nightbatch.core.evaluation import OTHER, Evaluation, label_of


@pytest.mark.parametrize(
    ("value", "text"),
    [("  good ", "good"), (True, "true"), (3.0, "3"), (0.5, "0.5"), (None, ""), (7, "7"), (Decimal("1.5"), "1.5")],
)
def test_labels_and_answers_are_the_same_text_whatever_type_a_column_has(value: Any, text: str) -> None:
    assert label_of(value) == text


def test_accuracy_cost_and_confusion_are_of_the_labelled_rows() -> None:
    found = Evaluation("v1", "m")
    assert (found.accuracy, found.usd_a_row) == (0.0, Decimal(0))

    for label, answer in (("good", "good"), ("good", "bad"), ("bad", "bad"), ("bad", "a long story")):
        found.add(label, answer, Decimal("0.01"), labels={"good", "bad"})
    found.add("bad", "bad", None, labels={"good", "bad"})

    assert (found.rows, found.agree, found.accuracy, found.usd_a_row) == (5, 3, 0.6, Decimal("0.008"))
    assert found.confusion == {"good": {"good": 1, "bad": 1}, "bad": {"bad": 2, OTHER: 1}}
    assert "a long story" not in str(found.as_json())

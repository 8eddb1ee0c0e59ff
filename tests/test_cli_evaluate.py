"""`nightbatch evaluate`: answers in the sink beside labels in a file, as a person types it."""

import json
import re
from pathlib import Path

import pytest

from tests.test_cli import GOOD, folder, typed, vendor

__all__ = ["folder", "vendor"]

FROM = "2026-11-21"
LABELS = "id,people\nk0,text 0\nk1,text 1\nk2,another\nk9,text 9\nk3,\n"


@pytest.mark.usefixtures("vendor")
def test_answers_are_compared_with_labels_by_prompt_and_model(folder: Path) -> None:
    (folder / "tickets.yaml").write_text(GOOD)
    (folder / "labels.csv").write_text(LABELS)
    assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0
    (folder / "tickets.yaml").write_text(GOOD.replace('"{{ text }}"', '"{{ text }}", version: second'))
    assert typed("run", "tickets.yaml", "--from", "2026-11-22", "--refresh", "--limit", "1").exit_code == 0
    asked = ("evaluate", "tickets.yaml", "--labels", "labels.csv", "--label", "people")

    told = json.loads(typed(*asked, "--json").stdout)
    shown = typed(*asked)

    assert (told["field"], told["unanswered"], told["unlabelled"]) == ("answer", 1, 2)
    assert [(one["rows"], one["agree"], one["accuracy"]) for one in told["groups"]] == [(2, 1, 0.5), (1, 1, 1.0)]
    assert re.fullmatch("second@[0-9a-f]{12}", told["groups"][1]["prompt_version"])
    assert told["groups"][0]["confusion"] == {"another": {"(other)": 1}, "text 1": {"text 1": 1}}
    assert float(told["groups"][0]["usd_a_record"]) > 0
    assert shown.exit_code == 0, shown.output
    assert "50.0%" in shown.output
    assert "1 labels have no answer; 2 answers have no label" in shown.output


def test_what_cannot_be_compared_is_said_in_a_sentence(folder: Path) -> None:
    (folder / "labels.csv").write_text(LABELS)

    absent = typed("evaluate", "tickets.yaml", "--labels", "labels.csv")
    nowhere = typed("evaluate", "tickets.yaml", "--labels", "nowhere.csv")
    unconnected = typed("evaluate", "tickets.yaml", "--labels", "select 1 from t", "--connection", "warehouse")

    assert absent.exit_code == 2
    assert "it has no column answer. Use --key and --label: id, people" in " ".join(absent.output.split())
    assert nowhere.exit_code == 2
    assert unconnected.exit_code == 2

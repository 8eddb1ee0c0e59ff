"""`nightbatch costs`, and what `plan` says of past estimates, as a person types them."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from tests.test_cli import folder, typed, vendor

__all__ = ["folder", "vendor"]

FROM = "2026-11-21"


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_nothing_billed_is_said_in_a_sentence(folder: Path) -> None:
    assert "nothing was billed" in typed("costs").output


def test_a_bill_is_told_beside_what_real_time_would_have_cost(folder: Path, vendor: str) -> None:
    books = json.loads(typed("run", "tickets.yaml", "--from", FROM, "--json").stdout)

    shown = words(typed("costs").output)
    found = json.loads(typed("costs", "--by", "lane", "--by", "prompt", "--json").stdout)

    assert "tickets openai gpt-5-mini 5" in shown
    assert "50%" in shown
    (line,) = found["costs"]
    assert line["lane"] == "openai gpt-5-mini openai_default batch"
    assert len(line["prompt"]) == 12
    assert Decimal(line["batch_usd"]) == Decimal(books["cost_usd"])
    assert Decimal(found["total"]["realtime_usd"]) == Decimal(books["realtime_usd"])


def test_a_plan_rests_on_what_was_billed_and_says_how_near_the_last_one_was(folder: Path, vendor: str) -> None:
    before = words(typed("plan", "tickets.yaml", "--from", FROM).output)
    typed("run", "tickets.yaml", "--from", FROM)
    plan = ("plan", "tickets.yaml", "--from", "2026-11-22")
    records = [{"id": f"n{number}", "text": f"text {number}!"} for number in range(5)]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))

    after, found = words(typed(*plan).output), json.loads(typed(*plan, "--json").stdout)

    assert "a guess, a third of the cap" in before
    assert "past estimates none yet" in before
    assert "learned from 5 answers of this job" in after
    assert "past estimates the last run was billed" in after
    assert found["rests_on_rows"] == 5
    (past,) = found["past"]
    assert Decimal(past["actual_usd"]) > 0
    # The same questions but for one letter: the bill of the first night is what the second is expected to cost.
    assert Decimal(found["expected_usd"]) == pytest.approx(Decimal(past["actual_usd"]), rel=Decimal("0.1"))


def test_a_day_that_is_none_is_a_mistake_of_the_command(folder: Path) -> None:
    wrong = typed("costs", "--from", "yesterday")

    assert wrong.exit_code == 2
    assert "'yesterday' is no day" in wrong.output

"""`nightbatch diff`: two prompts side by side, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nightbatch import cli_show
from nightbatch.cli import app
from nightbatch.emulator import EmulatorSettings, running
from nightbatch.steps import trial
from tests.test_cli import GOOD, folder, reach, typed, vendor

__all__ = ["folder", "vendor"]

SCHEMA = """
answer:
  schema:
    type: object
    properties: {sentiment: {type: string, enum: [positive, neutral, negative]}, reason: {type: string}}
    required: [sentiment, reason]
"""
ASKED = ("diff", "tickets.yaml", "--prompt", "v1", "--prompt", "v2")


def write(folder: Path, template: str, version: str) -> None:
    (folder / "tickets.yaml").write_text(GOOD.replace('"{{ text }}"', f'"{template}", version: {version}') + SCHEMA)


@pytest.fixture
def two_versions(folder: Path, vendor: str) -> Path:
    """Have run a first prompt, and edited it."""
    moods = ("It is great.", "It is awful.", "It is red.", "I love it.", "\x1b[31mBroken and bad.")
    records = [{"id": f"k{number}", "text": text} for number, text in enumerate(moods)]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    write(folder, "{{ text }}", "v1")
    assert typed("run", "tickets.yaml").exit_code == 0
    write(folder, "{{ text }} I hate it, it is horrible and terrible.", "v2")
    return folder


def test_differences_are_counted_by_field_and_shown_side_by_side_within_80_columns(
    two_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_show, "WIDTH_OF_PIPES", 80)

    ended = typed(*ASKED, "--yes", "--examples", "1")
    told = json.loads(typed(*ASKED, "--yes", "--json").stdout)

    assert ended.exit_code == 0, ended.output
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert "\x1b" not in ended.stdout
    versions = [one["prompt_version"] for one in told["prompts"]]
    assert [version[:3] for version in versions] == ["v1@", "v2@"]
    assert all(version in ended.stdout for version in versions)
    assert [one["verdicts"] for one in told["prompts"]] == [{"good": 5}] * 2
    mood = told["fields"][0]
    assert (mood["field"], mood["same"] + mood["differ"]) == ("sentiment", 5)
    assert {"from": "positive", "to": "negative", "records": 2} in mood["changes"]
    assert "positive → negative  2×" in ended.stdout
    assert "differ: --examples" in ended.stdout
    assert all(0 < float(one["cost_usd"]) <= float(one["worst_usd"]) for one in told["prompts"])
    assert len(told["records"]) == 5


def test_what_it_may_cost_is_said_first_and_nothing_is_asked_without_a_yes(two_versions: Path) -> None:
    runner = CliRunner()

    no, nobody = runner.invoke(app, ASKED, input="n\n"), runner.invoke(app, ASKED)
    only_told = json.loads(typed(*ASKED, "--json").stdout)

    for ended in (no, nobody):
        assert ended.exit_code == 0
        assert "5 requests; " in ended.output
        assert "at worst" in ended.output
        assert "nothing was asked" in ended.output
        assert "what became" not in ended.output
    assert set(only_told["prompts"][0]) == {"prompt_version", "requests", "expected_usd", "worst_usd"}
    assert "what became" in runner.invoke(app, ASKED, input="y\n").output


def test_one_prompt_is_compared_with_the_jobs_own_and_may_use_another_column(two_versions: Path) -> None:
    (two_versions / "other.j2").write_text("{{ id }}: {{ text }}")

    told = json.loads(typed("diff", "tickets.yaml", "--prompt", "other.j2", "--sample", "2", "--yes", "--json").stdout)

    assert [one["prompt_version"].split("@")[0] for one in told["prompts"]] == ["v2", "other"]
    assert len(told["records"]) == 2


def test_prompts_that_cannot_be_compared_are_a_sentence(two_versions: Path) -> None:
    for prompts, said in (
        (("v2",), "both have the same templates"),
        (("v1", "v2", "v1"), "3 are given"),
        (("v7",), "has had no prompt 'v7'"),
    ):
        words = [word for name in prompts for word in ("--prompt", name)]
        ended = typed("diff", "tickets.yaml", *words, "--yes")

        assert ended.exit_code == 2
        assert said in " ".join(ended.output.split())


def test_nothing_to_ask_and_a_vendor_that_is_away_have_exit_codes(
    two_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
    (two_versions / "records.jsonl").write_text('{"id": "k0", "text": "a"}')

    monkeypatch.setattr(trial, "TRIES", 1)

    away = typed(*ASKED, "--yes")
    (two_versions / "records.jsonl").write_text("")
    empty = typed(*ASKED, "--yes")

    assert (away.exit_code, empty.exit_code) == (75, 1), away.output + empty.output
    assert "no reply" in away.output
    assert "no records in the window" in empty.output

"""`nightbatch release`: from a stopped run to a complete one, as a person types it."""

import json
from pathlib import Path

import pytest

from nightbatch.cli_release import clean
from nightbatch.emulator import EmulatorSettings, Faults, running
from tests.test_cli import GOOD, folder, reach, typed

__all__ = ["folder"]

FROM = "2026-11-21"


def test_a_stopped_run_says_what_to_type_and_goes_on_when_it_was_typed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = GOOD + "canary: {rows: 2}\nshard: {max_rows: 2}\nmax_dead_share: 1.0\nrounds: 0\n"
    (folder / "tickets.yaml").write_text(job)
    with running(EmulatorSettings(faults=Faults.parse("refusal=1"))) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 1
    said = " ".join(typed("status", "tickets").output.split())
    assert "a person: 2 of 2 rows were answered badly (100.0%: 2 refused)" in said
    run = json.loads(typed("status", "tickets", "--json").stdout)["runs"][0]["run"]
    assert f"nightbatch release {run}" in said

    released = typed("release", run)

    assert released.exit_code == 0
    assert "nightbatch run tickets --from 2026-11-21T00:00:00+00:00" in " ".join(released.output.split())
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        again = typed("run", "tickets.yaml", "--from", FROM, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["good"] == 3


HELD = GOOD + "quality: {min_rows: 2, ranges: {answer: {max: 3}}}\n"


def held_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a job whose answers are longer than it allows; gives the run."""
    (folder / "tickets.yaml").write_text(HELD)
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        ended = typed("run", "tickets.yaml", "--from", FROM, "--json")
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["error"] == "RunHeldBack"
    return str(json.loads(typed("status", "tickets", "--json").stdout)["runs"][0]["run"])


def test_a_person_looks_at_what_the_quality_gate_holds_back_and_releases_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = held_back(folder, monkeypatch)
    said = " ".join(typed("status", "tickets").output.split())
    assert "answer outside … to 3: 5 of 5 answers (100.0%); the job allows 1.0%" in said
    assert f"nightbatch release {run} --look" in said

    looked = typed("release", run, "--look")
    told = json.loads(typed("release", "tickets", "--look", "--json").stdout)

    assert looked.exit_code == 0, looked.output
    assert "answer outside … to 3" in looked.output
    assert "k0" in looked.output
    assert (told["state"], len(told["examples"]), len(told["differences"])) == ("stopped", 5, 2)
    assert told["examples"][0]["verdict"] == "good"
    assert typed("release", run).exit_code == 0
    # Nobody sends anything any more, so no vendor is at hand.
    again = typed("run", "tickets.yaml", "--from", FROM, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["merged"] == 5


def test_a_person_discards_what_the_quality_gate_holds_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = held_back(folder, monkeypatch)

    both = typed("release", run, "--look", "--discard")
    discarded = typed("release", run, "--discard")
    again = typed("run", "tickets.yaml", "--from", FROM)

    assert both.exit_code == 2
    assert discarded.exit_code == 0
    assert "with --force the window is planned anew" in " ".join(discarded.output.split()).lower()
    assert again.exit_code == 1
    assert "a person discarded what the quality gate held back. 5 rows are dead letters" in " ".join(
        again.output.split()
    )


def test_what_a_terminal_would_obey_is_taken_out_of_an_answer() -> None:
    assert clean("a\x1b[31mred\u202e\nb" + "x" * 400) == "a�[31mred� b" + "x" * 288 + "…"


def test_a_run_without_a_canary_is_answered_with_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0

    refused = typed("release", "tickets")

    assert refused.exit_code == 1
    assert "neither a quality gate nor a canary holds anything back" in refused.output

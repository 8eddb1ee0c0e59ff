"""`nightbatch release`: from a stopped run to a complete one, as a person types it."""

import json
from pathlib import Path

import pytest

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


def test_a_run_without_a_canary_is_answered_with_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0

    refused = typed("release", "tickets")

    assert refused.exit_code == 1
    assert "no canary holds anything back" in refused.output

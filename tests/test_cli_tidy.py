"""`nightbatch tidy`, as a person types it."""

import json
import sqlite3
from pathlib import Path

import pytest

from nightbatch.emulator import EmulatorSettings, running
from tests.test_cli import GOOD, folder, reach, typed

__all__ = ["folder"]

FROM = "2026-11-21"


def test_files_past_their_retention_are_named_and_then_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tickets.yaml").write_text(GOOD + "retention: 0\n")
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0

        would = json.loads(typed("tidy", "--dry-run", "--json").stdout)
        said = typed("tidy", "--dry-run").output
        done = json.loads(typed("tidy", "--json").stdout)
        again = json.loads(typed("tidy", "--json").stdout)

    assert (would["dry_run"], would["runs"]) == (True, 1)
    assert would["files"] == done["files"] > 3
    assert would["size_bytes"] == done["size_bytes"] > 0
    assert f"would remove {would['files']} files of 1 run" in said
    assert (again["runs"], again["kept"], again["problems"]) == (0, {}, {})


def test_a_run_whose_files_are_gone_stops_with_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tickets.yaml").write_text(GOOD + "retention: 0\n")
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0
        assert typed("tidy").exit_code == 0

        stopped = typed("run", "tickets.yaml", "--from", FROM)

    assert stopped.exit_code == 1
    assert "StagingRemoved" in stopped.output
    assert "Nothing was read, sent or paid" in " ".join(stopped.output.split())


def test_what_is_within_its_retention_is_said_to_be_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0
        said, kept = typed("tidy"), json.loads(typed("tidy", "--json").stdout)["kept"]

    assert kept == {"within retention": 1}
    assert (said.exit_code, "kept the files of 1 run: 1 within retention" in said.output) == (0, True)


def test_a_batch_that_nobody_owns_is_named_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(EmulatorSettings()) as url:
        reach(url, monkeypatch)
        assert typed("run", "tickets.yaml", "--from", FROM).exit_code == 0
        clean = typed("orphans", "--json")
        with sqlite3.connect(folder / ".nightbatch" / "ledger.sqlite") as ledger:
            ledger.execute("update nb_attempts set batch_id = 'batch_other'")
        found = json.loads(typed("orphans", "--json").stdout)
        said = typed("orphans")

    assert clean.exit_code == 0, clean.output
    assert (clean.exit_code, json.loads(clean.stdout)["accounts"][0]["counts"]) == (0, {"owned": 1})
    [orphan] = found["accounts"][0]["orphans"]
    assert (orphan["kind"], orphan["rows"], orphan["status"]) == ("orphan", 5, "completed")
    assert said.exit_code == 1
    assert "Its rows were answered by another batch" in " ".join(said.output.split())

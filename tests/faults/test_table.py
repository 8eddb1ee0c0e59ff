"""The table at the end: no cell passes unseen, and none is skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

CELLS = """
import pytest


def test_a_good_cell(cell):
    cell.record(expected=1_000, loaded=1_000, batches=2, billed=1_000)


@pytest.mark.parametrize("vendor", ["openai"])
def test_a_bad_cell(cell, vendor):
    cell.record(expected=3, loaded=2)
    assert cell.loaded == cell.expected


def test_a_silent_cell(cell):
    pass


def test_a_skipped_cell(cell):
    pytest.skip("no time")
"""


def test_every_cell_has_a_row_and_what_is_silent_or_skipped_has_failed(tmp_path: Path) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (tmp_path / "faults" / "test_cells.py").write_text(CELLS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = faults: a cell\n")

    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    environ = {"PYTHONPATH": str(HERE.parents[1]), "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [*command, "faults"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
    )

    shown = ended.stdout[ended.stdout.find("cell   ") :].splitlines()
    rows = [line.split() for line in shown[:6]]
    assert rows[0] == ["cell", "expected", "loaded", "batches", "billed", "seconds", "result"], ended.stdout
    assert [row[:-2] + row[-1:] for row in rows[1:5]] == [
        ["a", "bad", "cell", "[openai]", "3", "2", "–", "–", "FAILED"],
        ["a", "good", "cell", "1,000", "1,000", "2", "1,000", "ok"],
        ["a", "silent", "cell", "–", "–", "–", "–", "FAILED"],
        ["a", "skipped", "cell", "–", "–", "–", "–", "FAILED"],
    ]
    assert rows[5] == ["1", "of", "4", "cells", "ok"]
    assert ended.returncode == 1

"""The benchmarks can be run: each script loads, and the one command that runs them all knows what it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
LOAD_ALL = """
import json, sys
from importlib import import_module
modules = {name: import_module(name) for name in sys.argv[1:]}
print(json.dumps({"scripts": modules["table"].SCRIPTS, "says": modules["table"].__doc__}))
"""


def test_every_benchmark_loads_and_the_table_says_how_long_each_takes() -> None:
    names = sorted(file.stem for file in FOLDER.glob("*.py"))

    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *names], cwd=FOLDER, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert re.findall(r"^    (\w+) +\d+ {3}", found["says"], re.MULTILINE) == found["scripts"]
    assert set(found["scripts"]) <= set(names)


def test_what_was_not_measured_anew_stays_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    table = import_module("table")
    head = ["| part | asked for |", "| --- | --- |"]
    page = "\n".join(
        ["Text", "<!-- figures -->", *head, "| a | 1 |", "| b | 1 |", "", "Python 1", "<!-- end -->", "More", ""]
    )

    found = table.written(page, [*head, "| b | 2 |", "| c | 2 |", "\nPython 2"])

    lines = [*head, "| a | 1 |", "| b | 2 |", "| c | 2 |", "", "Python 2"]
    assert found == "\n".join(["Text", "<!-- figures -->", *lines, "<!-- end -->", "More", ""])
    assert table.written(found, [*head, "\nPython 2"]) == found

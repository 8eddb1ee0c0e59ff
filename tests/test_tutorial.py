"""What the tutorial and the README tell people to type works, in the order in which they stand there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightbatch.emulator import EmulatorSettings, running
from tests.pages import Block, Reader, blocks_of

ROOT = Path(__file__).parents[1]
TUTORIAL = list(blocks_of(ROOT / "docs" / "tutorial.md"))
README = list(blocks_of(ROOT / "README.md"))
HELD_ELSEWHERE = {
    "yaml": "tests/test_docs.py::test_the_job_of_the_readme_is_a_job",
    "python": "tests/test_docs.py::test_the_five_lines_of_the_readme_are_those_of_the_dag_file",
    "python s3": "tests/test_docs.py::test_the_script_for_s3_is_python",
    "sql ledger": "tests/test_docs.py::test_every_query_of_the_readme_runs",
    "sql warehouse": "tests/test_docs.py::test_every_query_of_the_readme_runs",
}
"""Blocks of the README that are no commands, and the test that holds them."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody in an empty folder, with a vendor whose batches take no time."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN", "NIGHTBATCH"))]:
        del os.environ[name]
    monkeypatch.chdir(tmp_path)
    with running(EmulatorSettings()) as vendor:
        os.environ |= {"COLUMNS": "100", "PATH": f"{ROOT / '.venv' / 'bin'}:{before['PATH']}"}
        yield Reader({"http://127.0.0.1:8399": vendor, "POLL_FROM_S=1": "POLL_FROM_S=0.1"})
    os.environ.clear()
    os.environ.update(before)


def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    for block in TUTORIAL:
        reader.read(block)

    assert sum(block.kind == "bash" and not block.is_left_out for block in TUTORIAL) >= 20
    assert sum(block.kind == "text" and not block.title for block in TUTORIAL) >= 15


def test_the_commands_of_the_readme_work_on_the_table_of_the_tutorial(reader: Reader) -> None:
    [table] = [block for block in TUTORIAL if block.title == "tickets.csv"]
    reader.read(table)
    Path("new.j2").write_text("What is this customer's mood? {{ body }}")
    Path("labels.csv").write_text("id,label\n1001,negative\n1002,positive\n")

    for block in README:
        if block.kind not in HELD_ELSEWHERE:
            reader.read(block)

    assert json.loads(Path("include/jobs/job.schema.json").read_text())["title"]


def test_every_block_is_run_or_it_is_said_why_not() -> None:
    def is_accounted(block: Block) -> bool:
        return block.is_left_out or bool(block.title) or block.kind in ("bash", "text", "mermaid", *HELD_ELSEWHERE)

    assert [block for block in (*TUTORIAL, *README) if not is_accounted(block)] == []
    assert {block.kind for block in README} >= set(HELD_ELSEWHERE)

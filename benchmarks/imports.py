"""
Time what a Dag file costs Airflow at every parse, beyond what Airflow itself has imported by then.

    .venv/bin/python benchmarks/imports.py [TURNS]

The example jobs of this project are parsed by its own Dag file, in a process that has loaded what Airflow's Dag
processor has. The other Dag file has one empty task, and names of Airflow what ours do (an asset in S3 loads Airflow's
whole S3 provider); the difference is ours. What tasks import is held by tests (`test_a_run_imports_only_what_it_uses`).
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from turns import Row, Variant, asked_for, finish, in_turn, play

PROJECT = Path(__file__).parents[1]
MOST_MS = 50.0
EMPTY = """
import airflow.dag_processing.processor
from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, TaskGroup, TriggerRule, BaseOperator
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert

with DAG("empty", schedule=None):
    BaseOperator(task_id="nothing", outlets=[Asset("answers", uri="s3://bucket/answers")])
"""


def parse(text: str, file: Path) -> Mapping[str, Any]:
    """Execute a Dag file twice, as a processor does that has just started, and again."""
    code, seconds = compile(text, str(file), "exec"), []
    # What the processor has loaded before it opens a file.
    exec(compile(EMPTY, "empty.py", "exec"), {"__file__": "empty.py"})
    gc.freeze()  # as Airflow's manager does before it forks the process that parses
    for _ in range(2):
        began = time.process_time()
        exec(code, {"__file__": str(file), "__name__": "dags"})
        seconds.append(time.process_time() - began)
    pandas = float("pandas" in sys.modules)
    return {"rows": 1, "first_ms": seconds[0] * 1000, "again_ms": seconds[1] * 1000, "pandas": pandas}


def ours(data: Path, out: Path) -> Mapping[str, Any]:
    """Parse this project's Dag file of all job files."""
    file = PROJECT / "dags" / "nightbatch_jobs.py"
    return parse(file.read_text(), file)


def empty(data: Path, out: Path) -> Mapping[str, Any]:
    """Parse the empty Dag."""
    return parse(EMPTY, out / "empty.py")


VARIANTS: dict[str, Variant] = {"nightbatch_jobs.py": ours, "an empty Dag": empty}


def main() -> None:
    """Let both take turns."""
    if play(VARIANTS):
        return
    (turns,) = asked_for(5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        found = in_turn(__file__, VARIANTS, Path(name), pairs=turns)
    mine, theirs = found["nightbatch_jobs.py"], found["an empty Dag"]
    first, again = (mine[figure] - theirs[figure] for figure in ("first_ms", "again_ms"))
    jobs = len(list((PROJECT / "include" / "jobs").glob("*.yaml")))
    seen = f"{first:.0f} ms with all imports, {again:.0f} ms again ({jobs} jobs)"
    row = Row("import: a Dag file parses in, of its own", f"≤ {MOST_MS:.0f} ms", seen, first <= MOST_MS)
    pandas = bool(mine["pandas"])
    rows = [row, Row("import: pandas in none", "no", "yes" if pandas else "no", not pandas)]
    finish(__file__, found, rows, turns=turns)


if __name__ == "__main__":
    main()

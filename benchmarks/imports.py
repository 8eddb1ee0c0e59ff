"""
Time what a Dag file costs Airflow at every parse, beyond what Airflow itself has imported by then.

    .venv/bin/python benchmarks/imports.py [TURNS]

The example jobs of this project are parsed by its own Dag file, in a process that has loaded what Airflow's Dag
processor has, and names of Airflow what ours do (an asset in S3 loads Airflow's whole S3 provider). Another Dag file
holds the same Dags as a person would write them out, with tasks that do nothing: the same schedules, params, groups of
tasks and their order. That is what Airflow takes to make them; the difference is ours. A third has one empty task.
What tasks import is held by tests (`test_a_run_imports_only_what_it_uses`).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
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


def written_out(data: Path, out: Path) -> Mapping[str, Any]:
    """Parse the same Dags, written out."""
    file = data / "written_out.py"
    return parse(file.read_text(), file)


def write_out(file: Path) -> None:
    """Write this project's Dags as a person would, without anything of this project; in a process of its own."""
    from airflow.sdk import DAG

    mine = PROJECT / "dags" / "nightbatch_jobs.py"
    names: dict[str, Any] = {"__file__": str(mine), "__name__": "dags"}
    exec(compile(mine.read_text(), str(mine), "exec"), names)
    lines = ["from airflow.sdk import DAG, Asset, BaseOperator, CronDataIntervalTimetable, Param, TaskGroup"]
    for dag in [dag for dag in names.values() if isinstance(dag, DAG)]:
        timetable = 'CronDataIntervalTimetable("0 0 * * *", timezone="UTC")'
        lines += [f"with DAG({dag.dag_id!r}, schedule={timetable}, params={{"]
        for name in dag.params:
            param = dag.params.get_param(name)
            schema = json.loads(json.dumps(param.schema))
            lines += [f"    {name!r}: Param({param.value!r}, description={param.description!r}, **{schema!r}),"]
        lines += [
            "}):",
            *(f"    g_{name} = TaskGroup({name!r})" for name in dag.task_group.get_task_group_dict() if name),
        ]
        for number, task in enumerate(dag.tasks):
            group, _, label = task.task_id.rpartition(".")
            place = f", task_group=g_{group}" if group else ""
            place += ", outlets=[Asset('answers', uri='s3://bucket/answers')]" if task.outlets else ""
            lines += [f"    t{number} = BaseOperator(task_id={label!r}{place})"]
        places = {task.task_id: number for number, task in enumerate(dag.tasks)}
        lines += [f"    t{places[one.task_id]} >> t{places[to]}" for one in dag.tasks for to in one.downstream_task_ids]
    file.write_text("\n".join(lines))


def empty(data: Path, out: Path) -> Mapping[str, Any]:
    """Parse the empty Dag."""
    return parse(EMPTY, out / "empty.py")


VARIANTS: dict[str, Variant] = {"nightbatch_jobs.py": ours, "the same, written out": written_out, "an empty Dag": empty}


def main() -> None:
    """Let all take turns."""
    if play(VARIANTS):
        return
    (turns,) = asked_for(5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        with ProcessPoolExecutor(1) as apart:
            apart.submit(write_out, Path(name) / "written_out.py").result()
        found = in_turn(__file__, VARIANTS, Path(name), pairs=turns)
    mine, theirs, nothing = found.values()
    first, again = (mine[figure] - theirs[figure] for figure in ("first_ms", "again_ms"))
    jobs = len(list((PROJECT / "include" / "jobs").glob("*.yaml")))
    beyond = mine["first_ms"] - nothing["first_ms"]
    seen = f"{first:.0f} ms with all imports, {again:.0f} ms again ({jobs} jobs; {beyond:.0f} ms beyond an empty Dag)"
    row = Row("import: a Dag file parses in, of its own", f"≤ {MOST_MS:.0f} ms", seen, first <= MOST_MS)
    pandas = bool(mine["pandas"])
    rows = [row, Row("import: pandas in none", "no", "yes" if pandas else "no", not pandas)]
    finish(__file__, found, rows, turns=turns)


if __name__ == "__main__":
    main()

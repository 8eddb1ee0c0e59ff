"""
Time one job by `nightbatch run` and by a real Airflow with its metadata on PostgreSQL: the same records, many shards.

    .venv/bin/python benchmarks/through_airflow.py [RECORDS] [PAIRS]

Short records from Parquet, answers into a table, ledger on PostgreSQL in both; the emulator answers at once. Compared
are the CPU seconds inside the functions of `flow` (`clocked.py`), without what is imported in them, which is told
beside. Whole processes: `nightbatch run` from its start to its end, and every part of Airflow and every task from the
trigger to the run's end. The vendor and the database are counted in neither. Airflow is started once, and runs as many
tasks at a time as there are cores.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from clocked import clocked
from records import DAY, NEXT_DAY, SHORT, job_values, make
from turns import Row, asked_for, finish, median_of

from nightbatch.demo.installation import KEY, PROJECT
from nightbatch.demo.services.airflow import AirflowServer
from nightbatch.demo.services.postgres import PostgresServer
from nightbatch.demo.services.postgres import airflow_connection as postgres_connection
from nightbatch.demo.services.stack import Stack

SHARDS, MOST = 25, 1.2
TASKS = os.cpu_count() or 2
"""Tasks at a time: eight on two cores take each other's caches, which says nothing about what a step costs."""
DAG_FILE = f"""
import sys
from pathlib import Path

sys.path.insert(0, {str(Path(__file__).parent)!r})
from clocked import clock

clock()
from nightbatch.orchestration.dag import build_dags  # airflow finds Dag files by this word

globals().update(build_dags(Path(__file__).parent / "jobs"))
"""


def tree_s(pid: int) -> float:
    """Give the CPU seconds of a process and of all that it has started, ended or not."""
    import psutil

    root, total = psutil.Process(pid), 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def by_hand(file: Path, environ: dict[str, str]) -> dict[str, float]:
    """Run the job as a person types it."""
    span = ["--from", DAY.isoformat(), "--to", NEXT_DAY.isoformat(), "--json"]
    script = Path(__file__).parent / "clocked.py"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, "run", file, *span], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:] + done.stdout[-2000:])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    took = {"whole_s": cpu, "wall_s": time.perf_counter() - began, "rows": json.loads(done.stdout)["merged"]}
    return {**clocked(Path(environ["BENCH_CLOCK"])), **took}


def by_airflow(airflow: AirflowServer, job: str, clock: Path) -> dict[str, float]:
    """Let Airflow run the job."""
    clock.unlink(missing_ok=True)
    airflow.api.wait_for_dag(job)
    airflow.api.unpause(job)
    pid = airflow.process.pids[0]
    before, began = tree_s(pid), time.perf_counter()
    conf = {"window_start": DAY.isoformat(), "window_end": NEXT_DAY.isoformat()}
    run = str(airflow.api.trigger(job, conf=conf)["dag_run_id"])
    state = airflow.api.wait_for_run(job, run, timeout_s=3_600)["state"]
    if state != "success":
        raise SystemExit(f"the run in Airflow ended as {state}; its logs are in {airflow.settings.folder}/logs")
    took = {"whole_s": tree_s(pid) - before, "wall_s": time.perf_counter() - began}
    return {**clocked(clock), **took}


def loaded(url: str, table: str) -> int:
    """Count the answers in a table."""
    import psycopg

    with psycopg.connect(url) as database:
        (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    return int(count)


def emulator(folder: Path) -> Callable[[int], list[str]]:
    """Give the command line of a vendor that answers at once."""
    serve = [sys.executable, "-m", "nightbatch.cli", "emulator", "serve", "--exit-with-parent"]
    options = ["--key", KEY, "--batch-seconds", "0", "--executor", "echo", "--data-dir", str(folder)]
    return lambda port: [*serve, *options, "--port", str(port)]


def environment(stack: Stack, postgres: PostgresServer, name: str) -> dict[str, str]:
    """Say where one of the two keeps what it has: each has a ledger and a folder of its own."""
    folder = stack.folder / name
    folder.mkdir()
    return {
        "NIGHTBATCH_HOME": str(folder),
        "NIGHTBATCH_STAGING_URI": f"file://{folder}/staging",
        "NIGHTBATCH_LEDGER_URL": postgres.create_database(f"ledger_{name}"),
        "NIGHTBATCH_POLL_FROM_S": "1",
        "NIGHTBATCH_POLL_TO_S": "1",
        "BENCH_CLOCK": str(folder / "clock.jsonl"),
    }


def write_jobs(folder: Path, data: Path, records: int, pairs: int) -> None:
    """Write a job for each turn, so that none finds answers of an earlier one, and their Dag file."""
    (folder / "jobs").mkdir(parents=True)
    (folder / "all.py").write_text(DAG_FILE)
    for turn in range(pairs):
        sink = {"connection": "warehouse", "table": f"answers_{turn}"}
        values = job_values({"files": f"{data}/records.parquet"}, sink, shard={"max_rows": -(-records // SHARDS)})
        (folder / "jobs" / f"bench_{turn}.yaml").write_text(json.dumps(values | {"name": f"bench_{turn}"}))


def rows(found: dict[str, dict[str, float]], records: int) -> list[Row]:
    """Compare with what was asked for."""
    hand, airflow = found["nightbatch run"], found["airflow"]
    times, part = airflow["steps_s"] / hand["steps_s"], f"{records:,} records, {SHARDS} shards, through Airflow"
    steps = f"{times:.2f} × ({airflow['steps_s']:.1f} s; imports in them {airflow['imports_s']:.1f} s more)"
    wholes = f"{airflow['whole_s']:.0f} s in {airflow['wall_s']:.0f} s"
    other = f"{hand['whole_s']:.0f} s in {hand['wall_s']:.0f} s"
    return [
        Row(f"{part}: CPU in our steps, of `nightbatch run`'s", f"≤ {MOST} ×", steps, times <= MOST),
        Row(f"{part}: CPU of all its processes", "told", f"{wholes} (`nightbatch run`: {other})", None),
    ]


def main() -> None:
    """Start everything, and let both take turns."""
    records, pairs = asked_for(1_000_000, 5)
    told: dict[str, list[dict[str, float]]] = {"nightbatch run": [], "airflow": []}
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        data, dags = Path(name) / "data", Path(name) / "dags"
        data.mkdir()
        make(data, records, size=SHORT)
        write_jobs(dags, data, records, pairs)
        postgres = stack.start_postgres()
        vendor = stack.start_http_command(
            "vendor", emulator(Path(name) / "vendor"), ready_path="/emulator/health"
        ).address
        connections: dict[str, Any] = {
            "openai_default": json.dumps({"conn_type": "openai", "host": f"{vendor}/v1", "password": KEY})
        }
        sinks = {each: postgres.create_database(f"sink_{each}") for each in ("hand", "airflow")}
        hand = environment(stack, postgres, "hand")
        theirs = environment(stack, postgres, "theirs")
        airflow = stack.start_airflow(
            postgres,
            dags_folder=dags,
            plugins_folder=PROJECT / "plugins",
            connections={**connections, "warehouse": postgres_connection(sinks["airflow"])},
            settings=lambda chosen: replace(chosen, parallelism=TASKS, extra={**chosen.extra, **theirs}),
        )
        hand |= {
            "AIRFLOW_CONN_OPENAI_DEFAULT": connections["openai_default"],
            "AIRFLOW_CONN_WAREHOUSE": postgres_connection(sinks["hand"]),
        }
        for turn in range(pairs):
            job = f"bench_{turn}"
            Path(hand["BENCH_CLOCK"]).unlink(missing_ok=True)
            told["nightbatch run"].append(by_hand(dags / "jobs" / f"{job}.yaml", {**os.environ, **hand}))
            print(f"  {turn + 1}/{pairs} by hand: {told['nightbatch run'][-1]['steps_s']:.1f} s", file=sys.stderr)
            found = by_airflow(airflow, job, Path(theirs["BENCH_CLOCK"]))
            told["airflow"].append(found | {"rows": loaded(sinks["airflow"], f"answers_{turn}")})
            print(f"  {turn + 1}/{pairs} by Airflow: {found['steps_s']:.1f} s", file=sys.stderr, flush=True)
            for folder in (Path(hand["NIGHTBATCH_HOME"]), Path(theirs["NIGHTBATCH_HOME"])):
                rmtree(folder / "staging" / job)  # a turn leaves gigabytes
            # After each turn, so that what is cut short keeps what it found.
            found_all = median_of(told)
            finish(__file__, found_all, rows(found_all, records), turns=turn + 1)
    for name, figures in found_all.items():
        print(name, {figure: round(value, 2) for figure, value in figures.items()})


if __name__ == "__main__":
    main()

"""
Measure the memory and the CPU of every step, with every kind of source and sink, at two sizes.

    .venv/bin/python benchmarks/memory.py [SMALL] [LARGE] [KIND ...] [turns=N]

Records have some 2 KB of text. A step runs in a process of its own that has imported beforehand whatever the step
imports (a tiny run told); its memory is the most that the process then held, less what it held before. Both sizes
fill shards of the same size, so that they differ only in how many there are.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from records import job_values, make
from turns import Row, Variant, finish, held_mb, high_water_mb, medians, play, turns_asked

TINY, SHARD_ROWS = 1_000, 50_000
KINDS = ("parquet", "jsonl", "csv", "postgres", "duckdb")
"""Of source and sink both; answers to records of CSV go into Parquet."""
QUERY = "SELECT id, product, text FROM reviews ORDER BY id"
LIMITS_MB = {"jsonl": 60.0}
LIMIT_MB = 150.0
GROWTH = 1.1
LEAST = {"own_mb": 10.0, "us": 1.0}
"""Below this many megabytes, or microseconds a record, what grew is noise: the smaller size counts as that much."""


# --- one step -------------------------------------------------------------------------------------------------


def measured(step: Callable[[Any, Any, str], Mapping[str, Any] | None]) -> Variant:
    """Make a variant of a step: with all imports done, and memory and CPU counted from there."""

    def variant(data: Path, out: Path) -> Mapping[str, Any]:
        known = data.parent / f"{data.name.partition('-')[0]} {step.__name__}.json"
        for module in json.loads(known.read_text()) if known.exists() else ():
            with suppress(ImportError):
                import_module(module)
        ports, job, run = opened(data)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts from here
        before, cpu = held_mb(), time.process_time()
        found = step(ports, job, run) or {}
        used = time.process_time() - cpu
        if not known.exists():
            known.write_text(json.dumps(sorted(sys.modules.keys() - {"__main__"})))
        return {**found, "own_mb": high_water_mb() - before, "step_s": used}

    return variant


def opened(data: Path) -> tuple[Any, Any, str]:
    """Open what a step needs; there is no run before prepare."""
    from vendor import ports_of

    from nightbatch.job import Job

    values = json.loads((data / "job.json").read_text())
    job = Job.model_validate(values["job"])
    ports = ports_of(job, data / "home", data / "answers", **values["connections"])
    return ports, job, next((run.run for run in ports.ledger.runs()), "")


def prepare(ports: Any, job: Any, _run: str) -> None:
    """Pull, render and pack."""
    from vendor import WINDOW

    from nightbatch import flow

    flow.prepare(ports, job, WINDOW)


def submit(ports: Any, job: Any, run: str) -> None:
    """Send, to a vendor that takes everything at once."""
    from nightbatch.steps.submit import submit

    for shard in ports.ledger.shards(run):
        submit(ports, job, shard)


def collect(ports: Any, job: Any, run: str) -> None:
    """Keep what came back."""
    from nightbatch.steps.collect import collect

    vendor = ports.provider("openai", "openai_default")
    for shard in ports.ledger.shards(run):
        collect(ports, shard, vendor.poll(shard.current.batch_id))


def validate(ports: Any, job: Any, run: str) -> None:
    """Check every answer, and book what it cost."""
    from nightbatch.steps.validate import validate

    for shard in ports.ledger.shards(run):
        validate(ports, job, shard)


def load(ports: Any, job: Any, run: str) -> None:
    """Load."""
    from nightbatch.steps.load import load

    for shard in ports.ledger.shards(run):
        load(ports, job, shard)


def settle(ports: Any, job: Any, run: str) -> None:
    """Sort what was not good, add up and prove."""
    from nightbatch import flow
    from nightbatch.errors import RunIncomplete

    flow.close_round(ports, job, run, 0)
    with suppress(RunIncomplete):  # a few answers were errors, and no round is left
        flow.finish(ports, job, run)


def answer(data: Path, out: Path) -> Mapping[str, Any]:
    """Write the answers to all shards, once for each size: all kinds ask the same; not measured."""
    import vendor

    ports, _, run = opened(data)
    (data / "answers").mkdir()
    for shard in ports.ledger.shards(run):
        batch = shard.current.batch_id
        prefix, number, rows = batch.rsplit("_", 2)
        known = data.parent / f"answers-{number}-{rows}-of-{len(ports.ledger.shards(run))}.jsonl"
        if not known.exists():
            vendor.write_answers(data / "answers", batch)
            known.with_suffix(".prefix").write_text(prefix)
            os.link(data / "answers" / f"{batch}.jsonl", known)
        else:
            theirs, mine = known.with_suffix(".prefix").read_bytes() + b"_", f"{prefix}_".encode()
            with known.open("rb") as lines, (data / "answers" / f"{batch}.jsonl").open("wb") as file:
                file.writelines(line.replace(theirs, mine, 1) for line in lines)
    return {}


STEPS = (prepare, submit, collect, validate, load, settle)
VARIANTS: dict[str, Variant] = {step.__name__: measured(step) for step in STEPS} | {"answer": answer}


# --- the sources ----------------------------------------------------------------------------------------------


def into_text(data: Path, kind: str) -> dict[str, Any]:
    """Write the records as JSON lines or CSV."""
    import csv

    file = data / f"records.{kind}"
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        if kind == "csv":
            table.writerow(["id", "product", "text"])
        for row in records_of(data):
            if kind == "csv":
                table.writerow(row)
            else:
                out.write(json.dumps(dict(zip(("id", "product", "text"), row, strict=True)), ensure_ascii=False) + "\n")
    return {"files": str(file)}


def into_postgres(data: Path) -> dict[str, Any]:
    """Put the records into a table of PostgreSQL, and empty the sink's."""
    import psycopg

    with psycopg.connect(os.environ["BENCH_POSTGRES"]) as database, database.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS reviews, answers, answers_dead_letters")
        cursor.execute("CREATE TABLE reviews (id text PRIMARY KEY, product text, text text)")
        with cursor.copy("COPY reviews FROM STDIN") as copy:
            for row in records_of(data):
                copy.write_row(row)
        cursor.execute("ANALYZE reviews")
    return {"query": QUERY, "connection": "source", "whole_table": True}


def into_duckdb(data: Path) -> dict[str, Any]:
    """Put the records into a table of DuckDB."""
    import duckdb

    with duckdb.connect(str(data / "source.duckdb")) as database:
        database.execute(f"CREATE TABLE reviews AS SELECT * FROM '{data}/records.parquet'")
    return {"query": QUERY, "connection": "source", "whole_table": True}


def records_of(data: Path) -> Any:
    """Stream the records."""
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(data / "records.parquet").iter_batches(1_000):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def set_up(data: Path, kind: str, records: int, shard_rows: int) -> None:
    """Make the records, and describe the job."""
    made = data.parent / f"records-{records}.parquet"
    if not made.exists():
        make(data.parent, records, name=made.name)
    os.link(made, data / "records.parquet")
    source: dict[str, Any] = {"files": f"{data}/records.parquet"}
    sink: dict[str, Any] = {"files": f"{data}/sink", "format": "jsonl" if kind == "jsonl" else "parquet"}
    connections = {}
    if kind in ("jsonl", "csv"):
        source = into_text(data, kind)
    elif kind in ("postgres", "duckdb"):
        is_duckdb = kind == "duckdb"
        source, sink = (
            into_duckdb(data) if is_duckdb else into_postgres(data),
            {"connection": "sink", "table": "answers"},
        )
        for name in ("source", "sink"):
            file = json.dumps({"conn_type": "duckdb", "host": f"{data}/{name}.duckdb"})
            connections[f"AIRFLOW_CONN_{name.upper()}"] = file if is_duckdb else os.environ["BENCH_POSTGRES"]
    job = job_values(source, sink, shard={"max_rows": shard_rows}, rounds=0)
    (data / "job.json").write_text(json.dumps({"job": job, "connections": connections}))


# --- all of them ----------------------------------------------------------------------------------------------


def night(root: Path, kind: str, records: int, shard_rows: int) -> dict[str, dict[str, float]]:
    """Run all steps of one kind and size; step -> figure."""
    found = {}
    with TemporaryDirectory(prefix=f"{kind}-", dir=root) as name:
        data = Path(name)
        set_up(data, kind, records, shard_rows)
        for step in ("prepare", "submit", "answer", "collect", "validate", "load", "settle"):
            argv = [sys.executable, __file__, "--one", step, name, name]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{kind} {step} failed:\n{done.stderr[-3000:]}")
            if step != "answer":
                found[step] = json.loads(done.stdout.splitlines()[-1])
                found[step]["us"] = found[step]["step_s"] / records * 1e6
    return found


Nights = dict[str, dict[int, dict[str, dict[str, float]]]]
"""Kind -> records -> step -> figure."""


def nights_of(root: Path, kind: str, sizes: tuple[int, int], *, turns: int) -> dict[int, dict[str, dict[str, float]]]:
    """Let nights of both sizes take turns; records -> step -> the median of each figure."""
    told: dict[int, list[dict[str, dict[str, float]]]] = {records: [] for records in sizes}
    for turn, records in product(range(turns), sizes):
        told[records].append(night(root, kind, records, min(SHARD_ROWS, *sizes)))
        print(f"  {turn + 1}/{turns} {kind} {records:,}", file=sys.stderr, flush=True)
    return {
        records: {step: medians([one[step] for one in nights]) for step in nights[0]}
        for records, nights in told.items()
    }


def rows(nights: Nights, small: int, large: int) -> list[Row]:
    """Compare with what was asked for: the worst step of each kind."""
    told = []
    for kind, sizes in nights.items():
        first, last = sizes[small], sizes[large]
        limit = LIMITS_MB.get(kind, LIMIT_MB)
        most, step = max((last[step]["own_mb"], step) for step in last)
        part = f"memory with {kind}, {large:,} records"
        told.append(Row(part, f"≤ {limit:g} MB", f"{most:.0f} MB ({step})", most <= limit))
        for figure, what in (("own_mb", "memory"), ("us", "CPU a record")):
            growth, step = max((last[step][figure] / max(first[step][figure], LEAST[figure]), step) for step in last)
            part = f"{what} with {kind}, {large:,} records against {small:,}"
            told.append(Row(part, f"≤ {GROWTH} ×", f"{growth:.2f} × ({step})", growth <= GROWTH))
    return told


def table(nights: Nights) -> None:
    """Print what every step took."""
    for kind, sizes in nights.items():
        for records, steps in sizes.items():
            for step, figures in steps.items():
                print(f"{kind:9} {records:>9,} {step:8} {figures['own_mb']:6.0f} MB {figures['us']:7.1f} us a record")


def found_before(small: int, large: int) -> Nights:
    """Read what was found of kinds that are run apart, at the same sizes."""
    file = Path(".bench/memory.json")
    kinds = json.loads(file.read_text())["found"] if file.exists() else {}
    nights = {kind: {int(size): steps for size, steps in sizes.items()} for kind, sizes in kinds.items()}
    return {kind: sizes for kind, sizes in nights.items() if sizes.keys() == {small, large}}


def main() -> None:
    """Run nights of every kind and size."""
    if play(VARIANTS):
        return
    from nightbatch.demo.services.stack import Stack

    turns = turns_asked(5)
    numbers = [int(text.replace("_", "")) for text in sys.argv[1:] if text[0].isdigit()]
    small, large = [*numbers, *(100_000, 1_000_000)[len(numbers) :]]
    kinds = [text for text in sys.argv[1:] if not text[0].isdigit()] or KINDS
    nights: Nights = {}
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        if "postgres" in kinds:
            os.environ["BENCH_POSTGRES"] = stack.start_postgres().url()
        for kind in kinds:
            night(Path(name), kind, TINY, TINY)  # tells what is imported
            nights[kind] = nights_of(Path(name), kind, (small, large), turns=turns)
            # After each kind, so that what is cut short keeps what it found.
            all_kinds = found_before(small, large) | nights
            finish(__file__, all_kinds, rows(all_kinds, small, large), turns=turns)
    table(nights)


if __name__ == "__main__":
    main()

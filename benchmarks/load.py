"""
Time `load` into PostgreSQL against a bare COPY and merge of the very same rows.

    .venv/bin/python benchmarks/load.py [RECORDS] [PAIRS]

Answers of six fields go into an empty table with a primary key: `nightbatch` reads verdicts, makes typed columns of
the answers and merges them by its rules; `bare` has the same rows in a Parquet file, copies them into a temporary
table and inserts them with ON CONFLICT; `floor` does so with lines of COPY that were made before. Seconds are those of
the loading alone, without imports; those of the server are the CPU seconds of all its processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from records import SHORT, job_values, make
from turns import Found, Row, Variant, asked_for, finish, in_turn, play, tell

PIECE_BYTES = 1 << 20
_INSERT = "INSERT INTO {0} SELECT * FROM part ON CONFLICT (id) DO UPDATE SET ({1}) = ROW (EXCLUDED.*)"


def server_s(pid: int) -> float:
    """Give the CPU seconds of a server, of what it started, and of what of that has ended."""
    import psutil

    server = psutil.Process(pid)
    own, alive = server.cpu_times(), 0.0
    for child in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            used = child.cpu_times()
            alive += used.user + used.system
    return float(own.user + own.system + own.children_user + own.children_system + alive)


def timed(merge: Callable[[], int]) -> dict[str, float]:
    """Say what a merge took of this process and of the server."""
    pid = int(os.environ["BENCH_SERVER"])
    before, began, cpu = server_s(pid), time.perf_counter(), time.process_time()
    merged = merge()
    took, used = time.perf_counter() - began, time.process_time() - cpu
    time.sleep(0.5)  # a server's process may need a moment to end
    return {"rows": merged, "load_s": took, "client_s": used, "server_s": server_s(pid) - before}


def ours(data: Path, out: Path) -> Mapping[str, Any]:
    """Do what a run does with shards whose answers are checked."""
    from vendor import copied, ports_of

    from nightbatch.job import Job
    from nightbatch.steps.load import context_of, load

    job = Job.model_validate(job_of(data))
    connection = {"AIRFLOW_CONN_BENCH": os.environ["BENCH_POSTGRES"]}
    ports = ports_of(job, copied(data / "home", out), data / "answers", **connection)
    (run,) = ports.ledger.runs()
    emptied("DROP TABLE IF EXISTS ours, ours_dead_letters")
    ports.sink(job).prepare(context_of(run))

    def merge() -> int:
        shards = ports.ledger.shards(run.run)
        for shard in shards:
            load(ports, job, shard)
        return sum(ports.ledger.shard(shard.plan.ref).merged for shard in shards)

    return timed(merge)


def bare(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it as a database's handbook does."""

    def fill(copy: psycopg.Copy, shard: Path) -> None:
        for batch in pq.ParquetFile(shard).iter_batches(1_000):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                copy.write_row(row)

    return copied_and_merged(sorted(data.glob("shard-*.parquet")), fill)


def floor(data: Path, out: Path) -> Mapping[str, Any]:
    """Do it without making anything of rows."""

    def fill(copy: psycopg.Copy, shard: Path) -> None:
        with shard.open("rb") as lines:
            while piece := lines.read(PIECE_BYTES):
                copy.write(piece)

    return copied_and_merged(sorted(data.glob("shard-*.copy")), fill)


def copied_and_merged(shards: Iterable[Path], fill: Callable[[psycopg.Copy, Path], None]) -> dict[str, float]:
    """Copy rows into a temporary table and insert them, shard by shard."""
    emptied("DROP TABLE IF EXISTS bare; CREATE TABLE bare (LIKE like_ours INCLUDING ALL)")

    def merge() -> int:
        merged = 0
        for shard in shards:
            with psycopg.connect(os.environ["BENCH_POSTGRES"]) as database, database.cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE part ON COMMIT DROP AS SELECT * FROM bare WITH NO DATA")
                with cursor.copy("COPY part FROM STDIN") as copy:
                    fill(copy, shard)
                columns = [column.name for column in cursor.execute("SELECT * FROM bare LIMIT 0").description or ()]
                cursor.execute(_INSERT.format("bare", ", ".join(columns)))
                merged += cursor.rowcount
        return merged

    return timed(merge)


def emptied(sql: str) -> None:
    """Put the tables back to where they were."""
    with psycopg.connect(os.environ["BENCH_POSTGRES"], autocommit=True) as database:
        database.execute(sql)
        database.execute("CHECKPOINT")


def job_of(data: Path) -> dict[str, Any]:
    """Describe the job."""
    return job_values({"files": f"{data}/records.parquet"}, {"connection": "bench", "table": "ours"})


def checked(data: Path, records: int) -> None:
    """Leave a run whose answers are checked, and its rows as lines of COPY."""
    from vendor import WINDOW, ports_of, send

    from nightbatch import flow
    from nightbatch.adapters.sinks.postgres import PostgresSink
    from nightbatch.adapters.sinks.postgres_copy import copy_lines
    from nightbatch.job import Job
    from nightbatch.steps.collect import collect
    from nightbatch.steps.load import answers, context_of
    from nightbatch.steps.validate import validate

    make(data, records, size=SHORT)
    job = Job.model_validate(job_of(data))
    connection = {"AIRFLOW_CONN_BENCH": os.environ["BENCH_POSTGRES"]}
    ports = ports_of(job, data / "home", data / "answers", **connection)
    run = flow.prepare(ports, job, WINDOW).run
    send(ports, job, run, data / "answers")
    vendor, sink, context = (
        ports.provider("openai", "openai_default"),
        ports.sink(job),
        context_of(ports.ledger.run(run)),
    )
    assert isinstance(sink, PostgresSink)
    kinds = list(sink.layout.answers.columns.values())
    for sent in ports.ledger.shards(run):
        assert sent.current is not None
        collect(ports, sent, vendor.poll(str(sent.current.batch_id)))
        validate(ports, job, ports.ledger.shard(sent.plan.ref))
        name, batches = sent.plan.ref.name, answers(ports, job, ports.ledger.shard(sent.plan.ref))
        typed = [sink.layout.answer_rows(batch, context) for batch in batches]
        pq.write_table(pa.Table.from_batches(typed), data / f"shard-{name}.parquet")
        with (data / f"shard-{name}.copy").open("wb") as file:
            file.writelines(copy_lines(batch, kinds) for batch in typed)
    emptied("CREATE TABLE like_ours (LIKE ours INCLUDING ALL)")


VARIANTS: dict[str, Variant] = {"nightbatch": ours, "bare": bare, "floor": floor}


def rows(found: Found) -> list[Row]:
    """Compare with what was asked for."""
    our, theirs = found["nightbatch"], found["bare"]
    wall = theirs["load_s"] / our["load_s"]
    cpu = (theirs["client_s"] + theirs["server_s"]) / (our["client_s"] + our["server_s"])
    part = "load into PostgreSQL, of the rate of a bare COPY and merge"
    return [
        Row(f"{part}, by wall", "≥ 80 %", f"{wall:.0%}", wall >= 0.8),
        Row(f"{part}, by CPU of client and server", "≥ 80 %", f"{cpu:.0%}", cpu >= 0.8),
    ]


def main() -> None:
    """Start a server, make the answers, and let the variants take turns."""
    if play(VARIANTS):
        return
    from nightbatch.demo.services.stack import Stack

    records, pairs = asked_for(100_000, 5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        server, data = stack.start_postgres(), Path(name) / "data"
        data.mkdir()
        os.environ |= {"BENCH_POSTGRES": server.url(), "BENCH_SERVER": str(server.process.pid)}
        checked(data, records)
        found = in_turn(__file__, VARIANTS, data, pairs=pairs)
    tell(found)
    for name, figures in found.items():
        print(name, " ".join(f"{figures[part]:.2f} {part}" for part in ("load_s", "client_s", "server_s")))
    finish(__file__, found, rows(found), turns=pairs)


if __name__ == "__main__":
    main()

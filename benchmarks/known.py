"""
Measure `prepare` against a sink that holds many answers already, of which nine records in ten are unchanged.

    .venv/bin/python benchmarks/known.py [KNOWN] [RECORDS] [KIND ...] [turns=N]

A sink of each kind is filled directly, not by runs: the true fingerprints of nine tenths of the records, and made-up
ones of made-up keys, in no order. It is measured at KNOWN and at a tenth of that, as `memory.py` does it: in a process
that has imported everything beforehand, memory above what it held then. Temporary disk is what lay in the temporary
folder, removed files that were still open among them; it is looked at five times a second.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from memory import GROWTH, LIMIT_MB, TINY, measured, opened
from records import DAY, job_values, make
from turns import Row, Variant, finish, medians, play, turns_asked

KINDS = ("files", "duckdb", "postgres")
A_FILE = 100_000
UNCHANGED = 0.9
_ANSWERS = """
    SELECT key AS id, fingerprint AS nb_fingerprint FROM prints WHERE rowid >= {true} AND rowid < {true_end}
    UNION ALL SELECT 'k' || left(sha256('key ' || n), 16), sha256(n::VARCHAR) FROM range({made}, {made_end}) AS made(n)
"""
_COLUMNS = (
    "id, nb_fingerprint, '{end}'::TIMESTAMPTZ AS nb_window_end, '{end}'::TIMESTAMPTZ AS nb_window_start, "
    "1 AS nb_generation, 'bench' AS nb_run, 'bench' AS nb_job, 'openai' AS nb_provider, 'a-model' AS nb_model, "
    "'v1' AS nb_prompt_version, 0 AS nb_round, 'an-id' AS nb_custom_id, '{{}}' AS nb_answer"
)


# --- what is measured -----------------------------------------------------------------------------------------


def known(ports: Any, job: Any, _run: str) -> Mapping[str, Any]:
    """Prepare, and see what it leaves in the temporary folder meanwhile."""
    from vendor import WINDOW

    from nightbatch import flow

    with temporary_disk() as disk:
        plan = flow.prepare(ports, job, WINDOW)
    return {"sent": sum(shard.rows for shard in plan.shards), "unchanged": plan.facts["counts"]["unchanged"], **disk}


def prints(data: Path, out: Path) -> Mapping[str, Any]:
    """Tell the fingerprints of all records, from a run whose sink holds nothing; not measured."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from vendor import WINDOW

    from nightbatch import flow
    from nightbatch.steps.parquet import read_rows

    ports, job, _ = opened(data)
    schema = pa.schema([("key", pa.string()), ("fingerprint", pa.string())])
    with pq.ParquetWriter(data.parent / "prints.parquet", schema) as file:
        for shard in flow.prepare(ports, job, WINDOW).shards:
            keys, found = zip(*read_rows(ports.store, shard.index_name, schema.names), strict=True)
            file.write_table(pa.table([pa.array(keys, pa.string()), pa.array(found, pa.string())], schema=schema))
    return {}


@contextmanager
def temporary_disk() -> Iterator[dict[str, float]]:
    """Fill in the most megabytes that lay in the temporary folder."""
    disk, done = {"disk_mb": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            disk["disk_mb"] = max(disk["disk_mb"], (_below(Path(tempfile.gettempdir())) + _removed()) / 1e6)

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    yield disk
    done.set()
    watch.join()


def _below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_blocks * 512
    return total


def _removed() -> int:
    total = 0
    for opened_file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            about = opened_file.stat()
            total += about.st_blocks * 512 if stat.S_ISREG(about.st_mode) and not about.st_nlink else 0
    return total


VARIANTS: dict[str, Variant] = {"known": measured(known), "prints": prints}


# --- the sinks ------------------------------------------------------------------------------------------------


def job_of(root: Path, data: Path, kind: str) -> None:
    """Describe the job."""
    connections, sink = {}, {"files": f"{data}/sink"}
    if kind != "files":
        duck = json.dumps({"conn_type": "duckdb", "host": f"{data}/sink.duckdb"})
        sink = {"connection": "sink", "table": "answers"}
        connections["AIRFLOW_CONN_SINK"] = duck if kind == "duckdb" else os.environ["BENCH_POSTGRES"]
    job = job_values({"files": f"{root}/records.parquet"}, sink)
    (data / "job.json").write_text(json.dumps({"job": job, "connections": connections}))


def parts_of(answers: int, records: int) -> Iterator[str]:
    """Give the queries of parts of a sink, with an even share of the true ones in each."""
    true, parts = round(min(answers, records) * UNCHANGED), -(-answers // A_FILE)
    for number in range(parts):
        ends = {"true": true * number // parts, "true_end": true * (number + 1) // parts}
        made = {"made": (answers - true) * number // parts, "made_end": (answers - true) * (number + 1) // parts}
        yield _ANSWERS.format(**ends, **made)


def fill(root: Path, data: Path, kind: str, answers: int, records: int) -> None:
    """Put so many answers into a sink, as of the night before."""
    import duckdb
    from vendor import WINDOW

    from nightbatch.core.window import Window
    from nightbatch.ports import SinkContext

    ports, job, _ = opened(data)
    window = Window(DAY - timedelta(days=1), WINDOW.start)
    ports.sink(job).prepare(SinkContext("bench", "bench/before", window, 1))
    folder = data / "sink" / "answers" / f"window={window.key}"
    folder.mkdir(parents=True)
    with duckdb.connect(str(data / "sink.duckdb") if kind == "duckdb" else ":memory:") as database:
        database.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        database.execute("CREATE TEMP TABLE prints AS FROM read_parquet(?) ORDER BY key", [f"{root}/prints.parquet"])
        for number, part in enumerate(parts_of(answers, records)):
            some = f"SELECT {_COLUMNS.format(end=window.end.isoformat())} FROM ({part})"
            to = f"'{folder}/g0001-r0-s{number:04d}.parquet' (FORMAT parquet, COMPRESSION zstd)"
            is_table = kind == "duckdb"
            database.execute(f"INSERT INTO answers BY NAME {some}" if is_table else f"COPY ({some}) TO {to}")
    if kind == "postgres":
        into_postgres(folder)


def into_postgres(folder: Path) -> None:
    """Copy files of answers into the table."""
    import psycopg
    import pyarrow.csv
    import pyarrow.parquet as pq

    with psycopg.connect(os.environ["BENCH_POSTGRES"]) as database, database.cursor() as cursor:
        for file in sorted(folder.iterdir()):
            part = pq.read_table(file)
            with cursor.copy(f"COPY answers ({', '.join(part.column_names)}) FROM STDIN (FORMAT csv)") as copy:
                pyarrow.csv.write_csv(part, Lines(copy), pyarrow.csv.WriteOptions(include_header=False))
        cursor.execute("ANALYZE answers")


class Lines:
    """What a CSV writer may write to."""

    closed = False

    def __init__(self, copy: Any) -> None:
        self.copy = copy

    def write(self, piece: Any) -> int:
        """Hand a piece on."""
        self.copy.write(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is kept."""


# --- all of them ----------------------------------------------------------------------------------------------


def play_known(root: Path, kind: str, answers: int, records: int, *, turns: int) -> dict[str, float]:
    """Fill a sink once, and prepare against it so many times, each as if it were the first; gives the medians."""
    with TemporaryDirectory(prefix=f"{kind}-", dir=root) as name:
        data = Path(name)
        job_of(root, data, kind)
        fill(root, data, kind, answers, records)
        told = []
        for turn in range(turns):
            rmtree(data / "home")  # with the ledger, which knows of the turn before
            found = play_one("known", data)
            assert found["unchanged"] == round(min(answers, records) * UNCHANGED), found
            told.append(found)
            figures = f"{found['step_s']:.1f} CPU s, {found['own_mb']:.0f} MB"
            print(f"  {turn + 1}/{turns} {kind} {answers:,}: {figures}", file=sys.stderr, flush=True)
        if kind == "postgres":
            import psycopg

            with psycopg.connect(os.environ["BENCH_POSTGRES"]) as database:
                database.execute("DROP TABLE IF EXISTS answers, answers_dead_letters")
    return medians(told)


def play_one(what: str, data: Path) -> dict[str, float]:
    """Do one thing in a process of its own, which has a temporary folder of its own."""
    with TemporaryDirectory(prefix="scratch-", dir=data) as scratch:
        argv = [sys.executable, __file__, "--one", what, str(data), str(data)]
        environ = {**os.environ, "TMPDIR": scratch}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    if done.returncode:
        sys.exit(f"{data.name} {what} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(found: dict[str, dict[int, dict[str, float]]], records: int) -> list[Row]:
    """Compare with what was asked for."""
    told = []
    for kind, sizes in found.items():
        small, large = sizes
        first, last = sizes[small], sizes[large]
        part = f"prepare {records:,} records against {large:,} known answers in {kind}"
        seen = f"{last['own_mb']:.0f} MB ({last['step_s']:.1f} CPU s, {last['disk_mb']:,.0f} MB of temporary disk)"
        told.append(Row(f"{part}: memory", f"≤ {LIMIT_MB:g} MB", seen, last["own_mb"] <= LIMIT_MB))
        growth = last["own_mb"] / first["own_mb"]
        seen = f"{growth:.2f} × ({first['own_mb']:.0f} MB, {first['step_s']:.1f} CPU s)"
        told.append(Row(f"{part}: memory, of that at {small:,}", f"≤ {GROWTH} ×", seen, growth <= GROWTH))
    return told


def main() -> None:
    """Fill sinks of every kind and size, and prepare against each."""
    if play(VARIANTS):
        return
    from nightbatch.demo.services.stack import Stack

    turns = turns_asked(5)
    numbers = [int(text.replace("_", "")) for text in sys.argv[1:] if text[0].isdigit()]
    answers, records = [*numbers, *(10_000_000, 100_000)[len(numbers) :]]
    kinds = [text for text in sys.argv[1:] if not text[0].isdigit()] or KINDS
    found: dict[str, dict[int, dict[str, float]]] = {}
    with TemporaryDirectory(prefix="nightbatch-bench-") as name, Stack(Path(name) / "stack") as stack:
        root = Path(name)
        if "postgres" in kinds:
            os.environ["BENCH_POSTGRES"] = stack.start_postgres().url()
        make(root, records)
        with TemporaryDirectory(prefix="files-", dir=root) as data:
            job_of(root, Path(data), "files")
            play_one("prints", Path(data))
        for kind in kinds:
            play_known(root, kind, TINY, records, turns=1)  # tells what is imported
            sizes = (answers // 10, answers)
            found[kind] = {size: play_known(root, kind, size, records, turns=turns) for size in sizes}
    finish(__file__, found, rows(found, records), turns=turns)


if __name__ == "__main__":
    main()

"""
Time a whole night of the command line, without the vendor's wait: the emulator answers at once.

    .venv/bin/python benchmarks/night.py [RECORDS] [TURNS]

Records have some 0.5 KB of text. The CPU seconds are those of the process `nightbatch run` alone, from its start: read
Parquet, render, write, upload, create, download, check every answer against its schema, book costs, load into a
Parquet folder, settle and prove. The emulator runs beside it and is not counted.

Two others do what they can against the same emulator. `batchwizard` gets request files that are ready, sends them, and
keeps what comes back: it reads no source, and checks and loads nothing. `curator` goes from Parquet to a Parquet file
of parsed answers (`peer_curator.py`). Each of them has one turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from peers import played, python_of, run_of
from records import DAY, NEXT_DAY, SHORT, SYSTEM, body_of, job_values, make
from turns import Found, Row, Variant, asked_for, finish, in_turn, play, tell

MOST_CPU_S_A_100K = 10.0
A_FILE = 50_000


def typed(data: Path, out: Path) -> tuple[list[str], dict[str, str]]:
    """Write the job, and give what a person types after `nightbatch`, and the environment."""
    values = job_values({"files": f"{data}/records.parquet"}, {"files": f"{out}/answers"}, max_dead_share=0)
    (out / "bench.yaml").write_text(json.dumps(values))  # JSON is YAML
    connection = json.dumps({"conn_type": "openai", "host": os.environ["BENCH_VENDOR"], "password": "sk-emulator"})
    environ = {
        **os.environ,
        "NIGHTBATCH_HOME": str(out),
        "AIRFLOW_CONN_OPENAI_DEFAULT": connection,
        "NIGHTBATCH_POLL_FROM_S": "1",
        "NIGHTBATCH_POLL_TO_S": "1",
    }
    span = ["--from", DAY.isoformat(), "--to", NEXT_DAY.isoformat(), "--json"]
    return ["run", str(out / "bench.yaml"), *span], environ


def run(data: Path, out: Path) -> Mapping[str, Any]:
    """Run a night as a person types it."""
    command, environ = typed(data, out)
    argv = [sys.executable, "-m", "nightbatch.cli", *command]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:] + done.stdout[-2000:])
    books, used = json.loads(done.stdout), resource.getrusage(resource.RUSAGE_CHILDREN)
    assert books["good"] == books["merged"] == books["pulled"], books
    return {"rows": books["good"], "own_s": used.ru_utime + used.ru_stime, "own_mb": used.ru_maxrss / 1024}


@contextmanager
def vendor(folder: Path) -> Iterator[None]:
    """Start a vendor that answers at once; BENCH_VENDOR names its address."""
    argv = [sys.executable, "-m", "nightbatch.cli", "emulator", "serve", "--port", "0", "--exit-with-parent"]
    options = ["--batch-seconds", "0", "--executor", "echo", "--data-dir", str(folder)]
    with subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        os.environ["BENCH_VENDOR"] = f"{address.rstrip('/.,')}/v1"
        yield
        server.terminate()


def batchwizard(data: Path, out: Path) -> Mapping[str, Any]:
    """Send request files that are ready, and fetch what comes back."""
    python = python_of("batchwizard")
    assert python is not None
    argv = [python.parent / "batchwizard", "process", *sorted((data / "ready").glob("*.jsonl"))]
    environ = {"HOME": str(out), "OPENAI_API_KEY": "sk-emulator", "OPENAI_BASE_URL": os.environ["BENCH_VENDOR"]}
    took = run_of([*argv, "--output-directory", out / "answers", "--check-interval", "1"], **environ)
    rows = sum(file.read_bytes().count(b"\n") for file in (out / "answers").rglob("*.jsonl"))
    return {**took, "rows": rows, "own_s": took["cpu_s"], "own_mb": took["mb"]}


def curator(data: Path, out: Path) -> Mapping[str, Any]:
    """Go from Parquet to parsed answers."""
    environ = {"HOME": str(out), "OPENAI_API_KEY": "sk-emulator", "HF_HUB_OFFLINE": "1", "TELEMETRY_ENABLED": "false"}
    took = played("curator", data, out, **environ)
    return {**took, "own_s": took["cpu_s"], "own_mb": took["mb"]}


def ready(data: Path) -> None:
    """Write request files as a cookbook does, for whom needs them ready."""
    import pyarrow.parquet as pq

    (data / "ready").mkdir()
    for number, batch in enumerate(pq.ParquetFile(data / "records.parquet").iter_batches(A_FILE)):
        with (data / "ready" / f"{number:04d}.jsonl").open("w") as file:
            for record in batch.to_pylist():
                body = body_of(SYSTEM, f"Review of {record['product']}:\n{record['text']}")
                line = {"custom_id": record["id"], "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")


VARIANTS: dict[str, Variant] = {"nightbatch run": run, "batchwizard": batchwizard, "curator": curator}
LEAVES_OUT = {
    "batchwizard": "files ready, nothing checked or loaded",
    "curator": "nothing loaded or proved",
}


def rows(found: Found, records: int) -> Iterator[Row]:
    """Compare with what was asked for, and with the others."""
    part, asked = "whole run without the vendor's wait, 100 k short records", f"≤ {MOST_CPU_S_A_100K:.0f} s"
    for name, figures in found.items():
        share = figures["own_s"] / records * 100_000
        seen = f"{share:.1f} s, {figures['own_mb']:.0f} MB"
        if name in LEAVES_OUT:
            seen = f"{seen} ({LEAVES_OUT[name]})"
            yield Row(f"{part}: CPU seconds of `{name}`", "none, a peer", seen, None, turns=1)
        else:
            yield Row(f"{part}: CPU seconds of `{name}`", asked, seen, share <= MOST_CPU_S_A_100K)


def main() -> None:
    """Start the vendor, make the records, and run some nights."""
    if play(VARIANTS):
        return
    records, turns = asked_for(100_000, 5)
    for name in [name for name in LEAVES_OUT if python_of(name) is None]:
        VARIANTS.pop(name)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        make(Path(name), records, size=SHORT)
        ready(Path(name))
        with vendor(Path(name) / "vendor"):
            found = in_turn(__file__, VARIANTS, Path(name), pairs=turns, once=LEAVES_OUT)
    tell(found)
    finish(__file__, found, list(rows(found, records)), turns=turns)


if __name__ == "__main__":
    main()

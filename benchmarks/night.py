"""
Time a whole night of the command line, without the vendor's wait: the emulator answers at once.

    .venv/bin/python benchmarks/night.py [RECORDS] [TURNS]

Records have some 0.5 KB of text. The CPU seconds are those of the process `nightbatch run` alone, from its start: read
Parquet, render, write, upload, create, download, check every answer against its schema, book costs, load into a
Parquet folder, settle and prove. The emulator runs beside it and is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from records import DAY, NEXT_DAY, SHORT, job_values, make
from turns import Row, Variant, asked_for, finish, in_turn, play, tell

MOST_CPU_S_A_100K = 10.0


def run(data: Path, out: Path) -> Mapping[str, Any]:
    """Run a night as a person types it."""
    values = job_values({"files": f"{data}/records.parquet"}, {"files": f"{out}/answers"}, max_dead_share=0)
    (out / "bench.json").write_text(json.dumps(values))  # JSON is YAML
    (out / "bench.yaml").write_text((out / "bench.json").read_text())
    connection = json.dumps({"conn_type": "openai", "host": os.environ["BENCH_VENDOR"], "password": "sk-emulator"})
    environ = {
        **os.environ,
        "NIGHTBATCH_HOME": str(out),
        "AIRFLOW_CONN_OPENAI_DEFAULT": connection,
        "NIGHTBATCH_POLL_FROM_S": "1",
        "NIGHTBATCH_POLL_TO_S": "1",
    }
    span = ["--from", DAY.isoformat(), "--to", NEXT_DAY.isoformat(), "--json"]
    argv = [sys.executable, "-m", "nightbatch.cli", "run", str(out / "bench.yaml"), *span]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:] + done.stdout[-2000:])
    books, used = json.loads(done.stdout), resource.getrusage(resource.RUSAGE_CHILDREN)
    assert books["good"] == books["merged"] == books["pulled"], books
    return {"rows": books["good"], "own_s": used.ru_utime + used.ru_stime, "own_mb": used.ru_maxrss / 1024}


VARIANTS: dict[str, Variant] = {"nightbatch run": run}


def main() -> None:
    """Start the vendor, make the records, and run some nights."""
    if play(VARIANTS):
        return
    records, turns = asked_for(100_000, 5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        make(Path(name), records, size=SHORT)
        argv = [sys.executable, "-m", "nightbatch.cli", "emulator", "serve", "--port", "0", "--exit-with-parent"]
        options = ["--batch-seconds", "0", "--executor", "echo", "--data-dir", f"{name}/vendor"]
        with subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, text=True) as vendor:
            assert vendor.stdout is not None
            address = next(word for word in vendor.stdout.readline().split() if word.startswith("http"))
            os.environ["BENCH_VENDOR"] = f"{address.rstrip('/.,')}/v1"
            found = in_turn(__file__, VARIANTS, Path(name), pairs=turns)
            vendor.terminate()
    tell(found)
    night = found["nightbatch run"]
    share = night["own_s"] / records * 100_000
    part = "whole run without the vendor's wait, 100 k short records: CPU seconds of `nightbatch run`"
    seen = f"{share:.1f} s, {night['own_mb']:.0f} MB"
    finish(__file__, found, [Row(part, f"≤ {MOST_CPU_S_A_100K:.0f} s", seen, share <= MOST_CPU_S_A_100K)])


if __name__ == "__main__":
    main()

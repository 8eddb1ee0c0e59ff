"""
Time `prepare` of one source in one part against the same in several, side by side on the cores of this machine.

    .venv/bin/python benchmarks/parts.py [RECORDS] [PAIRS] [PARTS]

The records are those of `records.py`, in one Parquet file whose row groups are shared out. A figure is the median of
PAIRS turns, imports included: wall seconds, and the CPU seconds of the longest way through, which is what the wall
would show on a quiet machine: those of the process that gathers, and of one of its workers.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from records import FIELDS, MODEL, SYSTEM, USER, make


def one(folder: Path, out: Path, parts: int) -> dict[str, float]:
    """Prepare once, and give what it took."""
    began = time.perf_counter()
    os.environ |= {"NIGHTBATCH_HOME": str(out), "OPENAI_API_KEY": "sk-none", "NIGHTBATCH_PART_BYTES": "1"}
    from nightbatch import flow
    from nightbatch.cli_crew import crew_of
    from nightbatch.cli_frame import ports_of
    from nightbatch.core.window import Window
    from nightbatch.job import Job

    schema = {"type": "object", "properties": FIELDS, "required": list(FIELDS), "additionalProperties": False}
    model = {"provider": "openai", "model": MODEL, "connection": "openai_default", "max_output_tokens": 300}
    job = Job.model_validate(
        {
            "name": "bench",
            "source": {"files": f"{folder}/records.parquet", "key": "id", "parts": parts},
            "prompt": {"system": SYSTEM, "user": USER},
            "answer": {"schema": schema},
            "models": [model],
            "sink": {"files": f"{out}/answers"},
        }
    )
    day = datetime(2026, 3, 10, tzinfo=UTC)
    plan = flow.prepare(ports_of(job), job, Window(day, day + timedelta(days=1)), crew=crew_of(job))
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rows": sum(shard.rows for shard in plan.shards),
        "shards": len(plan.shards),
        "wall_s": time.perf_counter() - began,
        "own_s": time.process_time(),
        "workers_s": workers.ru_utime + workers.ru_stime,
        "mb": max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, workers.ru_maxrss) / 1024,
    }


def main() -> None:
    """Make the records, and let one part and several take turns."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
        return
    records, pairs, parts = (int(text) for text in [*sys.argv[1:], *("400000", "5", "2")[len(sys.argv) - 1 :]])
    found: dict[int, list[dict[str, float]]] = {1: [], parts: []}
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        make(Path(name), records)
        for _ in range(pairs):
            for count, told in found.items():
                with TemporaryDirectory(dir=name) as out:
                    argv = [sys.executable, __file__, "--one", name, out, str(count)]
                    told.append(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
    for count, told in found.items():
        middle = {key: statistics.median(run[key] for run in told) for key in told[0]}
        way = middle["own_s"] + (middle["workers_s"] / count if count > 1 else 0)
        print(
            f"{count} part(s): {middle['wall_s']:6.1f} s  longest way {way:6.1f} CPU s  "
            f"all {middle['own_s'] + middle['workers_s']:6.1f} CPU s  {middle['mb']:5.0f} MB  "
            f"{middle['rows']:,.0f} requests in {middle['shards']:.0f} shards"
        )


if __name__ == "__main__":
    main()

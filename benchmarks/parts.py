"""
Time `prepare` of one source in one part against the same in two, side by side on two cores of this machine.

    .venv/bin/python benchmarks/parts.py [RECORDS] [PAIRS]

The records are those of `prepare.py`, in one Parquet file whose row groups are shared out. Compared is the longest way
through, which is what the wall shows on a quiet machine: the CPU seconds of the process that gathers, and half of those
of its two workers.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from records import DAY, NEXT_DAY, job_values, make
from turns import Found, Row, Variant, compare, ratio


def prepared(data: Path, out: Path, *, parts: int) -> Mapping[str, Any]:
    """Prepare as `nightbatch run` does."""
    os.environ |= {"NIGHTBATCH_HOME": str(out), "OPENAI_API_KEY": "sk-none", "NIGHTBATCH_PART_BYTES": "1"}
    from nightbatch import flow
    from nightbatch.cli_crew import crew_of
    from nightbatch.cli_frame import ports_of
    from nightbatch.core.window import Window
    from nightbatch.job import Job

    source = {"files": f"{data}/records.parquet", "parts": parts}
    job = Job.model_validate(job_values(source, {"files": f"{out}/answers"}))
    plan = flow.prepare(ports_of(job), job, Window(DAY, NEXT_DAY), crew=crew_of(job))
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    way_s = time.process_time() + (workers.ru_utime + workers.ru_stime) / parts
    return {"rows": sum(shard.rows for shard in plan.shards), "shards": len(plan.shards), "way_s": way_s}


VARIANTS: dict[str, Variant] = {"one part": partial(prepared, parts=1), "two parts": partial(prepared, parts=2)}


def rows(found: Found) -> list[Row]:
    """Compare with what was asked for."""
    part = "prepare, two source partitions on two cores: one takes"
    return [ratio(part, found, "two parts", "one part", at_least=1.8, figure="way_s")]


if __name__ == "__main__":
    compare(__file__, VARIANTS, make, rows, records=1_000_000)

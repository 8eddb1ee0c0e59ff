"""
Time the proof of a run: how long settle and audit take for so many rows, and how much memory.

    .venv/bin/python benchmarks/proof.py [ROWS] [ROWS_A_SHARD]

A whole night on the memory vendor, with files in a local folder, the ledger in SQLite and the sink in DuckDB; then
settle (which proves the run) and audit (which also reads the sink) are timed alone, each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.memory_stack import NIGHT, Stack, job_of

from nightbatch import flow
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.memory_vendor import MemoryProvider, MemoryVendor
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.duckdb import DuckDBSink
from nightbatch.core.money import Usage
from nightbatch.core.result import Outcome, Result
from nightbatch.ports import Connection, Ports
from nightbatch.steps.audit import audit
from nightbatch.steps.proof import prove

TEXT = "This is the review of somebody who bought the thing and has an opinion about it. " * 12
"""About a kilobyte of record."""


def answer(messages, times: int) -> Result:
    """One row in twenty is answered badly at first; answers have 200 bytes."""
    if times == 0 and int(messages.user.split()[0]) % 20 == 0:
        return Result("", Outcome.EXPIRED)
    return Result("", Outcome.ANSWERED, "good " * 40, usage=Usage(300, output_tokens=60), model="echo-1")


def ports_of(folder: Path, records: list[tuple[str, str]]) -> tuple[Stack, Ports]:
    """Put up what keeps things on disk."""
    stack = Stack(records)
    stack.vendor = MemoryVendor(stack.clock)
    stack.vendor.answer = answer
    stack.provider = MemoryProvider(stack.vendor)
    stack.ledger = SqlLedger.open_or_migrate(f"sqlite:///{folder}/ledger.db")
    connection = Connection("duck", "duckdb", host=str(folder / "sink.duckdb"))
    sink = DuckDBSink(connection, "answers", key_column="id", answer_schema=None)
    return stack, stack.ports(store=ObjectStore(str(folder / "staging")), sink=lambda _: sink)


def high_water_mb() -> float:
    """Give the most memory that this process ever held."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def timed(folder: Path, what: str) -> None:
    """Do one thing in this process, and print what it took."""
    _, ports = ports_of(folder, [])
    job, run = job_of(), ports.ledger.runs()[0]
    before = high_water_mb()
    began, cpu = time.perf_counter(), time.process_time()
    links = prove(ports, run) if what == "prove" else audit(ports, job, run)
    took, used = time.perf_counter() - began, time.process_time() - cpu
    more = high_water_mb() - before
    wrong = [str(link) for link in links if not link.holds]
    print(json.dumps({"what": what, "s": took, "cpu_s": used, "more_mb": more, "links": len(links), "wrong": wrong}))


def main() -> None:
    """Make a night, then time what looks at it."""
    if len(sys.argv) > 2 and sys.argv[1] in ("prove", "audit"):
        timed(Path(sys.argv[2]), sys.argv[1])
        return
    rows, a_shard = (int(text) for text in [*sys.argv[1:], *("100000", "50000")[len(sys.argv) - 1 :]])
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        folder = Path(name)
        records = [(f"key-{number:08d}", f"{number} {TEXT}") for number in range(rows)]
        _, ports = ports_of(folder, records)
        job = job_of(shard={"max_rows": a_shard}, rounds=1)
        began = time.perf_counter()
        books = flow.run(ports, job, NIGHT)
        night = time.perf_counter() - began
        size = sum(file.stat().st_size for file in (folder / "staging").rglob("*") if file.is_file())
        print(
            f"{books.requests:,} rows, {books.batches} batches, {size / 1e6:,.0f} MB of staging, made in {night:.0f} s"
        )
        for what in ("prove", "audit"):
            out = subprocess.run([sys.executable, __file__, what, name], capture_output=True, text=True, check=True)
            told = json.loads(out.stdout)
            print("{what}: {cpu_s:.1f} CPU s ({s:.1f} s), {more_mb:.0f} MB more, {links} links".format(**told))
            print("\n".join(told["wrong"]), end="")


if __name__ == "__main__":
    main()

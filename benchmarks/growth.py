"""
Measure how a whole night grows: CPU a record of each step function, and memory over time, at several sizes.

    .venv/bin/python benchmarks/growth.py [SIZE ...] [turns=N]

A night of short records from Parquet to Parquet by `nightbatch run`, the emulator answering at once, clocked from
outside (`clocked.py`): what is imported is told apart, since it does not grow. Memory is looked at five times a second.
The last two sizes are compared. `memory.py` compares each single step, with every source and sink.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clocked import STEPS, clocked
from night import typed, vendor
from records import SHORT, make
from turns import Row, asked_for, finish, medians, turns_asked

MOST = 1.1
NAMES = {
    "prepare": "prepare",
    "submit, collect, validate and load": "advance",
    "settle": "finish",
    "a whole night": "steps_s",
}
"""What the table calls what was clocked; rounds that send again are too short here to say anything."""
LOOK_EVERY_S = 0.2
CLOCKED = Path(__file__).parent / "clocked.py"


def held_mb(pid: int) -> float | None:
    """Give what a process holds; None once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


def night(data: Path, out: Path) -> dict[str, Any]:
    """Run a night, and look at its memory meanwhile."""
    command, environ = typed(data, out)
    environ["BENCH_CLOCK"] = str(out / "clock.jsonl")
    began, memory = time.perf_counter(), list[tuple[float, float]]()
    with (out / "books.json").open("w") as books, (out / "said.txt").open("w") as said:
        process = subprocess.Popen([sys.executable, CLOCKED, *command], env=environ, stdout=books, stderr=said)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if held := held_mb(process.pid):
                memory.append((round(time.perf_counter() - began, 2), round(held, 1)))
            time.sleep(LOOK_EVERY_S)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    if process.returncode:
        sys.exit(f"the night failed:\n{(out / 'said.txt').read_text()[-3000:]}")
    told, used = json.loads((out / "books.json").read_text()), ended[2]
    return {
        **clocked(out / "clock.jsonl"),
        "whole_s": used.ru_utime + used.ru_stime,
        "wall_s": time.perf_counter() - began,
        "mb": used.ru_maxrss / 1024,
        "usd": float(told["cost_usd"]),
        "realtime_usd": float(told["realtime_usd"]),
        "memory": memory,
    }


def rows(found: dict[int, dict[str, Any]]) -> list[Row]:
    """Compare the two largest sizes."""
    small, large = sorted(found)[-2:]
    told, part = [], f"{large:,} records against {small:,}"
    for name, figure in NAMES.items():
        first, last = (found[size][figure] / size * 1e6 for size in (small, large))
        seen = f"{last / first:.2f} × ({last:.1f} µs, {first:.1f} µs)"
        told.append(Row(f"growth: CPU a record of {name}, {part}", f"≤ {MOST} ×", seen, last / first <= MOST))
    first, last = found[small]["mb"], found[large]["mb"]
    seen = f"{last / first:.2f} × ({last:.0f} MB, {first:.0f} MB, imports included)"
    told.append(Row(f"growth: memory of a whole night, {part}", f"≤ {MOST} ×", seen, last / first <= MOST))
    return told


def main() -> None:
    """Let nights of all sizes take turns."""
    turns = turns_asked(5)
    sizes = asked_for(*(() if sys.argv[1:] else (10_000, 100_000, 1_000_000)))
    told: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for turn, size in product(range(turns), sizes):
        with TemporaryDirectory(prefix="nightbatch-bench-") as name:
            data, out = Path(name), Path(name) / "out"
            out.mkdir()
            make(data, size, size=SHORT)
            with vendor(data / "vendor"):
                told[size].append(night(data, out))
        print(f"  {turn + 1}/{turns} {size:,}: {told[size][-1]['whole_s']:.1f} CPU s", file=sys.stderr, flush=True)
    found: dict[int, dict[str, Any]] = {}
    for size, nights in told.items():
        middle = sorted(nights, key=lambda one: float(one["whole_s"]))[len(nights) // 2]
        # The picture is of one night.
        found[size] = {**medians(nights), "wall_s": middle["wall_s"], "memory": middle["memory"]}
        parts = ", ".join(f"{step} {found[size][step] / size * 1e6:.1f}" for step in STEPS)
        print(
            f"{size:>9,} records: {found[size]['whole_s']:.1f} CPU s, {found[size]['mb']:.0f} MB; µs a record: {parts}"
        )
    finish(__file__, found, rows(found), turns=turns)


if __name__ == "__main__":
    main()

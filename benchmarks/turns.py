"""
What all benchmarks share: variants take turns, each in a process of its own; a figure is the median of its turns.

A script has `VARIANTS`, functions of a folder with the data and a folder to write to, and `rows`, which turns what was
found into rows of the table. CPU seconds are those of the process and of what it started, imports included; memory is
the most that the process held, `own` without what it held after its imports. A variant may say these figures itself.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from compileall import compile_dir
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a module is compiled once, as where it is installed

Variant = Callable[[Path, Path], Mapping[str, Any]]
Found = dict[str, dict[str, float]]
"""Variant -> figure -> median."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a part, what was asked of it, and what was seen."""

    part: str
    target: str
    seen: str
    is_met: bool | None
    """None where nothing was asked, and the figure is for comparison."""
    turns: int | None = None
    """None for as many as its script took."""

    def __str__(self) -> str:
        verdict = {True: "ok  ", False: "MISS", None: "    "}[self.is_met]
        return f"{verdict} {self.part}: {self.seen} (asked for: {self.target})"


def high_water_mb() -> float:
    """Give the most memory that this process ever held."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def held_mb() -> float:
    """Give what this process holds now."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def play(variants: Mapping[str, Variant]) -> bool:
    """Run one variant where this process was started for that; say whether it was."""
    if sys.argv[1:2] != ["--one"]:
        return False
    name, data, out = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    began = time.perf_counter()
    found = dict(variants[name](data, out))
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() + children.ru_utime + children.ru_stime,
        "mb": high_water_mb(),
    }
    print(json.dumps(measured | found))
    return True


def in_turn(
    script: str, variants: Mapping[str, Variant], data: Path, *, pairs: int, once: Collection[str] = ()
) -> Found:
    """Let variants take turns over one folder of data, some of them once; all must give the same number of rows."""
    compile_dir(Path(__file__).parents[1] / "include", quiet=1)  # or the first turn would pay for it
    told: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for turn in range(pairs):
        for name, runs in told.items():
            if turn and name in once:
                continue
            with TemporaryDirectory(dir=data) as out:
                argv = [sys.executable, script, "--one", name, str(data), out]
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{script} {name} failed:\n{done.stderr[-3000:]}")
            runs.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {turn + 1}/{pairs} {name}: {runs[-1]['cpu_s']:.2f} CPU s", file=sys.stderr, flush=True)
    return median_of(told)


def median_of(told: Mapping[str, list[dict[str, float]]]) -> Found:
    """Give the median of each figure over its turns; all must have given the same number of rows."""
    counts = {run["rows"] for runs in told.values() for run in runs}
    assert len(counts) == 1, f"the variants did different work: {counts}"
    return {name: medians(runs) for name, runs in told.items()}


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Give the median of each figure over some runs; what is no number is left out."""
    numbers = [figure for figure, value in runs[0].items() if isinstance(value, int | float)]
    return {figure: statistics.median(run[figure] for run in runs) for figure in numbers}


def tell(found: Found) -> None:
    """Print the medians of all variants."""
    for name, figures in found.items():
        rate = figures["rows"] / figures["cpu_s"] / 1000
        took = f"{figures['cpu_s']:7.2f} CPU s {figures['wall_s']:7.2f} s {rate:7.1f} k rows/CPU s"
        print(f"{name:22} {took} {figures['mb']:6.0f} MB")


def ratio(part: str, found: Found, ours: str, other: str, *, at_least: float, figure: str = "cpu_s") -> Row:
    """Compare what another variant took with what ours took."""
    times = found[other][figure] / found[ours][figure]
    return Row(part, f"≥ {at_least} ×", f"{times:.2f} ×", times >= at_least)


def compare(
    script: str,
    variants: Mapping[str, Variant],
    make: Callable[[Path, int], None],
    rows: Callable[[Found], list[Row]],
    *,
    records: int = 100_000,
) -> None:
    """Be the whole of a script that makes data and lets variants take turns: [RECORDS] [PAIRS]."""
    if play(variants):
        return
    records, pairs = asked_for(records, 5)
    with TemporaryDirectory(prefix="nightbatch-bench-") as name:
        make(Path(name), records)
        found = in_turn(script, variants, Path(name), pairs=pairs)
    tell(found)
    finish(script, found, rows(found), turns=pairs)


def finish(script: str, found: Any, rows: list[Row], *, turns: int = 1, **more: Any) -> None:
    """Print the rows, and leave them where `make bench` gathers them; `more` is for the pictures."""
    for row in rows:
        print(row)
    folder = Path(".bench")
    folder.mkdir(exist_ok=True)
    file = folder / f"{Path(script).stem}.json"
    told = [asdict(replace(row, turns=row.turns or turns)) for row in rows]
    file.write_text(json.dumps({"found": found, "rows": told, **more}, indent=1))


def turns_asked(default: int) -> int:
    """Take `turns=N` off the command line, for scripts whose numbers are sizes."""
    told = [text for text in sys.argv if text.startswith("turns=")]
    sys.argv[:] = [text for text in sys.argv if text not in told]
    return int(told[-1].partition("=")[2]) if told else default


def asked_for(*defaults: int) -> list[int]:
    """Read whole numbers from the command line; the defaults stand for those that are left out."""
    given = [int(text.replace("_", "")) for text in sys.argv[1:]]
    return [*given, *defaults[len(given) :]]

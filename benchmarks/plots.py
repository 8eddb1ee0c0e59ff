"""
Draw what `growth.py` and `memory.py` found last: where the time goes, memory over time, and what a night costs by size.

    .venv/bin/python benchmarks/plots.py        # docs/assets/performance-*.svg anew

matplotlib is in no environment of ours; it gets one of its own, as the peers do. Text is grey and the ground is clear,
so that a picture can be read on a light page and on a dark one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCH = Path(".bench")
ASSETS = Path(__file__).parents[1] / "docs" / "assets"
GREY = "#808080"
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2")
STEPS = ("prepare", "submit", "collect", "validate", "load", "settle")


def found(name: str) -> Any:
    """Read what a benchmark found last; None where it never ran."""
    file = BENCH / f"{name}.json"
    return json.loads(file.read_text())["found"] if file.exists() else None


def axes(count: int = 1, *, height: float = 3.2) -> tuple[Any, Any]:
    """Give an empty picture."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "nightbatch", "font.size": 10, "text.color": GREY})
    plt.rcParams.update({"axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "axes.edgecolor": GREY})
    picture, parts = plt.subplots(1, count, figsize=(8.5, height), layout="constrained")
    for one in parts if count > 1 else (parts,):
        one.spines[["top", "right"]].set_visible(False)
        one.grid(visible=True, color=GREY, alpha=0.25, linewidth=0.6)
        one.set_axisbelow(True)
    return picture, parts


def save(picture: Any, name: str) -> None:
    """Write a picture, the same bytes for the same figures."""
    file = ASSETS / f"performance-{name}.svg"
    picture.savefig(file, transparent=True, metadata={"Date": None})
    # matplotlib leaves blanks at the ends of lines.
    file.write_text("\n".join(line.rstrip() for line in file.read_text().splitlines()) + "\n")
    picture.savefig(BENCH / f"performance-{name}.png", facecolor="white", dpi=110)
    print(f"drew {file.name}")


def time_by_part(memory: Any) -> None:
    """Draw the microseconds of each step, for each size."""
    picture, bars = axes(height=2.1)
    sizes = list(memory["parquet"])
    left = [0.0] * len(sizes)
    labels = [f"{int(size):,} records" for size in sizes]
    for step, colour in zip(STEPS, COLOURS, strict=True):
        took = [memory["parquet"][size][step]["us"] for size in sizes]
        bars.barh(labels, took, left=left, color=colour, label=step, height=0.6)
        for row, (start, one) in enumerate(zip(left, took, strict=True)):
            if one > 3:
                bars.text(start + one / 2, row, f"{one:.0f}", ha="center", va="center", color="white", fontsize=9)
        left = [start + one for start, one in zip(left, took, strict=True)]
    bars.invert_yaxis()
    bars.grid(visible=False, axis="y")
    bars.set_xlabel("µs of CPU a record of 2 KB, Parquet to Parquet, imports apart")
    picture.legend(loc="outside upper center", ncols=len(STEPS), frameon=False, labelcolor=GREY)
    save(picture, "parts")


def memory_over_time(growth: Any) -> None:
    """Draw what a night holds from its start to its end, for the two largest sizes."""
    picture, lines = axes()
    for size, colour in zip(sorted(growth, key=int)[-2:], COLOURS[:2], strict=True):
        seconds, held = zip(*growth[size]["memory"], strict=True)
        label = f"{int(size):,} records ({growth[size]['wall_s']:.0f} s)"
        lines.plot([100 * one / growth[size]["wall_s"] for one in seconds], held, color=colour, label=label)
    lines.set_ylim(bottom=0)
    lines.set_xlim(0, 100)
    lines.set_xlabel("% of the night, the vendor answering at once")
    lines.set_ylabel("MB held by `nightbatch run`")
    lines.legend(frameon=False, labelcolor=GREY, loc="lower right")
    save(picture, "memory")


def cost_by_size(growth: Any) -> None:
    """Draw dollars and CPU seconds over the number of records."""
    from matplotlib.ticker import FuncFormatter

    picture, (money, work) = axes(2)
    sizes = sorted(growth, key=int)
    records = [int(size) for size in sizes]
    for figure, label, colour in (("realtime_usd", "real time", COLOURS[1]), ("usd", "batch", COLOURS[0])):
        money.loglog(records, [growth[size][figure] for size in sizes], "o-", color=colour, label=label)
    for figure, label, colour in (
        ("whole_s", "all of `nightbatch run`", COLOURS[0]),
        ("prepare", "prepare", COLOURS[2]),
    ):
        work.loglog(records, [growth[size][figure] for size in sizes], "o-", color=colour, label=label)
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    for one, unit in ((money, "USD at the vendor (gpt-5-mini)"), (work, "CPU seconds of ours")):
        one.set_xlabel("records of 0.5 KB")
        one.set_ylabel(unit)
        one.xaxis.set_major_formatter(plain)
        one.yaxis.set_major_formatter(plain)
        one.minorticks_off()
        one.legend(frameon=False, labelcolor=GREY)
    save(picture, "cost")


def main() -> None:
    """Draw in this process where it has matplotlib, else in one that has."""
    if "--here" not in sys.argv:
        from peers import python_of

        python = python_of("plots")
        if python is not None:
            subprocess.run([python, __file__, "--here"], check=True)
        return
    if memory := found("memory"):
        time_by_part(memory)
    if growth := found("growth"):
        memory_over_time(growth)
        cost_by_size(growth)


if __name__ == "__main__":
    main()

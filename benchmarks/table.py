"""
Run every benchmark, or name those to run, and print the table of what was asked for and what was seen.

    make bench
    .venv/bin/python benchmarks/table.py prepare night
    .venv/bin/python benchmarks/table.py --write

`--write` runs nothing: it puts what was found last, which is left in `.bench/`, into the table of docs/performance.md
and its pictures; lines about what was not measured anew stay as they are. CPU seconds are told, and still a busy
machine makes them half as many again. How many minutes each takes on two quiet cores, and what of, by its defaults:

    imports          1   five turns
    prepare          4   100,000 records, five turns; a minute more the first time, for the peer's environment
    parts            8   1,000,000 records, five turns
    postgres         2   100,000 records, five turns
    collect          2   100,000 records, five turns
    load             2   100,000 records, five turns
    upload           2   100,000 records, five turns
    night            5   100,000 records, five turns of ours and one of each peer
    growth          15   10,000, 100,000 and 1,000,000 records, five turns
    known           12   1,000,000 and 10,000,000 known answers, three kinds of sink, five turns
    through_airflow 30   1,000,000 records, five turns
    triggerer        6   1,000 batches for five minutes
    memory          42   100,000 and 1,000,000 records, five kinds of source and sink, five turns
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SCRIPTS = (
    "imports",
    "prepare",
    "parts",
    "postgres",
    "collect",
    "load",
    "upload",
    "night",
    "growth",
    "known",
    "through_airflow",
    "triggerer",
    "memory",
)
VERSIONS = ("pyarrow", "orjson", "msgspec", "jsonschema-rs", "psycopg", "duckdb", "obstore", "apache-airflow")


PAGE = FOLDER.parent / "docs" / "performance.md"


def main() -> int:
    """Run them in turn; 0 if every target was met."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written(PAGE.read_text(), list(lines_of(SCRIPTS))))
        subprocess.run([sys.executable, str(FOLDER / "plots.py")], check=True)
        return 0
    wanted = sys.argv[1:] or SCRIPTS
    if unknown := [name for name in wanted if name not in SCRIPTS]:
        sys.exit(f"There is no benchmark {', '.join(unknown)}; there are: {', '.join(SCRIPTS)}.")
    for name in wanted:
        print(f"--- {name}", flush=True)
        began = time.monotonic()
        subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], check=True)
        print(f"    took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    print("\n".join(lines_of(wanted)))
    return 1 if any(row["is_met"] is False for row in rows_of(wanted)) else 0


def written(page: str, lines: list[str]) -> str:
    """Put the lines of a table into a page: each in the place of the one about the same part, the others below."""
    before, table, after = re.split(r"(?s)(?<=<!-- figures -->\n)(.*)(?=<!-- end -->)", page)
    kept = {_part(line): line for line in table.splitlines() if line.startswith("| ")}
    *rows, versions = lines
    kept |= {_part(line): line for line in rows}
    return "\n".join([before.rstrip("\n"), *kept.values(), versions, after])


def _part(line: str) -> str:
    return line.split(" | ")[0]


def rows_of(names: Sequence[str]) -> list[dict[str, Any]]:
    """Read what the scripts found last."""
    files = [Path(".bench") / f"{name}.json" for name in names]
    return [row for file in files if file.exists() for row in json.loads(file.read_text())["rows"]]


def lines_of(names: Sequence[str]) -> Iterator[str]:
    """Write the table, and what it was measured with."""
    yield "| part | asked for | seen | turns | |"
    yield "| --- | --- | --- | ---: | --- |"
    for row in rows_of(names):
        verdict = {True: "met", False: "**missed**", None: ""}[row["is_met"]]
        yield f"| {row['part']} | {row['target']} | {row['seen']} | {row.get('turns', 1)} | {verdict} |"
    known = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    yield f"\nPython {platform.python_version()}, {os.cpu_count()} cores, {known}."


if __name__ == "__main__":
    sys.exit(main())

"""
Run every benchmark, or name those to run, and print the table of what was asked for and what was seen.

    make bench
    .venv/bin/python benchmarks/table.py prepare night

Takes an hour or so on two quiet cores: CPU seconds are told, and still a busy machine makes them half as many again.
What each found is left in `.bench/`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = ("imports", "prepare", "parts", "postgres", "collect", "load", "upload", "night", "triggerer", "memory")
VERSIONS = ("pyarrow", "orjson", "msgspec", "jsonschema-rs", "psycopg", "duckdb", "obstore", "apache-airflow")


def main() -> int:
    """Run them in turn; 0 if every target was met."""
    wanted = sys.argv[1:] or SCRIPTS
    for name in wanted:
        print(f"--- {name}", flush=True)
        subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], check=True)
    known = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores, {known}\n")
    files = [Path(".bench") / f"{name}.json" for name in wanted]
    rows = [row for file in files if file.exists() for row in json.loads(file.read_text())["rows"]]
    print("| part | asked for | seen | |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['part']} | {row['target']} | {row['seen']} | {'met' if row['is_met'] else '**missed**'} |")
    return 0 if all(row["is_met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

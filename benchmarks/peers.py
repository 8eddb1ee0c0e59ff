"""
Others that do some of what nightbatch does, installed only to compare, each in an environment of its own.

They cannot share ours: one wants an older pydantic, another an older openai. An environment is made in
`.bench/venvs` when a benchmark first asks for it, which takes a minute; no other command does.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

PINS = {
    "airflow": ("apache-airflow-providers-common-ai[openai]==1.0.0", "apache-airflow==3.3.2", "pyarrow==26.0.1"),
    "batchwizard": ("batchwizard==0.5.0",),
    "curator": ("bespokelabs-curator==0.1.31",),
    "plots": ("matplotlib==3.11.2",),
}
"""Peer, or what draws the pictures -> what is installed for it."""
VENVS = Path(".bench") / "venvs"


@cache
def python_of(name: str) -> Path | None:
    """Give the Python of a peer, installed where it is not yet; None, and a line, where that cannot be done."""
    folder = (VENVS / name).absolute()
    done, pins = folder / "pins.json", json.dumps(PINS[name])
    if done.exists() and done.read_text() == pins:
        return folder / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder]
    fill = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", folder / "bin" / "python", *PINS[name]]
    for argv in (make, fill):
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
        if made.returncode:
            print(f"  {name} cannot be installed: {made.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
    done.write_text(pins)
    return folder / "bin" / "python"


def played(name: str, data: Path, out: Path, **environ: str) -> dict[str, Any]:
    """Run `peer_NAME.py` with the peer's Python; gives what it tells, and what its process took."""
    return run_of([python_of(name), Path(__file__).parent / f"peer_{name}.py", data, out], **environ)


def run_of(argv: list[Any], **environ: str) -> dict[str, Any]:
    """Run a command of a peer; gives the JSON of its last line, if it is that, and what its process took."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environ})
    if done.returncode:
        raise SystemExit(f"{argv[1]}:\n{done.stderr[-2000:]}{done.stdout[-1000:]}")
    used, last = resource.getrusage(resource.RUSAGE_CHILDREN), (done.stdout.splitlines() or [""])[-1]
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    took = {"cpu_s": cpu, "wall_s": time.perf_counter() - began, "mb": used.ru_maxrss / 1024}
    return {**took, **(json.loads(last) if last.startswith("{") else {})}

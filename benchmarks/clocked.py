"""
Clock the five step functions of `flow`, from outside: each call's CPU seconds go to the file that BENCH_CLOCK names.

    python benchmarks/clocked.py run JOB.yaml ...        # the command line of nightbatch, clocked

A Dag file that calls `clock()` does the same in every task, since a task begins by reading its Dag file. What a step
imports is told apart: the first step of a process pays it, and Airflow's tasks are processes of their own.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

STEPS = ("prepare", "advance", "close_round", "advance_late", "finish")


class Imports:
    """Adds up what importing takes; a module that is loaded already costs nothing."""

    def __init__(self) -> None:
        self.s, self._is_inside, self._real = 0.0, False, builtins.__import__
        builtins.__import__ = self

    def __call__(self, name: str, *args: Any, **more: Any) -> Any:
        """Import as ever."""
        if self._is_inside or name in sys.modules:
            return self._real(name, *args, **more)
        self._is_inside, began = True, time.process_time()
        try:
            return self._real(name, *args, **more)
        finally:
            self._is_inside = False
            self.s += time.process_time() - began


def clock() -> None:
    """Put the clock around the steps, once a process."""
    from nightbatch import flow

    if hasattr(flow, "_clocked"):
        return
    imports, flow._clocked, depth = Imports(), True, [0]  # type: ignore[attr-defined]

    def timed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def call(*args: Any, **more: Any) -> Any:
            if depth[0]:
                return step(*args, **more)
            depth[0], began, imported = 1, time.process_time(), imports.s
            try:
                return step(*args, **more)
            finally:
                depth[0], imported = 0, imports.s - imported
                told = {"step": name, "s": time.process_time() - began - imported, "imports_s": imported}
                with Path(os.environ["BENCH_CLOCK"]).open("a") as file:
                    file.write(json.dumps(told) + "\n")

        return call

    for name in STEPS:
        setattr(flow, name, timed(name, getattr(flow, name)))


def clocked(file: Path) -> dict[str, float]:
    """Add up what was written: CPU seconds of each step, of all of them, and of their imports."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    steps = {name: sum(line["s"] for line in lines if line["step"] == name) for name in STEPS}
    return {**steps, "steps_s": sum(steps.values()), "imports_s": sum(line["imports_s"] for line in lines)}


if __name__ == "__main__":
    clock()
    from nightbatch.cli import app

    app()

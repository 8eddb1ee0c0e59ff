"""Commands typed at a desk, each in a process of its own, forked from one that has loaded everything already."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.faults.forked import server


@dataclass
class Command:
    """A command under way."""

    process: ForkServerProcess
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        """Give its process id."""
        assert self.process.pid is not None
        return self.process.pid

    @property
    def code(self) -> int | None:
        """Give its exit code; None while it runs."""
        return self.process.exitcode

    def said(self) -> str:
        """Give what it wrote on stderr so far."""
        return self.err.read_text()

    def wait(self, timeout_s: float = 200) -> int:
        """Wait for its end, and give its exit code."""
        ends = time.monotonic() + timeout_s
        while self.code is None and time.monotonic() < ends:
            self.process.join(1)
        if self.code is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it does not end:\n{self.out.read_text()}\n{self.said()}")
        return self.code

    def kill(self) -> None:
        """Kill it without warning."""
        self.process.kill()
        self.process.join()


def begin(
    words: Sequence[str], *, folder: Path, environ: Mapping[str, str], largest_file_bytes: int | None = None
) -> Command:
    """Begin `nightbatch WORDS` in a folder, with nothing of our own environment that is about nightbatch."""
    number = sum(1 for _ in folder.glob("command-*.out"))
    out, err = folder / f"command-{number}.out", folder / f"command-{number}.err"
    out.touch()
    err.touch()
    process = server().Process(target=_run, args=(list(words), folder, dict(environ), out, err, largest_file_bytes))
    process.start()
    return Command(process, out, err)


def _run(
    words: list[str], folder: Path, environ: dict[str, str], out: Path, err: Path, largest_file_bytes: int | None
) -> None:
    """Become the command; runs in the child."""
    for path, number in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    for name in [name for name in os.environ if name.startswith(("NIGHTBATCH", "AIRFLOW"))]:
        del os.environ[name]
    os.environ.update(environ)
    os.chdir(folder)
    if largest_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, resource.RLIM_INFINITY))
    sys.argv = ["nightbatch", *words]
    from nightbatch.cli import app

    try:
        app(prog_name="nightbatch")
    finally:
        with suppress(OSError):
            sys.stdout.flush()

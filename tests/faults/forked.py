"""
Processes that begin with everything imported: each is forked from a server that did it once.

A cell needs two or three processes, and imports are two thirds of what each costs (3 of 5 CPU seconds). A fork has an
id, memory and connections of its own, dies and freezes alone, and runs the very command; the calm twins, with which
all cells are compared, run it from a shell.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRELOAD = (
    "alembic.command", "alembic.config", "anthropic", "boto3", "genai_prices.data", "httpcore2", "httpx2",
    "jsonschema_rs", "obstore", "openai", "psycopg", "pyarrow.compute", "pyarrow.parquet", "nightbatch.adapters.clock",
    "nightbatch.adapters.ledger_sql", "nightbatch.adapters.notifiers.mail", "nightbatch.adapters.notifiers.slack",
    "nightbatch.adapters.object_store", "nightbatch.adapters.prices",
    "nightbatch.adapters.providers.anthropic_client", "nightbatch.adapters.providers.openai_client",
    "nightbatch.adapters.registry", "nightbatch.adapters.sinks.files", "nightbatch.adapters.sinks.postgres",
    "nightbatch.adapters.sources.files", "nightbatch.adapters.sources.postgres", "nightbatch.adapters.telemetry",
    "nightbatch.cli", "nightbatch.flow", "tests.faults.forked", "tests.faults.victim",
    "tests.faults.frozen",
)  # fmt: skip
"""
Modules only: no connection, no thread, nothing that a fork must not inherit.

The last one makes the garbage collector pass over all of them, or each fork would copy what it only looks at.
"""

SERVER_ID = os.getpid()
"""In a process that was forked from the server: the server's id, since it imported this."""


@cache
def server() -> ForkServerContext:
    """Start the server, once, and give what makes processes by it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    # The server finds its modules by this.
    before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", ""), str(ROOT)
    try:
        forkserver.ensure_running()
    finally:
        os.environ["PYTHONPATH"] = before
    return context


def begin(words: list[str], *, at: str, folder: Path, environ: dict[str, str], number: int) -> ForkServerProcess:
    """Begin a command of `nightbatch` in a process of its own; what it says goes to `number.out` and `number.err`."""
    process = server().Process(target=_carry_out, args=(words, at, str(folder), environ, number), daemon=True)
    process.start()
    return process


def _carry_out(words: list[str], at: str, folder: str, environ: dict[str, str], number: int) -> None:
    assert os.getpid() != SERVER_ID, "the server has not imported anything beforehand"
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for name, fd in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
    if at:
        from tests.faults.victim import lay

        lay(at)
    from nightbatch.cli import app

    sys.argv = ["nightbatch", *words]
    app(args=words, prog_name="nightbatch")

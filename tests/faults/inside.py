"""The real steps, ledger, store and vendor of a desk, in this process, for what must be handed in: a clock, a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from datetime import timedelta

from nightbatch.adapters.connections import from_environment
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.job_file import load_job
from nightbatch.ports import Clock, Ports
from tests.faults.world import DAY, WAITS, World

WINDOW = Window(DAY, DAY + timedelta(days=1))


@contextmanager
def open_inside(desk: World, *, clock: Clock | None = None, **waits: str) -> Iterator[tuple[Ports, Job]]:
    """Open the desk's job as the command line would."""
    environ = {"PATH": os.environ["PATH"], **WAITS, **waits, "NIGHTBATCH_LEDGER_URL": desk.ledger, **desk.environ}
    with chdir(desk.folder):
        job = load_job(desk.folder / "world.yaml")
        settings = settings_from(environ)
        ledger = SqlLedger.open_or_migrate(settings.ledger_url)
        try:
            yield open_ports(job, settings, from_environment(environ), clock=clock, ledger=ledger), job
        finally:
            ledger.close()

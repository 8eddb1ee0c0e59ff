"""Before step 1, where a window is read from earlier on: what other runs asked there and was answered badly."""

from __future__ import annotations

from collections.abc import Iterator

from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Ports

from .letters import standing
from .parquet import read_rows
from .reads import reads


def dead_before(ports: Ports, job: Job, window: Window) -> Iterator[tuple[str, str]]:
    """
    Stream (key, fingerprint) of the dead letters that stand in the windows which a run reads again.

    They were paid once, and `nightbatch retry` sends them again when a person says so. What a later generation has
    taken up is left out. Letters whose files are past their retention are not known any more.
    """
    start = reads(ports.ledger, job, window).start
    if start == window.start:
        return
    before = Window(start, window.start)
    looked_at: set[Window] = set()
    for run in sorted(ports.ledger.runs(job=job.name, limit=1_000), key=lambda one: -one.generation):
        is_other = run.window != window and run.window.overlaps(before) and run.window not in looked_at
        if not is_other or run.plan is None or run.staging_removed_utc is not None:
            continue
        looked_at.add(run.window)
        for found in standing(ports, run):
            for key, print_, reason in _letters(ports, found.plan.facts.get("dead_name", "")):
                if print_ and reason in found.groups:
                    yield key, print_


def _letters(ports: Ports, name: str) -> Iterator[tuple[str, str, str]]:
    if name:
        yield from read_rows(ports.store, name, ("key", "fingerprint", "reason"))

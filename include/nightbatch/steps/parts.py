"""
Steps 1 to 3 in parts: a source that several workers read side by side, into one plan (docs/adr/0024).

    split       which parts there are; one file in the store names them, the job, and the run
    read        each part by itself: pull, render, and pack all that can be asked, into shards
    sort        what no part can know alone: which records came before, are unchanged, or ask the same
    mend        packs shards anew from which records fell out
    gather      what becomes the plan

Whoever finishes one of these first writes down what it made, and that stands for everybody after: done again, by
whomever, on whichever machine, it gives what it gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.job_sealed import facts_of, unsealed
from nightbatch.ports import PartedSource, PendingFile, Ports, Run, Store

from .reads import reads
from .redact import kept_key

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """How one run's source is read in parts: the same for all who work on it, whatever the job file says by then."""

    name: str
    """Its own file in the store; beside it stands all that is made of it."""
    run: str
    reads: Window
    """The time whose records are read; see `steps/reads.py`."""
    parts: tuple[dict[str, Any], ...]
    pending: tuple[PendingFile, ...]
    """Rows of earlier runs, which are read with the last part."""
    job: dict[str, Any]
    """As `facts_of` gives it."""
    refresh: bool
    canary_rows: int
    """Most rows of the first shard; 0 for no canary."""

    @property
    def folder(self) -> str:
        """Give the folder of all that is made of it."""
        return self.name.rpartition("/")[0]

    def read_job(self) -> Job:
        """Give the job as it was when the source was split. Raises PlanUnreadable."""
        return unsealed(self.job, run=self.run)


@dataclass(frozen=True)
class Errand:
    """What one worker can do by itself, named so that it fits into an XCom."""

    spread: str
    kind: str
    """`read` or `mend`."""
    number: int


Crew = Callable[[Sequence[Errand]], None]
"""
Has errands done side by side, as well as it can.

Nothing rests on it: whoever needs what an errand makes does it then, where it was not done.
"""


def split(
    ports: Ports, job: Job, run: Run, pending: Sequence[PendingFile], *, refresh: bool, canary_rows: int
) -> Spread | None:
    """Cut what a run reads into parts, and write them down; None where one worker may as well read it all."""
    time = reads(ports.ledger, job, run.window)
    parts = parts_of(ports, job, time)
    if len(parts) < 2:
        return None
    spread = Spread(
        name=f"{run.run}/round-0/{ports.clock.now():%H%M%S%f}/spread.json",
        run=run.run,
        reads=time,
        parts=tuple(parts),
        pending=tuple(pending),
        job=facts_of(job),
        refresh=refresh,
        canary_rows=canary_rows,
    )
    ports.store.write(spread.name, msgspec.json.encode(spread))
    return spread


def parts_of(ports: Ports, job: Job, time: Window) -> list[dict[str, Any]]:
    """Say which parts the records of a time are read in; none where one worker may as well read them all."""
    most = job.source.parts
    source = ports.source() if most > 1 else None
    if job.redact is not None and not kept_key(ports, job):
        # The first plan makes the key up, which all workers would have to know, and which is kept in plans alone.
        return []
    if not isinstance(source, PartedSource):
        return []
    return source.parts(time, most=most, least_bytes=ports.settings.part_bytes)


def opened(store: Store, name: str) -> Spread:
    """Read how a source was split. Raises FileNotFoundError."""
    return msgspec.json.decode(store.read(name), type=Spread)


def once(store: Store, name: str, kind: type[T], make: Callable[[], T]) -> T:
    """Make something once for all: what the first to end writes down is what everybody gets."""
    try:
        return msgspec.json.decode(store.read(name), type=kind)
    except FileNotFoundError:
        store.write(name, msgspec.json.encode(make()), if_absent=True)
    return msgspec.json.decode(store.read(name), type=kind)

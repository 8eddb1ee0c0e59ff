"""The installation that the browser looks at: three jobs, each with something that people want to see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nightbatch.demo.installation import install
from nightbatch.demo.services.stack import Stack
from tests.e2e.stand import Stand, job, write_dags

JOBS = [
    job("feedback", description="Rate what customers wrote.", shard={"max_rows": 260}, rounds=2),
    job("nightly", description="Rate each night's reviews.", schedule="0 0 * * *", rounds=0),
    job("locked_out", description="Rate reviews until the key is revoked.", shard={"max_rows": 400}, rounds=0),
]


@dataclass(frozen=True)
class Night:
    """A stand whose first runs have ended; the names are Airflow's run ids."""

    stand: Stand
    feedback: str
    locked_out: str


@contextmanager
def open_night(folder: Path) -> Iterator[Night]:
    """Start everything, and run a night of two retry rounds and one whose key is revoked while its batches run."""
    dags = write_dags(folder / "dags", JOBS)
    with Stack(folder / "data") as stack:
        stand = Stand(stack, install(stack, is_real=False, faults={}, dags_folder=dags))
        stand.make_table()
        for each in JOBS:
            stand.api.wait_for_dag(each["name"])
        stand.vendor("feedback", transient=0.1, fault_attempts=2)
        stand.vendor("nightly")
        revoked = stand.vendor("locked_out", batch_seconds=60)
        night = Night(stand, stand.start("feedback"), stand.start("locked_out"))
        stand.until_shards("locked_out", open=2)
        revoked.change_faults(http_401=1_000_000, on="retrieve_batch")
        assert stand.end("locked_out", night.locked_out) == "failed"
        assert stand.end("feedback", night.feedback) == "success"
        yield night

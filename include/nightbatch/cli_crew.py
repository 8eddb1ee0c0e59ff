"""Reads the parts of a source side by side, in processes of their own on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING

from nightbatch.cli_frame import ports_of
from nightbatch.errors import NightbatchError
from nightbatch.job import Job
from nightbatch.logs import logger

if TYPE_CHECKING:
    from nightbatch.flow import Crew, Errand

log = logger(__name__)


def crew_of(job: Job) -> Crew | None:
    """Give as many workers as there are cores; None where a job is read in one part, or there is one core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return partial(_side_by_side, job, cores) if min(job.source.parts, cores) > 1 else None


def _side_by_side(job: Job, cores: int, errands: Sequence[Errand]) -> None:
    if not errands:
        return
    # Not by fork: clients of buckets and databases have threads, which do not survive it.
    with ProcessPoolExecutor(min(cores, len(errands)), mp_context=get_context("spawn")) as workers:
        try:
            told = list(workers.map(partial(_work, job.to_json()), errands))
        except BrokenProcessPool:
            told = ["a worker died"]
    for problem in filter(None, told):
        # Whoever needs the part reads it itself, and meets what is wrong where it can be told.
        log.warning("prepare: a part could not be read beside the others: %s", problem)


def _work(job_text: str, errand: Errand) -> str:
    """Do one errand; gives what went wrong, since errors of ours do not travel between processes."""
    from nightbatch.steps.parts_mend import do

    try:
        do(ports_of(Job.from_json(job_text)), errand)
    except NightbatchError as error:
        return str(error)
    return ""

"""
nightbatch: batch LLM jobs, half the price, every row accounted for, nothing paid twice.

A record's path, each step a file in `steps/` and a line in `flow.py`:

    1 pull      a record of the window is read from the source, unless it cannot wait
    2 render    its columns become the messages that a model reads
    3 pack      equal and unchanged questions are left out; the rest fill shards, and the plan is sealed
    4 submit    a shard becomes a batch at the vendor, exactly once, whatever dies on the way
    5 wait      the batch is looked at now and then; no worker is held
    6 collect   its raw result files are stored, whole and hashed
    7 validate  every row gets one verdict, and its cost is booked
    8 load      good answers are merged into the sink, by key
    9 retry     the others are sent again, changed or not, or become dead letters, or stay pending
   10 settle    everything is added up; a run that does not add up is not green
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nightbatch.core.window import Window
    from nightbatch.errors import NightbatchError
    from nightbatch.job import Job
    from nightbatch.job_file import job_from, load_job

__version__ = "0.1.0"

_NAMES = {
    "Job": "nightbatch.job",
    "NightbatchError": "nightbatch.errors",
    "Window": "nightbatch.core.window",
    "job_from": "nightbatch.job_file",
    "load_job": "nightbatch.job_file",
}

# Arrow reads it when it is first imported. Its own allocator keeps what was let go of: 120 MB of a process that never
# held more than 6 MB in Arrow at once.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

__all__ = ["Job", "NightbatchError", "Window", "__version__", "job_from", "load_job"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used, so that importing the package costs nothing."""
    if name not in _NAMES:
        raise AttributeError(f"module 'nightbatch' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)

"""What `nightbatch check` finds in job files, and where a command finds the job that it is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nightbatch.errors import ConnectionInvalid, JobInvalid, PackageMissing, Problem
from nightbatch.job import Job
from nightbatch.job_file import clashes, load_job
from nightbatch.job_values import nearest

JOBS = Path(os.environ.get("NIGHTBATCH_JOBS", "include/jobs"))
"""Where the job files are; by default those of a project, seen from its own folder."""


@dataclass
class Found:
    """What is wrong with one job file, and which of its connections are not there (which may be as it should be)."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def job_files(folder: Path = JOBS) -> list[Path]:
    """List the job files of a folder, sorted."""
    return sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))


def find_job(name: Path) -> Job:
    """Load a job by its file, or by the name of one in include/jobs."""
    if name.exists() and not name.is_dir():
        return load_job(name)
    if name.suffix or len(name.parts) > 1:
        return load_job(name)
    files = {file.stem: file for file in job_files()}
    if str(name) in files:
        return load_job(files[str(name)])
    near = nearest(str(name), files)
    known = f"There are: {', '.join(sorted(files))}" if files else "There are no job files there yet"
    hint = f"Did you mean {near}? {known}." if near else f"{known}; or give the path of a file."
    raise JobInvalid(str(name), [Problem("job", f"no job of this name is in {JOBS}", hint)])


def check_files(names: Sequence[Path], *, now: datetime) -> dict[str, Found]:
    """Check these jobs, or without any all of include/jobs, and whether two are in each other's way."""
    found: dict[str, Found] = {}
    jobs: dict[Path, Job] = {}
    for name in dict.fromkeys(names or job_files()):
        found[str(name)] = one = Found()
        try:
            jobs[name] = find_job(name)
            _check_outside(jobs[name], one, now)
        except JobInvalid as error:
            one.problems += map(str, error.problems)
    for name, problems in clashes(jobs).items():
        found[str(name)].problems += map(str, problems)
    return found


def _check_outside(job: Job, found: Found, now: datetime) -> None:
    """Check what only the outside knows: providers, prices and connections. No network is used."""
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.extras import is_absent
    from nightbatch.adapters.functions import function_problems
    from nightbatch.adapters.providers.account_budget import month_budget
    from nightbatch.adapters.registry import PROVIDERS, connections_of, open_prices, settings_from
    from nightbatch.steps.lanes import known_price

    for number, model in enumerate(job.models):
        if model.provider not in PROVIDERS:
            remedy = f"Use one of: {', '.join(sorted(PROVIDERS))}."
            problem = Problem(f"models.{number}.provider", f"{model.provider!r} is not known", remedy)
            found.problems.append(str(problem))
            continue
        if is_absent(model.provider):
            found.warnings.append(str(PackageMissing(model.provider, extra=model.provider)))
        try:
            price = known_price(open_prices(settings_from(os.environ)), job, number, at=now)
        except JobInvalid as error:
            found.problems += map(str, error.problems)
            continue
        if price.batch is None:
            found.warnings.append(f"models.{number}.model: its costs will be booked as 0 USD: {price.note}")
    found.problems += map(str, function_problems(job, allowed=settings_from(os.environ).redact_modules))
    connections = from_environment(os.environ)
    for conn_id in connections_of(job):
        try:
            month_budget(connections(conn_id))
        except ConnectionInvalid as error:
            found.warnings.append(str(error))

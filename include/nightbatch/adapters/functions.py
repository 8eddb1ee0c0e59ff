"""Loads the functions of a deployer that job files may name: from modules that the deployer allows, and no others."""

from __future__ import annotations

from importlib import import_module

from nightbatch.errors import JobInvalid, Problem
from nightbatch.job import Job
from nightbatch.ports import FindSpans

SETTING = "NIGHTBATCH_REDACT_MODULES"


def open_function(name: str, *, allowed: str, job: Job) -> FindSpans:
    """
    Load a function by its dotted name.

    A job file may be written by somebody who may not run code here, so it can name only what is defined in a module
    that the installation lists: not what such a module imports, and nothing of Python's own. Raises JobInvalid.
    """
    module, _, attribute = name.rpartition(".")
    if module not in {one.strip() for one in allowed.split(",")}:
        remedy = f"If the function is yours, name its module in {SETTING} wherever Airflow runs"
        raise _invalid(job, name, f"module {module} is not one that this installation lets job files use", remedy)
    try:
        function = getattr(import_module(module), attribute, None)
    except Exception as error:  # a deployer's module may raise anything while it is imported
        remedy = "Install it wherever Airflow runs, and mend what it raises"
        raise _invalid(job, name, f"module {module} cannot be imported ({type(error).__name__})", remedy) from error
    if not callable(function) or getattr(function, "__module__", "") != module:
        raise _invalid(job, name, f"module {module} defines no function {attribute}", "Correct the name")
    found: FindSpans = function
    return found


def function_problems(job: Job, *, allowed: str) -> list[Problem]:
    """Give what is wrong with the functions that a job names."""
    found: list[Problem] = []
    for name in job.redact.functions.values() if job.redact else ():
        try:
            open_function(name, allowed=allowed, job=job)
        except JobInvalid as error:
            found += error.problems
    return found


def _invalid(job: Job, name: str, problem: str, remedy: str) -> JobInvalid:
    kinds = job.redact.functions.items() if job.redact else ()
    kind = next((kind for kind, one in kinds if one == name), name)
    return JobInvalid(f"job {job.name}", [Problem(f"redact.functions.{kind}", problem, f"{remedy}.")])

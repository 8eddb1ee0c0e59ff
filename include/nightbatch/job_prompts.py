"""A job's prompts by name: its own, those of its earlier runs, and those in files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from .errors import JobInvalid, Problem
from .job import Job, Prompt
from .job_yaml import read_yaml

LEAST_DIGITS = 4
"""Of a hash at least so many digits name a prompt."""


def prompt_named(job: Job, name: str, earlier: Iterable[Prompt]) -> Prompt:
    """
    Give the prompt that a name means: a version, `version@hash`, the beginning of a hash, or a file.

    A file is a template, which takes the place of the job's own user template, or YAML with the keys of `prompt`.
    Raises JobInvalid where nothing has the name, or several prompts have it.
    """
    known = {prompt.named: prompt for prompt in (*earlier, job.prompt)}
    found = [prompt for full, prompt in known.items() if _is_named(prompt, full, name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(prompt.named for prompt in found)
        raise _unknown(f"{len(found):,} prompts are named {name!r}", f"Name one by its hash: {names}.")
    file = Path(name)
    if file.is_file():
        return _of_file(job, file)
    remedy = f"Name one of these, by its version or its hash, or a file: {', '.join(known)}."
    raise _unknown(f"job {job.name} has had no prompt {name!r}, and there is no such file", remedy)


def _is_named(prompt: Prompt, full: str, name: str) -> bool:
    is_hash = len(name) >= LEAST_DIGITS and prompt.digest().startswith(name)
    return name in (prompt.version, full) or is_hash


def _of_file(job: Job, file: Path) -> Prompt:
    try:
        text = file.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unknown(f"{file} cannot be read ({type(error).__name__})", "Save it as UTF-8 text.") from error
    values = {"version": file.stem[:100], "cache_prefix": job.prompt.cache_prefix}
    if file.suffix in (".yaml", ".yml"):
        document = read_yaml(text)
        if document.problems or not isinstance(document.value, Mapping):
            raise _unknown(f"{file} holds no keys of a prompt", "Write system: and user: into it.")
        values |= document.value
    else:
        values |= {"system": job.prompt.system, "user": text.removesuffix("\n")}
    try:
        return Prompt.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(item["msg"] for item in error.errors(include_input=False, include_url=False))
        raise _unknown(f"{file} is no prompt: {problems}", "Correct it; docs/job-file.md tells the keys.") from None


def _unknown(problem: str, remedy: str) -> JobInvalid:
    return JobInvalid("the command", [Problem("--prompt", problem, remedy)])

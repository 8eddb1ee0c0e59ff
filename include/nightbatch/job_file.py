"""A job file: YAML in, a checked job out, or all of its problems at once, each with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import JobInvalid, Problem
from .job import FileSinkSpec, Job, TableSinkSpec
from .job_checks import folder_of
from .job_problems import check, known_keys
from .job_values import nearest
from .job_yaml import Document, Loc, path_of, read_yaml

_FILES = (("prompt", "system_file", "system"), ("prompt", "user_file", "user"), ("answer", "schema_file", "schema"))
_MAX_PART_BYTES = 1_000_000


def load_job(path: Path | str) -> Job:
    """
    Read one job file. Nothing in it is run, and nothing outside its own folder and `prompts` is read.

    Raises JobInvalid with every problem of the file.
    """
    path = Path(path)
    document = _read(path)
    data = document.value
    if document.problems and not isinstance(data, dict):
        raise JobInvalid(str(path), document.problems)
    if not isinstance(data, dict):
        raise JobInvalid(str(path), [_no_mapping(data)])
    problems = list(document.problems)
    renamed = _fill_in_files(path, data, document, problems)
    job, found = check(data)
    told = {problem.path for problem in problems}
    for loc, problem, remedy in found:
        place = renamed.get(loc[:2], loc[:2]) + loc[2:]
        # A key whose value could not be read is not missing.
        if path_of(place) not in told:
            problems.append(Problem(path_of(place), problem, remedy, document.line(place)))
    if job is None or problems:
        raise JobInvalid(str(path), sorted(problems, key=lambda problem: problem.line or 0))
    return job


def name_in(path: Path) -> str:
    """Give the name that a job file says, also one that is no YAML any more; empty where none can be read."""
    try:
        found = re.search(r"^name:[ \t]*[\"']?(\w+)", path.read_text(encoding="utf-8-sig"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def job_from(values: Mapping[str, Any], *, file: str = "job") -> Job:
    """Make a job of plain values in Python, with the same sentences. Raises JobInvalid."""
    job, found = check(values)
    if job is None:
        raise JobInvalid(file, [Problem(path_of(loc), problem, remedy) for loc, problem, remedy in found])
    return job


def load_jobs(folder: Path | str) -> tuple[list[Job], list[JobInvalid]]:
    """
    Read every `*.yaml` and `*.yml` of a folder, sorted by name; one bad file does not hide the others.

    Two jobs with one name or one sink would mix their runs or their answers: the first file keeps it, and the
    others are told.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = Problem("folder", "it is not there", "Make it, or set the folder where the job files are.")
        return [], [JobInvalid(str(folder), [problem])]
    jobs: dict[Path, Job] = {}
    invalid: dict[Path, JobInvalid] = {}
    files = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    for path in files:
        try:
            jobs[path] = load_job(path)
        except JobInvalid as error:
            invalid[path] = error
    clashing = clashes(jobs)
    invalid |= {path: JobInvalid(str(path), problems) for path, problems in clashing.items()}
    return [job for path, job in jobs.items() if path not in clashing], [invalid[at] for at in files if at in invalid]


def clashes(jobs: Mapping[Path, Job]) -> dict[Path, list[Problem]]:
    """Find the jobs that have a name or a sink which one before them has."""
    found: dict[Path, list[Problem]] = {}
    taken: dict[tuple[str, str], str] = {}
    for path, job in jobs.items():
        problems = [
            Problem(place, f"{what} belongs to {taken[place, what]} already", f"Give this job another {place}.")
            for place, what in _claims(job)
            if (place, what) in taken
        ]
        if problems:
            found[path] = problems
        else:
            taken |= dict.fromkeys(_claims(job), path.name)
    return found


def _claims(job: Job) -> list[tuple[str, str]]:
    """Name what only one job may have."""
    claims = [("name", job.name)]
    if isinstance(job.sink, TableSinkSpec):
        tables = {job.sink.table, job.sink.dead_letters or f"{job.sink.table}_dead_letters"}
        claims += [("sink", f"table {table.lower()} in {job.sink.connection}") for table in sorted(tables)]
    if isinstance(job.sink, FileSinkSpec):
        claims.append(("sink", f"folder {folder_of(job.sink.files)}"))
    return claims


def _read(path: Path) -> Document:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, (other.name for other in path.parent.glob("*.y*ml"))) if path.parent.is_dir() else ""
        hint = f"Did you mean {near}?" if near else "Check the path."
        return Document(problems=[Problem("file", "it is not there", hint)])
    except UnicodeDecodeError as error:
        problem = f"byte {error.start:,} is not UTF-8"
        return Document(problems=[Problem("file", problem, "Save it as UTF-8 text.")])
    except OSError as error:
        return Document(problems=[Problem("file", f"it cannot be read ({error.strerror})", "Check its rights.")])
    return read_yaml(text)


def _no_mapping(data: Any) -> Problem:
    if data is None:
        return Problem("file", "it is empty", "Start with name, source, prompt, models and sink.")
    return Problem("file", "it is not a mapping of keys", "Start with name: my_job, at the left edge.", 1)


def _fill_in_files(path: Path, data: dict[str, Any], document: Document, problems: list[Problem]) -> dict[Loc, Loc]:
    """Put templates and schemas that stand in files where inline ones would stand; gives which place is which file."""
    renamed: dict[Loc, Loc] = {}
    for section, file_key, key in _FILES:
        part = data.get(section)
        if not isinstance(part, dict) or not isinstance(part.get(file_key), str):
            continue
        place = (section, file_key)
        if part.get(key) is not None:
            _tell(problems, document, place, f"both {key} and {file_key} are set", "Keep one of them.")
            continue
        renamed[section, key] = place
        content = _content(path, part[file_key], place, document, problems)
        if content is not None and key == "schema":
            content = _schema(part[file_key], content, place, document, problems)
        # Text that is right anywhere stands in for what could not be read, so that the rest can be checked.
        part[key] = content if content is not None else "any" if section == "prompt" else None
        if part[key] is None:
            data[section] = {"text": True}
    source = data.get("source")
    for key in ("frame", "frame_name"):
        if isinstance(source, dict) and key in source:
            del source[key]
            if "query" not in source:
                source.setdefault("files", "any/source/")
            remedy = f"Did you mean {nearest(key, known_keys(('source',), data)) or 'files or query'}?"
            _tell(problems, document, ("source", key), "a table in memory can be given in Python only", remedy)
    return renamed


def _content(path: Path, name: str, place: Loc, document: Document, problems: list[Problem]) -> str | None:
    own = path.resolve().parent
    folders = (own, own / "prompts", own.parent / "prompts")
    # A job file is often written by more people than may read this machine's files.
    files = [folder / name for folder in folders]
    allowed = [file for file in files if any(file.resolve().is_relative_to(folder) for folder in folders)]
    file = next((file for file in allowed if file.is_file()), None)
    if file is None and (not allowed or any(file.is_file() for file in files)):
        _tell(problems, document, place, f"{name!r} leads out of the job's folders", "Put it into the folder prompts.")
        return None
    if file is None:
        others = [other.name for folder in folders if folder.is_dir() for other in folder.iterdir() if other.is_file()]
        near = nearest(name, others)
        hint = f"Did you mean {near}?" if near else f"Put it beside the job file or into {folders[2].name}."
        _tell(problems, document, place, f"there is no file {name!r}", hint)
        return None
    try:
        content = file.read_bytes()
        if len(content) > _MAX_PART_BYTES:
            raise ValueError(f"it is larger than {_MAX_PART_BYTES:,} bytes")
        # Editors end a file with a newline, which is not meant to be part of a prompt.
        return content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except (OSError, ValueError) as error:
        _tell(problems, document, place, f"{name!r} cannot be read ({error})", "Save it as UTF-8 text.")
        return None


def _schema(name: str, content: str, place: Loc, document: Document, problems: list[Problem]) -> Any:
    if name.endswith((".yaml", ".yml")):
        inner = read_yaml(content)
        schema, said = inner.value, "; ".join(map(str, inner.problems))
    else:
        try:
            schema, said = json.loads(content), ""
        except (ValueError, RecursionError) as error:
            schema, said = None, str(error)
    if said or not isinstance(schema, dict):
        _tell(problems, document, place, f"{name!r} holds no schema ({said or 'no object'})", "Write one JSON object.")
        return None
    return schema


def _tell(problems: list[Problem], document: Document, loc: Loc, problem: str, remedy: str) -> None:
    problems.append(Problem(path_of(loc), problem, remedy, document.line(loc)))

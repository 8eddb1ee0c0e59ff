"""The command `init`: samples a source, and writes a first job file, its prompt and its schema."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_show as show
from nightbatch.cli_check import JOBS, check_files
from nightbatch.cli_frame import Json, errors_told
from nightbatch.core.sample import Sample, can_be_said
from nightbatch.errors import JobInvalid, Problem
from nightbatch.job_draft import MODELS, Draft
from nightbatch.job_editor import FILE, job_schema
from nightbatch.job_values import nearest

if TYPE_CHECKING:
    from nightbatch.ports import Connection


@dataclass(frozen=True)
class Asked:
    """What the person wants; empty where they leave it to us."""

    files: str = ""
    table: str = ""
    connection: str = ""
    name: str = ""
    key: str = ""
    texts: tuple[str, ...] = ()
    provider: str = "openai"
    model: str = ""
    vendor: str = ""


def init(  # noqa: PLR0913 - one argument for each option
    files: Annotated[str, typer.Option("--files", help="A file, a folder or an address like s3://bucket/in/.")] = "",
    table: Annotated[str, typer.Option("--table", help="A table, like tickets or schema.tickets.")] = "",
    connection: Annotated[str, typer.Option("--connection", help="The connection of the table, or of a bucket.")] = "",
    name: Annotated[str, typer.Option("--name", help="The job's name; default: from the file or table.")] = "",
    key: Annotated[str, typer.Option("--key", help="The column that names a record; default: guessed.")] = "",
    text: Annotated[list[str] | None, typer.Option("--text", help="A column to ask about; may be repeated.")] = None,
    provider: Annotated[str, typer.Option("--provider", help=f"One of: {', '.join(MODELS)}.")] = "openai",
    model: Annotated[str, typer.Option("--model", help="The model; default: a cheap one.")] = "",
    vendor: Annotated[str, typer.Option("--vendor-connection", help="The connection with the vendor's key.")] = "",
    folder: Annotated[Path, typer.Option("--folder", help="Where the job file goes.")] = JOBS,
    as_json: Json = False,
) -> None:
    """Write a first job for a file or table of yours: job file, prompt and answer schema. Asks for what it needs."""
    with errors_told(as_json=as_json):
        asked = Asked(files, table, connection, name, key, tuple(text or ()), provider, model, vendor)
        if not files and not table:
            asked = _ask(asked, as_json=as_json)
        draft = _draft(asked)
        written = _write(draft, folder)
    said = {"job": str(written[0]), "files": [str(file) for file in written], "key": draft.key}
    if as_json:
        notes = {"notes": list(draft.notes)} if draft.notes else {}
        show.print_json({**said, "columns": list(draft.texts), "sampled": draft.sampled, **notes})
        return
    show.note(f"{draft.sampled:,} records sampled. The key is {draft.key!r}; sent are {', '.join(draft.texts)}.")
    for worth_knowing in draft.notes:
        show.note(worth_knowing)
    for file in written:
        show.note(f"wrote {file}")
    show.note(f"Next: nightbatch check {written[0]}, then nightbatch try {written[0]}, and edit what says CHANGE.")


def _ask(asked: Asked, *, as_json: bool) -> Asked:
    if as_json:
        raise _wrong("source", "neither --files nor --table is given", "Give --files, or --table and --connection.")
    try:
        where = typer.prompt("Where are the records? A file, a folder, an address, or the connection of a database")
        is_files = bool(re.search(r"[/.*]", where)) or Path(where).exists()
        table = "" if is_files else typer.prompt("Which table?")
    except typer.Abort:
        raise _wrong("source", "no answer", "Give --files, or --table and --connection.") from None
    found = {"files": where} if is_files else {"table": table, "connection": where}
    return Asked(**{**vars(asked), **found})


def _wrong(place: str, problem: str, remedy: str) -> JobInvalid:
    return JobInvalid("the command", [Problem(place, problem, remedy)])


def _draft(asked: Asked) -> Draft:
    from nightbatch.adapters.connections import from_environment
    from nightbatch.adapters.samples import sample_files, sample_table

    if asked.files and asked.table:
        raise _wrong("source", "both --files and --table are given", "Give one of them.")
    if asked.table and not asked.connection:
        raise _wrong("connection", "a table needs one", "Give --connection, the id of a connection.")
    if asked.provider not in MODELS:
        raise _wrong("provider", f"{asked.provider!r} is not known", f"Use one of: {', '.join(MODELS)}.")
    connection: Connection | None = from_environment(os.environ)(asked.connection) if asked.connection else None
    table, files = "", asked.files if "://" in asked.files else str(Path(asked.files).absolute())
    if connection is not None and asked.table:
        table, sample = sample_table(asked.table, connection)
        files = ""
    else:
        # A folder ends in a slash, or its last part would be taken for a file.
        files = f"{files.rstrip('/')}/" if "://" not in files and Path(files).is_dir() else files
        sample = sample_files(files, connection)
    name = asked.name or _name_of(asked.table or files)
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name):
        raise _wrong(
            "name", f"{name!r} is no job's name", "Use small letters, digits and _, a letter first, at most 40."
        )
    model, vendor = MODELS[asked.provider]
    key = _key_of(sample, asked.key)
    texts = _texts_of(sample, key, asked.texts, renames=bool(table))
    return Draft(
        name=name,
        key=key,
        texts=texts,
        notes=_notes_of(sample, key, () if asked.texts else texts),
        sampled=len(sample.rows),
        provider=asked.provider,
        model=asked.model or model,
        vendor=asked.vendor or vendor,
        sink=f"{name}_answers" if table else _folder_beside(files, f"{name}_answers"),
        files=files,
        table=table,
        connection=asked.connection,
        time_columns=[column for column in sample.columns if isinstance(sample.values(column)[0], datetime)],
    )


def _name_of(source: str) -> str:
    """Make a job's name of a file's or a table's."""
    last = re.sub(r"\.(csv|jsonl|json|parquet|gz|zst)\b", "", source.rstrip("/*").rpartition("/")[2])
    name = re.sub(r"[^a-z0-9]+", "_", last.lower().rpartition(".")[2]).strip("_")
    return (name if name[:1].isalpha() else f"job_{name}".rstrip("_"))[:40]


def _folder_beside(files: str, name: str) -> str:
    """Name a folder beside the source, never inside of it."""
    fixed = re.split(r"[*?\[]|\{\{", files, maxsplit=1)[0]
    parent = fixed.rstrip("/").rpartition("/")[0]
    if parent.endswith(":/"):  # the address of a whole bucket
        raise _wrong("files", f"{files} is a whole bucket, and answers would be among the records", "Name a folder.")
    return f"{parent}/{name}/"


def _key_of(sample: Sample, wanted: str) -> str:
    if wanted:
        _check_column(sample, wanted, "key")
        if problem := sample.key_problem(wanted, few_share=True):
            raise _wrong("key", f"{wanted!r} cannot name a record: {problem}", "Choose another column.")
        return wanted
    key = sample.guess_key()
    if not key:
        problem = f"of {len(sample.columns)} columns none is unique and never empty in {len(sample.rows):,} records"
        raise _wrong("key", problem, "Add a column that names each record, for instance in a view of the table.")
    return key


def _texts_of(sample: Sample, key: str, wanted: tuple[str, ...], *, renames: bool) -> dict[str, str]:
    """Choose what is sent; gives each column and its name in the template."""
    for column in wanted:
        _check_column(sample, column, "text")
    usable = tuple(column for column in sample.columns if _has_name(column, renames=renames))
    rest = Sample(usable, [tuple(row[sample.columns.index(column)] for column in usable) for row in sample.rows])
    chosen = wanted or rest.guess_texts(key)
    bad = [column for column in chosen if column not in usable]
    if bad or not chosen:
        problem = f"a template cannot say {bad[0]!r}" if bad else "there is no column that a template could say"
        raise _wrong("text", problem, "Use names of letters, digits and _ in the source, or a table with --table.")
    names: dict[str, str] = {}
    for column in chosen:
        plain = column if can_be_said(column) else re.sub(r"\W+", "_", column).strip("_").lower()
        free = plain if can_be_said(plain) else f"field_{len(names) + 1}"
        taken = {*names.values(), *(other for other in (*chosen, key) if other != column)}
        names[column] = free if free not in taken else f"field_{len(names) + 1}"
    return names


def _notes_of(sample: Sample, key: str, guessed: Collection[str]) -> list[str]:
    """Say what a person should know of the draft before they believe in it."""
    notes = [
        f"{column!r} looks like a text to ask about, and a template cannot say it: rename it in the source."
        for column in (sample.guess_texts(key) if guessed else ())
        if column not in guessed and not can_be_said(column)
    ]
    if shared := sample.shared(key):
        notes.append(
            f"{shared:,} of {len(sample.rows):,} records share their {key!r} with an earlier one: only the first "
            "of each is asked about, the others become dead letters (duplicate_key)."
        )
    return notes


def _has_name(column: str, *, renames: bool) -> bool:
    return column.isprintable() if renames else can_be_said(column)


def _check_column(sample: Sample, column: str, option: str) -> None:
    if column not in sample.columns:
        near = nearest(column, sample.columns)
        hint = f"Did you mean {near}?" if near else f"There are: {', '.join(sample.columns[:20])}."
        raise _wrong(option, f"there is no column {column!r}", hint)


def _write(draft: Draft, folder: Path) -> list[Path]:
    """Write all files, or none: what is there is left alone, and what would not pass `check` is not written."""
    beside = folder.parent / "prompts"
    prompts = beside if beside.is_dir() else folder / "prompts"
    files = {folder / f"{draft.name}.yaml": draft.job()}
    files |= {prompts / name: text for name, text in draft.prompts().items()}
    if there := [str(file) for file in files if file.exists()]:
        remedy = "Nothing was written. Give the job another --name, or remove them."
        raise _wrong("name", f"{', '.join(there)} would be overwritten", remedy)
    if not (folder / FILE).exists():
        files[folder / FILE] = job_schema()
    _rehearse(draft, files)
    written: list[Path] = []
    try:
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as out:
                written.append(file)
                out.write(text)
    except OSError as error:
        for file in written:
            file.unlink(missing_ok=True)
        raise _wrong(
            "folder", f"{error.filename} cannot be written ({error.strerror})", "Give another --folder."
        ) from None
    return written


def _rehearse(draft: Draft, files: Mapping[Path, str]) -> None:
    """Check the draft in a folder that nobody sees."""
    from nightbatch.adapters.clock import SystemClock

    with tempfile.TemporaryDirectory() as aside:
        for file, text in files.items():
            copy = Path(aside, "prompts" if file.suffix != ".yaml" else "", file.name)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(text, encoding="utf-8")
        [found] = check_files([Path(aside, f"{draft.name}.yaml")], now=SystemClock().now()).values()
    if found.problems:
        raise _wrong("draft", "; ".join(found.problems), "Nothing was written. Choose other options.")

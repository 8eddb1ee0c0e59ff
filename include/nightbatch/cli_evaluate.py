"""`nightbatch evaluate`: how often a job's answers agree with labelled records."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from nightbatch import cli_show as show
from nightbatch.cli_check import find_job
from nightbatch.cli_frame import JobPath, Json, Verbose, errors_told
from nightbatch.core.profile import WHOLE, Measure, fields_of
from nightbatch.errors import JobInvalid, Problem
from nightbatch.job import FileSourceSpec, Job, QuerySourceSpec

if TYPE_CHECKING:
    from nightbatch.core.evaluation import Evaluation
    from nightbatch.ports import Connections, Source
    from nightbatch.steps.evaluate import Compared

Labels = Annotated[str, typer.Option("--labels", help="A file, a folder, a glob, or a query that begins with SELECT.")]
FieldName = Annotated[str, typer.Option("--field", help="Field of the answer; default: its only enum or boolean.")]
KeyName = Annotated[str, typer.Option("--key", help="Column with the record's key; default: the job's own.")]
LabelName = Annotated[str, typer.Option("--label", help="Column with the label; default: the field's name.")]
ConnId = Annotated[str, typer.Option("--connection", help="Connection of the labels; default: the job's source's.")]

_QUERY = re.compile(r"\s*(select|with)\s", re.IGNORECASE)


def evaluate(
    job: JobPath,
    labels: Labels,
    field: FieldName = "",
    key: KeyName = "",
    label: LabelName = "",
    connection: ConnId = "",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare a job's answers in its sink with labelled records: accuracy, confusion, cost; asks no model."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.adapters.connections import from_environment

        loaded = find_job(job)
        name = field_of(loaded, field)
        connections = from_environment(os.environ)
        chosen = {"key": key or loaded.source.key, "label": label or name}
        compared = compare(loaded, name, labels, connections, conn_id=connection, **chosen)
        _show(loaded, name, compared, as_json=as_json)


def compare(
    job: Job, field: str, labels: str, connections: Connections, *, key: str, label: str, conn_id: str = ""
) -> Compared:
    """Read labels and sink, and compare the two."""
    from nightbatch.adapters.registry import open_sink
    from nightbatch.core.window import ANY
    from nightbatch.steps.evaluate import evaluate as compared
    from nightbatch.steps.evaluate import read_labels

    chunks = _open_labels(job, labels, conn_id, connections).read(ANY)
    what = "the query of --labels" if _QUERY.match(labels) else labels
    return compared(open_sink(job, connections), field, read_labels(chunks, key=key, label=label, what=what))


def _open_labels(job: Job, labels: str, conn_id: str, connections: Connections) -> Source:
    from nightbatch.adapters.registry import open_files, open_query

    is_query = bool(_QUERY.match(labels))
    like_source = isinstance(job.source, QuerySourceSpec if is_query else FileSourceSpec)
    named = conn_id or (getattr(job.source, "connection", None) if like_source else job.sink.connection) or ""
    if is_query:
        return open_query(connections(named), labels)
    return open_files(labels, connections(named) if named and "://" in labels else None)


def field_of(job: Job, name: str) -> str:
    """Give the field that is compared: the named one, else the only one with few values. Raises JobInvalid."""
    if name or job.answer.json_schema is None:
        return name or WHOLE
    fields = fields_of(job.answer.json_schema)
    found = [one.name for one in fields if one.measure is Measure.VALUES and len(one.path) == 1]
    if len(found) == 1:
        return found[0]
    problem = f"the answer has {len(found):,} enum or boolean fields"
    remedy = f"Name one: {', '.join(found)}." if found else "Name the field to compare."
    raise JobInvalid("the command", [Problem("--field", problem, remedy)])


def _show(job: Job, field: str, compared: Compared, *, as_json: bool) -> None:
    if as_json:
        counts = {"unanswered": compared.unanswered, "unlabelled": compared.unlabelled}
        groups = [group.as_json() for group in compared.groups]
        show.print_json({"job": job.name, "field": field, **counts, "groups": groups})
        return
    rows = Table(title=f"{job.name}: {field}", title_justify="left")
    for name in ("prompt", "model"):
        rows.add_column(name)
    for name in ("labelled", "agree", "accuracy", "a record"):
        rows.add_column(name, justify="right")
    for one in compared.groups:
        cells = (f"{one.rows:,}", f"{one.agree:,}", f"{one.accuracy:.1%}", show.usd(one.usd_a_row))
        rows.add_row(Text(show.harmless(one.prompt_version)), Text(show.harmless(one.model)), *cells)
    show.console().print(rows)
    for one in compared.groups:
        show.console().print(_confusion(one))
    show.note(f"{compared.unanswered:,} labels have no answer; {compared.unlabelled:,} answers have no label")


def _confusion(one: Evaluation) -> Table:
    answers = sorted({answer for counts in one.confusion.values() for answer in counts})
    title = f"prompt {one.prompt_version}, {one.model}: label down, answer across"
    table = Table(title=Text(show.harmless(title)), title_justify="left")
    table.add_column("")
    for answer in answers:
        table.add_column(Text(show.harmless(answer)), justify="right")
    for label, counts in sorted(one.confusion.items()):
        table.add_row(Text(show.harmless(label)), *(f"{counts.get(answer, 0):,}" for answer in answers))
    return table

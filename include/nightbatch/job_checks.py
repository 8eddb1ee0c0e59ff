"""What only a whole job can get wrong: two parts of it that are right by themselves and do not fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .core.request import Endpoint
from .job_ends import FileSinkSpec, FileSourceSpec, FrameSourceSpec, QuerySourceSpec, TableSinkSpec

if TYPE_CHECKING:
    from .job import Job
    from .job_parts import ModelChoice, Prompt

Found = tuple[tuple[str | int, ...], str, str]
"""Place, problem, remedy."""

_TABLES = re.compile(r"\b(?:from|join)\s+([\w.$\"]+)", re.IGNORECASE)


def endpoint_of(model: ModelChoice, prompt: Prompt) -> Endpoint:
    """Say what is asked of a model: what it says itself, else what fits its provider and the prompt."""
    if model.endpoint is not None:
        return model.endpoint
    if prompt.embed is not None:
        return Endpoint.EMBEDDINGS
    return Endpoint.MESSAGES if model.provider == "anthropic" else Endpoint.CHAT


def cross_problems(job: Job) -> Iterator[Found]:
    """Give all that does not fit together."""
    yield from _sink_problems(job)
    yield from _model_problems(job)
    yield from _deadline_problems(job)
    yield from _catch_up_problems(job)
    yield from _quality_problems(job)
    if job.prompt.embed is not None and job.answer.json_schema is not None:
        yield ("answer", "schema"), "an embedding is a vector and fits no schema", "Remove the schema, or ask with user"


def _sink_problems(job: Job) -> Iterator[Found]:
    source, sink = job.source, job.sink
    remedy = "Write the answers to a place of their own"
    if isinstance(source, FileSourceSpec) and isinstance(sink, FileSinkSpec):
        inside = folder_of(source.files)
        if (folder_of(sink.files) + "/").startswith(inside + "/") and not _stays_above(source.files, sink.files):
            yield ("sink", "files"), f"the next run would read its answers from {inside} as records", remedy
    if isinstance(source, QuerySourceSpec) and isinstance(sink, TableSinkSpec) and source.connection == sink.connection:
        # A query may well look at the sink beside other tables, for instance to leave out what is answered.
        tables = {name.replace('"', "").lower() for name in _TABLES.findall(source.query)}
        if tables in ({sink.table.lower()}, {(sink.dead_letters or sink.table).lower()}):
            yield ("sink", "table"), f"the query reads {sink.table} and the answers go there too", remedy


def _stays_above(source: str, sink: str) -> bool:
    """Say whether a glob of one level, or a single file, does not reach down into the sink's folder."""
    pattern = source.rsplit("/", 1)[-1]
    is_file = "." in pattern or bool(re.search(r"[*?]", pattern))
    return is_file and "**" not in source and folder_of(source) != folder_of(sink)


def folder_of(uri: str) -> str:
    """Give the fixed folder of an address: without wildcards, templates, file name, and slashes at the end."""
    fixed = re.split(r"[*?]|\{\{|\{%|\{#", uri, maxsplit=1)[0]
    is_cut = fixed != uri
    name = fixed.rsplit("/", 1)[-1]
    if is_cut or re.search(r"\.\w+$", name):
        fixed = fixed[: len(fixed) - len(name)]
    scheme, mark, rest = fixed.partition("://")
    path = re.sub(r"/{2,}", "/", rest if mark else fixed).rstrip("/")
    return f"{scheme.lower()}://{path}" if mark and scheme.lower() != "file" else path.removeprefix("./")


def _model_problems(job: Job) -> Iterator[Found]:
    for at, model in enumerate(job.models):
        if model in job.models[:at]:
            twin = job.models.index(model)
            remedy = "Remove one, or give it another model, cap or parameter"
            yield ("models", at), f"it is the same as model {twin}, which could not answer either", remedy
        endpoint = endpoint_of(model, job.prompt)
        if (endpoint is Endpoint.EMBEDDINGS) != (job.prompt.embed is not None):
            yield (
                ("models", at, "endpoint"),
                f"{endpoint} does not fit a prompt with {'embed' if job.prompt.embed is not None else 'user'}",
                "Use embeddings with prompt.embed, and chat, responses or messages with prompt.user",
            )
        if endpoint is not Endpoint.EMBEDDINGS and model.max_output_tokens is None:
            yield from _cap_problems(job, at, endpoint)


def _cap_problems(job: Job, at: int, endpoint: Endpoint) -> Iterator[Found]:
    place, remedy = ("models", at, "max_output_tokens"), "Set max_output_tokens, like 300"
    if job.budget_keys:
        yield place, f"{job.budget_keys[0]} cannot be kept without a cap on output tokens", remedy
    elif endpoint is Endpoint.MESSAGES:
        yield place, "this endpoint takes no request without a cap on output tokens", remedy


def _catch_up_problems(job: Job) -> Iterator[Found]:
    if job.catch_up == "run" and job.schedule is None:
        yield ("catch_up",), "there is no schedule whose windows could be run", "Set schedule, or remove catch_up"
    elif job.catch_up == "run" and job.start is None:
        yield (
            ("catch_up",),
            "without a first day it would run, and pay for, every window of the past",
            "Set start to the first day that you want answers for, like start: 2026-11-21",
        )


def _deadline_problems(job: Job) -> Iterator[Found]:
    if job.warn_before and job.deadline is None:
        yield ("warn_before",), "there is no deadline to warn before", "Set deadline, or remove warn_before"
    if job.deadline is not None and job.deadline.after is not None and job.warn_before >= job.deadline.after:
        yield (
            ("warn_before",),
            "it is not shorter than deadline.after, so every run would be at risk from its start",
            "Make it shorter",
        )
    if isinstance(job.source, FrameSourceSpec) and job.schedule is not None:
        yield (
            ("schedule",),
            "a frame has no new records to fetch on a schedule",
            "Remove schedule, or read from a table",
        )


def _quality_problems(job: Job) -> Iterator[Found]:
    if job.quality is None:
        return
    from .core.profile import Measure, fields_of  # here, so that only jobs with bounds pay for it

    known = [] if job.prompt.embed is not None else fields_of(job.answer.json_schema)
    names = [one.name for one in known if one.measure is not Measure.VALUES]
    for name in job.quality.ranges:
        if name not in names:
            remedy = f"Name one of: {', '.join(names)}" if names else "Remove it: no field has numbers or texts"
            yield ("quality", "ranges", name), "no field of the answer has numbers or texts under this name", remedy

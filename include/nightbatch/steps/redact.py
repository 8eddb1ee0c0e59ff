"""Between render and pack: put pseudonyms in the place of what must not leave; at load, put the originals back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from nightbatch.core.redaction import Span, hide, named, put_back, sendable, spans, tails
from nightbatch.core.request import Messages
from nightbatch.core.verdict import Reason, VerdictKind
from nightbatch.job import Job
from nightbatch.ports import Ports, Shard

from .parquet import read_rows
from .pull import Question
from .read_back import carried_by, has_originals

KEY = "redaction_key"
"""Where a plan keeps the job's key: the same for all of its runs, so that equal records give equal requests."""

_Hidden = tuple[str, dict[str, str]]


def key_of(ports: Ports, job: Job) -> str:
    """Give the key that the job's latest plan with redaction was sealed with; a new one where there is none."""
    return "" if job.redact is None else kept_key(ports, job) or secrets.token_hex(32)


def kept_key(ports: Ports, job: Job) -> str:
    """Give the key of the job's latest plan with redaction; empty where none has one yet."""
    for run in ports.ledger.runs(job=job.name, limit=1_000):
        if run.plan and run.plan.get(KEY):
            return str(run.plan[KEY])
    return ""


def redact(parts: Iterable[list[Question]], ports: Ports, job: Job, key: str) -> Iterator[list[Question]]:
    """
    Redact chunk by chunk; memory is a chunk. A record that a function fails at becomes a bad record, and is not sent.

    Raises JobInvalid for a function that may not be called, before anything is read.
    """
    if job.redact is None:
        yield from parts
        return
    redactor = _Redactor(job, key, {kind: ports.function(name) for kind, name in job.redact.functions.items()})
    for part in parts:
        yield redactor.questions(part)


class _Redactor:
    def __init__(self, job: Job, key: str, functions: dict[str, Callable[[str], Iterable[Span]]]) -> None:
        self._patterns = dict(job.redact.patterns) if job.redact else {}
        self._key, self._functions = key, functions

    def questions(self, part: Sequence[Question]) -> list[Question]:
        asked = [question.messages for question in part if question.messages is not None]
        texts = list(dict.fromkeys(text for messages in asked for text in (messages.system, messages.user)))
        hidden = dict(zip(texts, self._hide([sendable(text) for text in texts]), strict=True))
        return [self._question(question, hidden) for question in part]

    def _question(self, question: Question, hidden: dict[str, _Hidden | str]) -> Question:
        if question.messages is None:
            return question
        system, user = hidden[question.messages.system], hidden[question.messages.user]
        if isinstance(system, str):
            return replace(question, messages=None, reason=Reason.BAD_RECORD, detail=system)
        if isinstance(user, str):
            return replace(question, messages=None, reason=Reason.BAD_RECORD, detail=user)
        return replace(question, messages=Messages(system[0], user[0]), text=None, originals={**system[1], **user[1]})

    def _hide(self, texts: Sequence[str]) -> Iterator[_Hidden | str]:
        found = {kind: list(spans(texts, pattern)) for kind, pattern in self._patterns.items()}
        for at, text in enumerate(texts):
            finds = [(span, kind) for kind, some in found.items() for span in some[at]]
            yield self._hidden(text, finds)

    def _hidden(self, text: str, finds: list[tuple[Span, str]]) -> _Hidden | str:
        for kind, function in self._functions.items():
            try:
                finds += [(_checked(span, text), kind) for span in function(text)]
            except Exception as error:  # noqa: BLE001 - a deployer's code: what it raises is this record's
                # Its name alone: the message may quote the record.
                return f"redact.functions.{kind}: {type(error).__name__}"
        try:
            return hide(text, finds, self._key)
        except ValueError as error:
            return f"redact: {error}"


def _checked(span: Span, text: str) -> Span:
    start, end = span
    if not 0 <= start < end <= len(text):
        raise ValueError("a span outside of the text")
    return int(start), int(end)


def as_rendered(messages: Messages, originals: str | None) -> Messages:
    """Give the messages as they were before redaction, for a row that waits in our own files."""
    if not originals:
        return messages
    texts = (put_back(text, json.loads(originals), is_json=False) for text in (messages.system, messages.user))
    return Messages(*texts)


PutBack = Callable[[int, str], str]
"""Puts originals into the answer to a row."""


def putting_back(ports: Ports, job: Job, shard: Shard) -> PutBack | None:
    """
    Give what puts originals into the answer to a row: its own record's alone; None where nothing was redacted.

    Memory: those that the shard's answers name.
    """
    if not has_originals(ports.store, shard):
        return None
    columns = ("row", "kind", "answer")
    ends = {
        row: found
        for row, kind, answer in read_rows(ports.store, shard.verdicts_name, columns)
        if kind == VerdictKind.GOOD and (found := tails(answer))
    }
    rows = enumerate(carried_by(ports.store, shard))
    originals = {row: named(json.loads(it.originals), ends[row]) for row, it in rows if it.originals and row in ends}
    is_json = job.answer.json_schema is not None
    return lambda row, answer: put_back(answer, originals.get(row, {}), is_json=is_json)

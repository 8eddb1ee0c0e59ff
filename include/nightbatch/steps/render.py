"""Step 2, render: turn records into the messages a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nightbatch.core.escape import json_string
from nightbatch.core.request import Messages
from nightbatch.core.template import RenderError
from nightbatch.core.verdict import Reason
from nightbatch.job import Job

from .pull import Pulled, Question


def render(pulled: Iterable[Pulled], job: Job) -> Iterator[list[Question]]:
    """Render chunk by chunk; a record that cannot be rendered becomes a Question with a reason, never an error."""
    template = job.prompt.template()
    for part in pulled:
        columns = part.chunk.columns
        at = columns.index(job.source.key)
        answers = template.render(columns, part.chunk.rows)
        rendered = zip(part.chunk.rows, answers, strict=True)
        yield part.bad + [_question(row[at], message) for row, message in rendered]


def _question(key: str, message: Messages | RenderError) -> Question:
    if isinstance(message, RenderError):
        return Question(key, None, Reason.BAD_RECORD, message.reason)
    try:
        return Question(key, message, text=json_string(message.user))
    except ValueError:
        return Question(key, None, Reason.BAD_RECORD, "user template: gives half a surrogate pair, which is no text")

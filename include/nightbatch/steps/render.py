"""Step 2, render: turn records into the messages a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
        questions = list(part.bad)
        for row, message in zip(part.chunk.rows, answers, strict=True):
            if isinstance(message, RenderError):
                questions.append(Question(row[at], None, Reason.BAD_RECORD, message.reason))
            else:
                questions.append(Question(row[at], message))
        yield questions

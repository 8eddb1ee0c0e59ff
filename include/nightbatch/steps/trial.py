"""Ask a model about a few records in real time, and say all that a prompt's author wants to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from nightbatch.core.answer import AnswerChecker
from nightbatch.core.request import Endpoint, Messages
from nightbatch.core.result import Outcome, Result
from nightbatch.core.verdict import Check, Verdict, judge
from nightbatch.core.window import Window
from nightbatch.errors import ProviderBusy
from nightbatch.job import Job
from nightbatch.ports import Ports

from .lanes import OpenLane, body_of, open_lane
from .pull import Question, Tally, pull
from .reads import reads
from .redact import key_of, redact
from .render import render

TRIES = 3
LONGEST_PAUSE_S = 10.0


@dataclass(frozen=True)
class Trial:
    """One record, asked in real time. `messages` is None where the record could not be rendered."""

    key: str
    messages: Messages | None
    result: Result | None
    verdict: Verdict | None
    cost_usd: Decimal | None
    problem: str = ""

    @property
    def is_answered(self) -> bool:
        """Say whether the model answered, well or badly."""
        return self.result is not None and self.result.outcome is Outcome.ANSWERED


def trials(ports: Ports, job: Job, window: Window, *, count: int) -> Iterator[Trial]:
    """Ask about the first records of a window, one after the other; nothing is written anywhere."""
    lane = open_lane(ports, job, 0)
    check = checker(job, lane)
    rendered = render(pull(ports.source(), job, reads(ports.ledger, job, window), Tally(), limit=count), job)
    for part in redact(rendered, ports, job, key_of(ports, job)):
        for question in part:
            yield try_one(ports, lane, check, question)


def checker(job: Job, lane: OpenLane) -> AnswerChecker:
    """Give what judges a job's answers."""
    return AnswerChecker(job.answer.json_schema, embeddings=lane.endpoint is Endpoint.EMBEDDINGS)


def try_one(ports: Ports, lane: OpenLane, check: Check, question: Question) -> Trial:
    """Ask one question, judge its answer, and price it."""
    if question.messages is None:
        return Trial(question.key, None, None, None, None, f"{question.reason}: {question.detail}")
    try:
        result = _ask(ports, lane, question.messages)
    except ProviderBusy as busy:
        problem = f"{busy.provider} did not answer in {TRIES} tries: {busy.cause}"
        return Trial(question.key, question.messages, None, None, None, problem)
    cost = lane.realtime.cost_usd(result.usage) if lane.realtime.input_usd else None
    return Trial(question.key, question.messages, result, judge(result, check), cost)


def _ask(ports: Ports, lane: OpenLane, messages: Messages) -> Result:
    """Ask one question, and ask again where the vendor did not answer: a person sits and waits for it."""
    body = body_of(lane.encoder, messages)
    for _ in range(TRIES - 1):
        try:
            return lane.provider.ask(body, endpoint=lane.endpoint)
        except ProviderBusy as busy:
            ports.clock.sleep(min(busy.retry_after_s or 1.0, LONGEST_PAUSE_S))
    return lane.provider.ask(body, endpoint=lane.endpoint)

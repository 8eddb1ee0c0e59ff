"""Beside the steps: ask two prompts about the same sample of records, in real time, and compare the answers."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

from nightbatch.core.comparison import Comparison
from nightbatch.core.money import ZERO, Usage, tokens_bound
from nightbatch.core.request import Endpoint
from nightbatch.core.verdict import VerdictKind
from nightbatch.core.window import Window
from nightbatch.errors import JobInvalid, PlanUnreadable, Problem
from nightbatch.job import Job, Prompt
from nightbatch.job_sealed import unsealed
from nightbatch.ports import Chunk, Ledger, Ports

from .fill import ENVELOPE_BYTES
from .lanes import OpenLane, body_of, packing_lane
from .pull import Pulled, Question, Tally, pull
from .reads import reads
from .redact import key_of, redact
from .render import render
from .trial import Trial, checker, try_one

AT_ONCE = 8
"""Questions that are asked at a time."""
MOST_RUNS = 200
"""Runs whose prompts can be named."""


def sealed_prompts(ledger: Ledger, job: str) -> list[Prompt]:
    """List the prompts of a job's latest runs, newest first, each once."""
    found: dict[str, Prompt] = {}
    for run in ledger.runs(job=job, limit=MOST_RUNS):
        if run.plan is not None:
            try:
                prompt = unsealed(run.plan, run=run.run).prompt
            except PlanUnreadable:
                continue
            found.setdefault(prompt.named, prompt)
    return list(found.values())


@dataclass(frozen=True)
class Side:
    """One prompt, what it asks about the sample, and what that costs in real time; None where no price is known."""

    job: Job
    lane: OpenLane
    questions: tuple[Question, ...]
    expected_usd: Decimal | None
    worst_usd: Decimal | None

    @property
    def name(self) -> str:
        """Name the prompt."""
        return self.job.prompt_version


def sides_of(ports: Ports, job: Job, prompts: Sequence[Prompt], window: Window, *, count: int) -> list[Side]:
    """
    Render the same sample of a window's records for each prompt; nothing is asked yet.

    The sample is that of the smallest hashes of keys, so it is as good as drawn by lot, and the same each time. The
    whole window is read; memory is the sample. Raises JobInvalid for embeddings, and where budgets are too small.
    """
    if job.endpoint(0) is Endpoint.EMBEDDINGS:
        problem = Problem("prompt.embed", "vectors of two prompts say nothing side by side", "Compare what they find.")
        raise JobInvalid(job.name, [problem])
    picked = _sample(ports, job, window, count)
    key = key_of(ports, job)
    sides = [_side(ports, job.model_copy(update={"prompt": prompt}), picked, key) for prompt in prompts]
    _check_budget(job, sides)
    return sides


def _sample(ports: Ports, job: Job, window: Window, count: int) -> list[Chunk]:
    least: list[tuple[int, int, Chunk]] = []
    number = 0
    for part in pull(ports.source(), job, reads(ports.ledger, job, window), Tally()):
        at = part.chunk.columns.index(job.source.key)
        for row in part.chunk.rows:
            number += 1
            rank = int.from_bytes(hashlib.sha256(row[at].encode()).digest()[:8])
            item = (-rank, -number, Chunk(part.chunk.columns, [row]))
            if len(least) < count:
                heapq.heappush(least, item)
            elif item > least[0]:
                heapq.heapreplace(least, item)
    return [chunk for _, _, chunk in sorted(least, reverse=True)]


def _side(ports: Ports, job: Job, picked: Sequence[Chunk], key: str) -> Side:
    lane = packing_lane(ports, job, 0)
    rendered = render((Pulled(chunk, []) for chunk in picked), job)
    questions = tuple(question for part in redact(rendered, ports, job, key) for question in part)
    sizes = [len(body_of(lane.encoder, question.messages)) for question in questions if question.messages]
    cap = (lane.spec.max_output_tokens or 0) * len(sizes)
    learned = lane.experience
    likely = learned.input_tokens_expected(sum(sizes)), learned.output_tokens_expected(rows=len(sizes), cap=cap)
    worst = tokens_bound(sum(sizes) + ENVELOPE_BYTES * len(sizes)), cap
    amounts = [lane.realtime.worst_usd(input_tokens=one, output_tokens=other) for one, other in (likely, worst)]
    expected_usd, worst_usd = amounts if lane.realtime.input_usd else (None, None)
    return Side(job, lane, questions, expected_usd, worst_usd)


def _check_budget(job: Job, sides: Sequence[Side]) -> None:
    worst = sum((side.worst_usd or ZERO for side in sides), ZERO)
    for name in job.budget_keys:
        budget = getattr(job, name)
        if worst > budget:
            problem = f"both prompts may cost {worst:.4f} USD at worst, and {name} is {budget} USD"
            raise JobInvalid("the command", [Problem("--sample", problem, "Take a smaller sample.")])


@dataclass
class Told:
    """What one prompt was answered, in sums."""

    verdicts: Counter[str] = field(default_factory=Counter)
    usage: Usage = Usage()
    answered: int = 0
    cost_usd: Decimal = ZERO

    def add(self, trial: Trial) -> None:
        """Count one trial."""
        self.verdicts[words_of(trial)] += 1
        self.cost_usd += trial.cost_usd or ZERO
        if trial.is_answered and trial.result is not None:
            self.answered += 1
            self.usage += trial.result.usage


def words_of(trial: Trial) -> str:
    """Say in a word or two what became of a record."""
    if trial.verdict is not None:
        return ": ".join(filter(None, (trial.verdict.kind.value, trial.verdict.reason.value)))
    return "bad record" if trial.messages is None else "no reply"


@dataclass(frozen=True)
class Pair:
    """One record, and what both prompts made of it."""

    key: str
    first: Trial
    second: Trial
    changed: dict[str, tuple[str, str]] | None
    """The fields that differ; None where one of the answers is not good."""


@dataclass
class Compared:
    """Two prompts side by side."""

    sides: tuple[Side, Side]
    told: tuple[Told, Told] = field(default_factory=lambda: (Told(), Told()))
    fields: Comparison = field(default_factory=Comparison)
    pairs: list[Pair] = field(default_factory=list)

    def add(self, first: Trial, second: Trial) -> None:
        """Take in a record."""
        for told, trial in zip(self.told, (first, second), strict=True):
            told.add(trial)
        changed = None
        if _is_good(first) and _is_good(second):
            is_json = self.sides[0].job.answer.json_schema is not None
            changed = self.fields.add(text_of(first), text_of(second), is_json=is_json)
        self.pairs.append(Pair(first.key, first, second, changed))


def text_of(trial: Trial) -> str:
    """Give what a model wrote; empty for nothing. Untrusted."""
    return (trial.result.text if trial.result else None) or ""


def _is_good(trial: Trial) -> bool:
    return trial.verdict is not None and trial.verdict.kind is VerdictKind.GOOD


def compare(ports: Ports, sides: tuple[Side, Side]) -> Iterator[Compared]:
    """
    Ask both prompts about each record, some at a time, and give what is known after each; nothing is written.

    The first record is asked by itself, so that an account in trouble is found out once. Raises AccountTrouble.
    """
    found = Compared(sides)
    pairs = list(zip(sides[0].questions, sides[1].questions, strict=True))
    checks = [checker(side.job, side.lane) for side in sides]

    def both(pair: tuple[Question, Question]) -> tuple[Trial, Trial]:
        first, second = (try_one(ports, sides[at].lane, checks[at], pair[at]) for at in (0, 1))
        return first, second

    for pair in pairs[:1]:
        found.add(*both(pair))
        yield found
    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            for trials in pool.map(both, pairs[1:]):
                found.add(*trials)
                yield found
        finally:
            # Ctrl-C, or trouble: what has not been asked yet is not.
            pool.shutdown(wait=False, cancel_futures=True)


def batch_usd_a_record(side: Side, told: Told) -> Decimal | None:
    """Say what a record costs on average in a batch, by what was billed for the sample; None where it is not known."""
    if not told.answered or not side.lane.rate.input_usd:
        return None
    return side.lane.rate.cost_usd(told.usage) / told.answered

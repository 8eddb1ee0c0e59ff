"""Before a second chance: which dead letters somebody wants to be sent again, and whether that can be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nightbatch.core.ids import run_id
from nightbatch.core.window import Window
from nightbatch.errors import NothingToRetry, RunOverlaps
from nightbatch.job import Job
from nightbatch.job_sealed import unsealed
from nightbatch.ports import Ledger, Ports, Run

from .letters import Standing, by_reason, standing
from .tidy import check_staging

ALL = "all"
"""Asks for the dead letters of every reason."""


@dataclass(frozen=True)
class Ask:
    """What somebody wants to be sent again."""

    reasons: tuple[str, ...]
    """`Reason` values, or `all`."""
    asked_by: str
    """Who asks, and for what: the same asker is heard once, so that nothing is paid twice."""
    model: str = ""
    max_output_tokens: int | None = None
    """A cap on output tokens in the place of the job's, for its first model."""


def was_heard(ledger: Ledger, job: str, window: Window, ask: Ask) -> bool:
    """Say whether a generation of the window was made for this very ask."""
    plans = [run.plan or {} for run in ledger.runs(job=job, window=window, limit=1_000)]
    return any((plan.get("retries") or {}).get("asked_by") == ask.asked_by for plan in plans)


@dataclass(frozen=True)
class Plan:
    """What a retry will send, before it is sealed: what it goes on from, and under which name."""

    job: Job
    ask: Ask
    latest: Run
    """The generation whose dead letters, with those that it goes on from, are sent again."""
    run: str
    window: Window
    generation: int
    letters: Sequence[Standing]
    reasons: tuple[str, ...]


def plan_retry(ports: Ports, job: Job, window: Window, ask: Ask) -> Plan:
    """
    Look which dead letters stand, and plan to send those that are asked for.

    Raises RunOverlaps while a run of the window is open, NothingToRetry where there is nothing to send.
    """
    same = sorted(ports.ledger.runs(job=job.name, window=window, limit=1_000), key=lambda run: run.generation)
    planned = [run for run in same if run.plan is not None]
    if not planned:
        remedy = "Run it first, or name another window."
        raise NothingToRetry(run_id(job.name, window, 1), problem="its window was never planned", remedy=remedy)
    for run in ports.ledger.runs(job=job.name, limit=1_000):
        if run.state == "open" and run.window.overlaps(window):
            raise RunOverlaps(job.name, other_run=run.run, since=run.started_utc)
    latest, generation = planned[-1], same[-1].generation + 1
    letters = standing(ports, latest)
    reasons = _chosen(latest, letters, ask)
    _check_staging(ports, latest, letters, reasons)
    return Plan(
        _as_asked(job, latest, ask),
        ask,
        latest,
        run_id(job.name, window, generation),
        window,
        generation,
        letters,
        reasons,
    )


def _chosen(latest: Run, letters: Sequence[Standing], ask: Ask) -> tuple[str, ...]:
    groups = by_reason(letters)
    sendable = [group.reason for group in groups if group.can_be_sent]
    chosen = tuple(sorted(sendable if ALL in ask.reasons else set(sendable) & set(ask.reasons)))
    if chosen:
        return chosen
    there = ", ".join(f"{group.rows:,} {group.reason}" for group in groups if group.can_be_sent) or "none"
    lost = sum(group.rows for group in groups if not group.can_be_sent)
    never = f"; {lost:,} more were never rendered" if lost else ""
    raise NothingToRetry(
        latest.run,
        problem=f"no dead letter of reason {' or '.join(ask.reasons)} stands (those that can be sent again: {there}"
        f"{never})",
        remedy="Name a reason that stands. Records that were never rendered need other data: mend them, and run the "
        "window with force.",
    )


def _check_staging(ports: Ports, latest: Run, letters: Sequence[Standing], reasons: Sequence[str]) -> None:
    for one in letters:
        if set(reasons) & one.groups.keys():
            check_staging(one.run)
    names = [str(one.plan.facts["dead_name"]) for one in letters if set(reasons) & one.groups.keys()]
    gone = [name for name in names if name and not ports.store.exists(name)]
    if gone:
        problem = f"the files of its dead letters are no longer in the staging folder ({ports.store.uri(gone[0])})"
        remedy = "Run the window with force: it reads the source again, and leaves out what is answered."
        raise NothingToRetry(latest.run, problem=problem, remedy=remedy)


def _as_asked(job: Job, latest: Run, ask: Ask) -> Job:
    """Give the job as it is now, with the prompt and the redaction that the questions were rendered with."""
    sealed = unsealed(latest.plan or {}, run=latest.run)
    models = job.models
    if ask.max_output_tokens is not None:
        models = (models[0].model_copy(update={"max_output_tokens": ask.max_output_tokens}), *models[1:])
    return job.model_copy(update={"models": models, "prompt": sealed.prompt, "redact": sealed.redact})

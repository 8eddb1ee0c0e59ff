"""How a run stands to its deadline, as `nightbatch status` says it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightbatch import cli_status, flow
from nightbatch.job import Job
from nightbatch.ports import Run
from nightbatch.steps.punctual import punctuality
from tests.memory_stack import NIGHT, Stack, job_of

DUE = NIGHT.end + timedelta(hours=3)
JOB = job_of(deadline={"after": "3h"})


def said(stack: Stack, run: Run, job: Job = JOB) -> tuple[str, float] | None:
    found = punctuality(stack.ledger, stack.ledger.run(run.run), {job.name: job}, now=stack.clock.now())
    return found and (found.words, found.as_json()["late_s"])


@pytest.fixture
def stack() -> Stack:
    return Stack([("k0", "text")])


def test_an_open_run_says_until_when_it_has_time_and_then_since_when_it_is_late(stack: Stack) -> None:
    plan = flow.prepare(stack.ports(), JOB, NIGHT)
    run = stack.ledger.run(plan.run)

    stack.clock.set(DUE - timedelta(minutes=40))
    assert said(stack, run, job_of()) == ("2026-11-21 03:00 UTC, in 40 min", 0)
    stack.clock.set(DUE + timedelta(seconds=29))
    assert said(stack, run, job_of()) == ("LATE since 29 s (2026-11-21 03:00 UTC)", 29)


def test_a_run_without_a_plan_goes_by_the_job_file(stack: Stack) -> None:
    run = stack.ledger.open_run(JOB.name, NIGHT, now=stack.clock.now())

    assert said(stack, run) == ("2026-11-21 03:00 UTC, in 60 min", 0)
    assert said(stack, run, job_of()) is None


@pytest.mark.parametrize(
    ("after", "words"),
    [(-60, ("met (2026-11-21 03:00 UTC)", 0)), (52, ("missed by 52 s (2026-11-21 03:00 UTC)", 52))],
)
def test_a_complete_run_says_whether_it_was_in_time_also_when_it_is_settled_again(
    stack: Stack, after: int, words: tuple[str, float]
) -> None:
    run = stack.ledger.open_run(JOB.name, NIGHT, now=stack.clock.now())
    for late in (after, 3600):
        stack.ledger.settle(run.run, state="complete", books={}, now=DUE + timedelta(seconds=late))

    assert said(stack, run) == words


def test_a_run_that_ended_without_its_answers_is_late_until_a_later_generation_goes_on(stack: Stack) -> None:
    run = stack.ledger.open_run(JOB.name, NIGHT, now=stack.clock.now())
    stack.ledger.settle(run.run, state="incomplete", books={}, now=stack.clock.now())
    stack.clock.set(DUE + timedelta(hours=3))

    assert said(stack, run) == ("LATE since 3 h 0 min (2026-11-21 03:00 UTC)", 10_800)
    stack.ledger.open_run(JOB.name, NIGHT, now=stack.clock.now())
    assert said(stack, run) is None


def test_a_backfill_that_was_started_after_its_deadline_is_not_called_late(stack: Stack) -> None:
    stack.clock.set(DUE + timedelta(days=3))
    run = stack.ledger.open_run(JOB.name, NIGHT, now=stack.clock.now())

    assert said(stack, run) == ("2026-11-21 03:00 UTC, 3 days before the run was started", 0)


def test_status_shows_the_deadline_and_gives_it_to_machines(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    flow.run(stack.ports(), JOB, NIGHT)
    runs, now = stack.ledger.runs(), stack.clock.now()

    cli_status.show(stack.ledger, runs, {}, now=now)
    (listed,) = cli_status.runs_json(stack.ledger, runs, {}, now=now)["runs"]

    assert "deadline met (2026-11-21 03:00 UTC)" in " ".join(capsys.readouterr().out.split())
    assert listed["deadline"] == {"due_utc": DUE.isoformat(), "standing": "met", "late_s": 0}

"""What hits many runs is told once, with its end: trouble with an account, and windows that are late together."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import MemorySink
from nightbatch.core.window import Window
from nightbatch.errors import AccountTrouble, RunIncomplete
from nightbatch.job import Job
from nightbatch.steps.warn import watch_deadline
from tests.memory_stack import NIGHT, Stack, job_of, later
from tests.steps.shards import stack_of
from tests.steps.test_account import Otherwise

TROUBLE = AccountTrouble("openai", code="no_credit", message="nothing left")
NOTIFY = {"mail": ["a@example.com"], "on": ["at_risk", "late", "failed", "report"]}
HOURS = [Window(NIGHT.start + timedelta(hours=hour), NIGHT.start + timedelta(hours=hour + 1)) for hour in range(5)]


def refused(*_args: object, **_options: object) -> None:
    raise TROUBLE


def kinds(stack: Stack) -> list[str]:
    return [message.kind for message in stack.notifier.messages]


def night(stack: Stack, job: Job, window: Window, *, works: bool = True) -> None:
    """Run a window, with an account that works or does not."""
    provider = stack.provider if works else Otherwise(stack.provider, account=refused)
    sink = stack.sink if job.name == "reviews" else MemorySink()
    ports = stack.ports(provider=lambda _name, _connection: provider, sink=lambda _job: sink)
    if works:
        flow.run(ports, job, window)
        return
    with pytest.raises(RunIncomplete):
        flow.run(ports, job, window)


def test_ten_runs_of_several_jobs_on_a_dead_key_are_one_message_and_one_more_ends_it() -> None:
    stack = stack_of(2)
    jobs = [job_of(name=name, notify=NOTIFY, sink={"files": f"memory/{name}"}) for name in ("reviews", "tickets")]

    for job in jobs:
        for window in HOURS:
            night(stack, job, window, works=False)
    (message,) = stack.notifier.messages
    assert (message.kind, message.title) == ("account", "openai takes nothing through the connection c")
    assert "nothing left" in message.happened

    later(stack, hours=3)
    night(stack, jobs[1], NIGHT)
    over = stack.notifier.messages[1]
    assert (over.kind, over.rows) == ("over", "20 rows of 10 runs of 2 jobs were hit")
    assert over.thread == message.event_id
    assert "lasted 3 h 0 min" in over.since
    assert kinds(stack) == ["account", "over", "report"]


def test_people_of_another_job_hear_of_the_same_outage_once_too() -> None:
    stack = stack_of(1)
    night(stack, job_of(notify=NOTIFY), HOURS[0], works=False)
    night(stack, job_of(name="others", notify={**NOTIFY, "mail": ["b@example.com"]}), HOURS[0], works=False)

    assert kinds(stack) == ["account", "account"]


def test_an_outage_that_comes_back_is_another_one_and_one_that_lasts_is_told_every_night() -> None:
    stack = stack_of(1)
    job = job_of(notify={**NOTIFY, "on": ["failed"]})
    for window in HOURS[:2]:
        night(stack, job, window, works=False)
        later(stack, hours=24)
    night(stack, job, HOURS[2])
    stack.records = [("k1", "another question")]
    night(stack, job, HOURS[3], works=False)

    assert kinds(stack) == ["account", "account", "over", "account"]
    assert len({message.event_id for message in stack.notifier.messages}) == 4


def test_a_run_that_is_run_again_during_the_outage_tells_nobody_again() -> None:
    stack = stack_of(1)
    job = job_of(notify=NOTIFY)
    for _ in range(3):
        night(stack, job, NIGHT, works=False)

    assert kinds(stack) == ["account"]


# --- deadlines ------------------------------------------------------------------------------------------------


def late(stack: Stack, job: Job, window: Window) -> None:
    """Begin a window, and let its deadline pass twice over."""
    flow.prepare(stack.ports(), job, window)
    run = flow.find_run(stack.ports(), job, window)
    assert run is not None
    for _ in range(2):
        watch_deadline(stack.ports(), job, run, stack.clock.now() + timedelta(minutes=30))
        watch_deadline(stack.ports(), job, run, stack.clock.now() - timedelta(minutes=5))


def test_windows_of_a_job_that_are_late_together_are_one_message_of_a_kind_and_one_end() -> None:
    stack = stack_of(2)
    job = job_of(notify={**NOTIFY, "on": ["at_risk", "late"]}, warn_before="1h", deadline={"after": "8h"})
    later(stack, hours=-1)
    for window in HOURS[:3]:
        flow.prepare(stack.ports(), job, window)
    later(stack, hours=1)
    for window in HOURS[:3]:
        late(stack, job, window)
    assert kinds(stack) == ["at_risk", "late"]

    for window in HOURS[:2]:
        flow.run(stack.ports(), job, window)
    assert kinds(stack) == ["at_risk", "late"]
    flow.run(stack.ports(), job, HOURS[2])

    over = stack.notifier.messages[-1]
    assert (over.kind, over.title) == ("over", "reviews: the answers are there")
    assert "3 runs of 1 job" in over.rows
    assert len(stack.notifier.messages) == 3


def test_a_late_run_that_ends_badly_is_over_without_a_word_and_the_next_late_one_is_told() -> None:
    stack = stack_of(2)
    job = job_of(notify={**NOTIFY, "on": ["late"]}, deadline={"after": "8h"})
    later(stack, hours=-1)
    flow.prepare(stack.ports(), job, HOURS[0])
    flow.prepare(stack.ports(), job, HOURS[1])
    later(stack, hours=1)
    late(stack, job, HOURS[0])
    night(stack, job, HOURS[0], works=False)
    late(stack, job, HOURS[1])

    assert kinds(stack) == ["late", "late"]

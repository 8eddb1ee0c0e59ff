"""A vendor that is away is told once it has lasted, for all runs together, and once more when it answers again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import MemorySink
from nightbatch.core.shard import ShardState
from nightbatch.errors import CreateUnclear, NightbatchError, ProviderBusy
from nightbatch.job import Job
from nightbatch.ports import Ports, RoundPlan, Settings
from nightbatch.steps.outage import away_subject
from nightbatch.steps.outcome import Waiting
from nightbatch.steps.vendor_outage import count_away
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of, later
from tests.steps.shards import stack_of
from tests.steps.test_account import Otherwise

SELDOM = Settings("sqlite://", "memory://", poll_from_s=60, poll_to_s=300)
NOTIFY = {"mail": ["a@example.com"], "on": ["failed", "report"]}
BUSY = ProviderBusy("openai", "looking at a batch", cause="503")


@dataclass
class Away:
    """The vendor of a stack, some calls of which fail until a time."""

    stack: Stack
    calls: tuple[str, ...]
    until: datetime
    error: NightbatchError = BUSY

    def ports(self, **changes: Any) -> Ports:
        """Give ports that lead there."""
        provider = Otherwise(self.stack.provider, **{name: self._call(name) for name in self.calls})
        return self.stack.ports(provider=lambda *_: provider, settings=SELDOM, **changes)

    def _call(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.stack.clock.now() < self.until:
                raise self.error if name == "create" else BUSY
            return getattr(self.stack.provider, name)(*args, **kwargs)

        return call


def away(stack: Stack, *calls: str, error: NightbatchError = BUSY, **span: float) -> Away:
    return Away(stack, calls, stack.clock.now() + timedelta(**span), error)


def kinds(stack: Stack) -> list[str]:
    return [message.kind for message in stack.notifier.messages]


UNCLEAR = CreateUnclear("openai", cause="502")


@pytest.mark.parametrize(
    ("calls", "error"),
    [
        (("poll",), BUSY),
        (("upload",), BUSY),
        (("create",), BUSY),
        (("create", "find", "poll"), UNCLEAR),
        (("account", "upload", "create", "find", "poll"), BUSY),
        (("results",), BUSY),
    ],
)
def test_a_vendor_that_is_away_for_hours_is_one_message_and_one_when_it_answers(
    calls: tuple[str, ...], error: NightbatchError
) -> None:
    stack = stack_of(4)

    flow.run(away(stack, *calls, error=error, hours=1).ports(), job_of(notify=NOTIFY), NIGHT)

    assert kinds(stack) == ["away", "over", "report"]
    told, over, _ = stack.notifier.messages
    assert told.title in [f"openai has not answered for {minutes} min (connection c)" for minutes in range(30, 37)]
    assert (told.since, over.thread) == ("2026-11-21 02:00 UTC", told.event_id)
    assert "did not answer while looking at a batch: 503" in told.happened
    assert told.rows == "4 rows in 2 shards of 1 run of 1 job wait for it"
    assert "it began at 2026-11-21 02:00 UTC and lasted" in over.since
    assert len(stack.answers()) == 4


def test_runs_of_several_jobs_that_wait_for_it_are_one_message_with_what_they_hold_up() -> None:
    stack = stack_of(3)
    stack.provider.ends_at_once = False
    jobs = [job_of(name=name, notify=NOTIFY, sink={"files": f"memory/{name}"}) for name in ("reviews", "tickets")]
    sinks = {"reviews": MemorySink(), "tickets": MemorySink()}
    ports = stack.ports(sink=lambda job: sinks[job.name])
    nights = [(job, flow.prepare(ports, job, window)) for job in jobs for window in (NIGHT, NEXT_NIGHT)]
    for job, plan in nights[:3]:
        look(stack.ports(), job, plan)
    gone = away(stack, "poll", "upload", "create", hours=3).ports()

    for _ in range(8):
        for job, plan in nights:
            look(gone, job, plan)
        later(stack, minutes=15)
    (told,) = stack.notifier.messages
    reserved = sum((stack.ledger.spent(plan.run)[0] for _, plan in nights), Decimal(0))

    assert told.rows == "12 rows in 4 shards of 4 runs of 2 jobs wait for it"
    assert (f"at most {reserved:.4f} USD more" in told.money, reserved > 0) == (True, True), told.money
    assert {value for name, value in told.facts if name == "Run"} == {plan.run for _, plan in nights}


def look(ports: Ports, job: Job, plan: RoundPlan) -> None:
    for shard in plan.shards:
        assert isinstance(flow.advance(ports, job, shard.ref), Waiting)


def test_people_of_another_job_are_told_too_and_those_who_want_no_failures_are_not() -> None:
    stack = stack_of(1)
    gone = away(stack, "poll", hours=1)
    for name, more in (("a", {"mail": ["b@example.com"]}), ("b", {"on": ["report"]})):
        job = job_of(name=name, notify={**NOTIFY, **more})
        sink = MemorySink()
        gone.until = stack.clock.now() + timedelta(hours=1)
        flow.run(gone.ports(sink=lambda _, sink=sink: sink), job, NIGHT)

    assert kinds(stack) == ["away", "over", "report", "report"]


def test_a_blip_is_told_to_nobody_and_leaves_nothing_behind() -> None:
    stack = stack_of(7)
    job = job_of(notify=NOTIFY)
    for minutes in (1, 10, 29):
        gone = away(stack, "poll", "create", minutes=minutes)
        flow.run(gone.ports(), job, NIGHT)
        flow.run(gone.ports(), job, NEXT_NIGHT)
        stack.records = [(key, f"{text}+") for key, text in stack.records]

    assert set(kinds(stack)) == {"report"}
    assert stack.ledger.events(away_subject(job, "openai", "c")) == []


def test_two_blips_a_day_apart_with_nothing_between_are_no_outage_of_a_day() -> None:
    stack = stack_of(1)
    stack.provider.ends_at_once = False
    job = job_of(notify=NOTIFY)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    look(stack.ports(), job, plan)
    for _ in range(2):
        look(away(stack, "poll", minutes=1).ports(), job, plan)
        later(stack, days=1)
    assert kinds(stack) == []

    gone = away(stack, "poll", hours=1).ports()
    for _ in range(4):
        look(gone, job, plan)
        later(stack, minutes=14)
    assert kinds(stack) == ["away"]


def test_looks_that_work_do_not_end_an_outage_of_sending() -> None:
    stack = stack_of(4)
    stack.provider.ends_at_once = False
    job = job_of(notify=NOTIFY, rounds=0)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    gone = away(stack, "create", hours=1)

    for _ in range(9):
        look(gone.ports(), job, plan)
        later(stack, minutes=5)
    assert kinds(stack) == ["away"]

    later(stack, minutes=30)
    look(gone.ports(), job, plan)
    assert (kinds(stack), {shard.state for shard in stack.ledger.shards(plan.run)}) == (
        ["away", "over"],
        {ShardState.OPEN},
    )


def test_an_outage_that_lasts_is_reminded_of_after_a_day_and_one_that_comes_back_is_another() -> None:
    stack = stack_of(1)
    stack.provider.ends_at_once = False
    job = job_of(notify=NOTIFY)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    look(stack.ports(), job, plan)
    for hours in (22, 1):
        gone = away(stack, "poll", hours=hours).ports()
        for _ in range(hours * 4 + 1):
            look(gone, job, plan)
            later(stack, minutes=15)

    assert kinds(stack) == ["away", "away", "over", "away", "over"]
    assert len({message.event_id for message in stack.notifier.messages}) == 5
    assert stack.notifier.messages[1].thread == stack.notifier.messages[0].event_id


def test_what_a_trigger_saw_counts_from_its_first_look_that_failed() -> None:
    """In Airflow the task hears of it late; its own look then tells, or finds that it is over."""
    stack = stack_of(2)
    stack.provider.ends_at_once = False
    job = job_of(notify=NOTIFY)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    look(stack.ports(), job, plan)
    shard = stack.ledger.shard(plan.shards[0].ref)
    since = stack.clock.now() + timedelta(minutes=1)
    later(stack, minutes=40)

    count_away(stack.ports(), job, shard, since=since)
    look(stack.ports(), job, plan)
    assert (kinds(stack), stack.ledger.events(away_subject(job, "openai", "c"))) == ([], [])

    count_away(stack.ports(), job, shard, since=since)
    outcome = flow.advance(away(stack, "poll", hours=1).ports(), job, plan.shards[0].ref)
    assert [message.since for message in stack.notifier.messages] == ["2026-11-21 02:01 UTC"]
    assert isinstance(outcome, Waiting)
    assert outcome.batch is not None, "the triggerer looks on, and no worker does"

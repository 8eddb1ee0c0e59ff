"""Every alert that people can get, made by the code that tells it, from a night that went so; the same at every run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from nightbatch import flow
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.gaps import Gap
from nightbatch.core.result import Outcome, Result
from nightbatch.core.window import Window
from nightbatch.errors import AccountTrouble, NightbatchError, ProviderBusy, StorageUnavailable
from nightbatch.job import Job
from nightbatch.ports import Message, Settings
from nightbatch.steps.absence import Sighting, fresh_message, missing_message, over_message, stale_message
from nightbatch.steps.untold import tell_again
from nightbatch.steps.warn import watch_deadline
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of, later
from tests.messages import nights
from tests.steps.test_account import Otherwise
from tests.steps.test_canary import canary_job, refuses
from tests.steps.test_cancel import Slow
from tests.steps.test_double import frozen
from tests.steps.test_quality import after_a_good_night, rated_job, rates

UI = "https://airflow.example.com"
MAIL = {"mail": ["a@example.com"], "on": ["at_risk", "late", "failed", "report"]}
NOON = NIGHT.end + timedelta(days=2, hours=12)
RECORDS = [(f"k{number}", f"text {number}") for number in range(8)]


def job(**changes: Any) -> Job:
    """Make a job whose people hear of everything."""
    zone = {"timezone": "Europe/Berlin", "warn_before": "1h", "deadline": {"after": "8h"}}
    return job_of(**{"notify": MAIL, **zone, **changes})


def ports_of(stack: Stack, **changes: Any) -> Any:
    """Give ports whose messages have a link."""
    settings = Settings("sqlite://", "memory://", poll_from_s=5, poll_to_s=60, ui_base_url=UI)
    return stack.ports(settings=settings, **changes)


def last(stack: Stack) -> Message:
    """Give the last message that was told."""
    message: Message = stack.notifier.messages[-1]
    return message


def at_risk() -> Message:
    """A batch is slow, and half an hour is left."""
    return _lateness(timedelta(minutes=28))


def late() -> Message:
    """A batch is slow, and the deadline is over."""
    return _lateness(-timedelta(minutes=42))


def _lateness(left: timedelta) -> Message:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    plan = flow.prepare(ports_of(stack), job(), NIGHT)
    for shard in plan.shards[:2]:
        flow.advance(ports_of(stack), job(), shard.ref)
    due = NIGHT.end + timedelta(hours=8)
    later(stack, seconds=(due - left - stack.clock.now()).total_seconds())
    watch_deadline(ports_of(stack), job(), stack.ledger.run(plan.run), due)
    return last(stack)


def overdue() -> Message:
    """A vendor's batch does not end."""
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    inner = stack.provider.poll
    stack.provider.poll = lambda batch_id: replace(  # type: ignore[method-assign]  # a vendor that hangs
        inner(batch_id), status=BatchStatus.RUNNING, vendor_status="finalizing"
    )
    plan = flow.prepare(ports_of(stack), job(), NIGHT)
    flow.advance(ports_of(stack), job(), plan.shards[0].ref)
    later(stack, hours=27)
    flow.advance(ports_of(stack), job(), plan.shards[0].ref)
    return last(stack)


def away() -> Message:
    """The vendor has answered nothing for a while."""
    return _vendor_outage()[0]


def over_away() -> Message:
    """It answers again."""
    return next(message for message in _vendor_outage() if message.kind == "over")


def _vendor_outage() -> list[Message]:
    stack = Stack(RECORDS)
    busy = ProviderBusy("openai", "looking at batch batch_0", cause="HTTP 503, server_error")
    ends = stack.clock.now() + timedelta(hours=4, minutes=10)

    def poll(batch_id: str) -> BatchState:
        if stack.clock.now() < ends:
            raise busy
        return stack.provider.poll(batch_id)

    provider = Otherwise(stack.provider, poll=poll)
    settings = Settings("sqlite://", "memory://", poll_from_s=300, poll_to_s=300, ui_base_url=UI)
    flow.run(stack.ports(settings=settings, provider=lambda *_: provider), job(), NIGHT)
    return list(stack.notifier.messages)


def failed() -> Message:
    """Too many rows are dead letters."""
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses
    _ends(stack, job(max_dead_share=0.05, rounds=0))
    return last(stack)


def failed_unplanned() -> Message:
    """The run never got a plan."""
    stack = Stack(RECORDS)
    with suppress(NightbatchError):
        flow.fail_unplanned(ports_of(stack), job(), NIGHT)
    return last(stack)


def incomplete() -> Message:
    """The vendor let rows expire, in every round."""
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda *_: Result("", Outcome.EXPIRED)
    _ends(stack, job(rounds=1))
    return last(stack)


def canary() -> Message:
    """The first rows came back badly."""
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses
    _ends(stack, canary_job())
    return last(stack)


def held_back() -> Message:
    """What came back is not as it was the night before."""
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    with suppress(NightbatchError):
        flow.run(ports_of(stack), rated_job(notify=MAIL), NEXT_NIGHT)
    return last(stack)


def cancelled() -> Message:
    """A person cancelled."""
    stack = Stack(RECORDS)
    slow = Slow(stack)
    ports = ports_of(stack, provider=lambda *_: slow)
    plan = flow.prepare(ports, job(rounds=0), NIGHT)
    for shard in plan.shards[:2]:
        flow.advance(ports, job(), shard.ref)
    with suppress(NightbatchError):
        flow.cancel(ports, plan.run, drops=True)
    return last(stack)


def paid_twice() -> Message:
    """A process froze while it sent."""
    stack = frozen()
    flow.run(ports_of(stack), job(rounds=0), NIGHT)
    return next(message for message in stack.notifier.messages if message.kind == "paid_twice")


def account() -> Message:
    """The key is out of credit."""
    return _account_outage().notifier.messages[0]


def over_account() -> Message:
    """Sending works again."""
    stack = _account_outage()
    later(stack, hours=6, minutes=20)
    flow.run(ports_of(stack), job(), NIGHT)
    return next(message for message in stack.notifier.messages if message.kind == "over")


def _account_outage() -> Stack:
    def refused(*_args: object, **_options: object) -> None:
        raise AccountTrouble("openai", code="insufficient_quota", message="You exceeded your current quota")

    stack = Stack(RECORDS)
    provider = Otherwise(stack.provider, account=refused)
    _ends(stack, job(), provider=lambda *_: provider)
    return stack


def over_late() -> Message:
    """The late answers are there."""
    stack = Stack(RECORDS)
    plan = flow.prepare(ports_of(stack), job(), NIGHT)
    due = NIGHT.end + timedelta(hours=8)
    later(stack, seconds=(due - stack.clock.now()).total_seconds() + 300)
    watch_deadline(ports_of(stack), job(), stack.ledger.run(plan.run), due)
    later(stack, minutes=47)
    flow.run(ports_of(stack), job(), NIGHT)
    return next(message for message in stack.notifier.messages if message.kind == "over")


def untold() -> Message:
    """The mail server was down for a night."""
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    plan = flow.prepare(ports_of(stack), job(), NIGHT)
    flow.advance(ports_of(stack), job(), plan.shards[0].ref)
    due = NIGHT.end + timedelta(hours=8)
    stack.notifier.failures = [StorageUnavailable("mail", cause="down") for _ in range(6)]
    for minutes in (-28, 42):
        later(stack, seconds=(due + timedelta(minutes=minutes) - stack.clock.now()).total_seconds())
        watch_deadline(ports_of(stack), job(), stack.ledger.run(plan.run), due)
    later(stack, hours=1)
    tell_again(ports_of(stack), job())
    return last(stack)


def missing() -> Message:
    """The Dag has been paused for two nights."""
    return replace(missing_message("missing:reviews:20261121T000000Z", [_sighting()], now=NOON), link=UI)


def missing_over() -> Message:
    """It runs again, and one window was left out."""
    outage = "missing:reviews:20261121T000000Z"
    return replace(over_message(outage, [_sighting()], NIGHT.end, now=NOON), link=UI)


def stale() -> Message:
    """The oldest answer in use is too old."""
    return replace(stale_message("stale:reviews:20261121T000000Z", [_sighting()], now=NOON), link=UI)


def stale_over() -> Message:
    """The answers are fresh again."""
    outage = "stale:reviews:20261121T000000Z"
    return replace(fresh_message(outage, [_sighting()], NIGHT.end, now=NOON), link=UI)


def _sighting() -> Sighting:
    gap = Gap((NEXT_NIGHT, Window(NEXT_NIGHT.end, NEXT_NIGHT.end + timedelta(days=1))), is_open=True)
    return Sighting(job(schedule="0 0 * * *", freshness="36h"), (gap,), "its Dag is paused", NIGHT.end)


def report() -> Message:
    """All went well, as in most of the nights before."""
    stack = Stack(RECORDS)
    plain = stack.vendor.answer
    stack.vendor.answer = lambda messages, times: (
        refuses(messages, times) if messages.user == "text 3" else plain(messages, times)
    )
    flow.run(ports_of(stack), job(rounds=1, budget_usd="0.05", budget_month_usd="1"), NIGHT)
    return replace(last(stack), history=nights(30))


def _ends(stack: Stack, of: Job, **ports: Any) -> None:
    with suppress(NightbatchError):
        flow.run(ports_of(stack, **ports), of, NIGHT)


ALERTS: dict[str, Callable[[], Message]] = {
    make.__name__: make
    for make in (
        at_risk,
        late,
        overdue,
        away,
        over_away,
        failed,
        failed_unplanned,
        incomplete,
        canary,
        held_back,
        cancelled,
        paid_twice,
        account,
        over_account,
        over_late,
        missing,
        missing_over,
        stale,
        stale_over,
        untold,
        report,
    )
}

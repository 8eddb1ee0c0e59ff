"""Crashes of a run that ends incomplete and of the runs that go on from it: the same rows, paid as often, once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import pytest

from nightbatch import flow
from nightbatch.core.money import Usage
from nightbatch.core.result import Outcome, Result
from nightbatch.errors import NightbatchError, RequestRefused, RunIncomplete
from nightbatch.ports import Ports
from tests.memory_deaths import Deaths
from tests.memory_stack import NIGHT, KillAt, Killed, Stack, job_of

USAGE = Usage(input_tokens=10, output_tokens=5)
RECORDS = [(f"k{n}", f"text {n}") for n in range(5)]


def slow_to_answer(messages, times) -> Result:
    """Let one question expire three times, which is longer than one run has rounds."""
    if messages.user == "text 0" and times < 3:
        return Result("", Outcome.EXPIRED)
    return Result("", Outcome.ANSWERED, messages.user, usage=USAGE, model="echo-1")


def until_complete(ports: Ports) -> None:
    """Run the window again until nothing is pending."""
    state = ""
    while state != "complete":
        try:
            state = flow.run(ports, job_of(rounds=1), NIGHT).state
        except RunIncomplete:
            continue


def test_killed_while_rows_are_pending_and_run_again_pays_for_nothing_twice() -> None:
    """The runs before and after the crash may be of two generations; of the many moments every third."""
    whole = Stack([*RECORDS, ("twin", "text 0")])
    whole.vendor.answer = slow_to_answer
    deaths = Deaths(whole)
    until_complete(whole.ports(**deaths.ports()))

    for where, stack in islice(deaths, 0, None, 3):
        until_complete(stack.ports())

        assert stack.answers() == {**dict(RECORDS), "twin": "text 0"}, where
        assert stack.vendor.billed == {"text 0": 4, "text 1": 1, "text 2": 1, "text 3": 1, "text 4": 1}, where
        assert stack.ledger.pending("reviews") == [], where
        assert all(stack.ledger.spent(run.run)[0] == 0 for run in stack.ledger.runs()), where
    assert len(deaths) > 80


def refused_at_create(stack: Stack, creates: list[str]) -> None:
    def refuse() -> None:
        creates.append("create")
        raise RequestRefused("memory", code="400", message="no")

    stack.vendor.before_create = refuse


def failed_as_a_whole(stack: Stack, creates: list[str]) -> None:
    stack.vendor.before_create = lambda: creates.append("create")
    poll = stack.provider.poll
    stack.provider.poll = lambda batch_id: replace(poll(batch_id), problem="no such model")
    stack.provider.results = lambda state: iter(())


@pytest.mark.parametrize("refuse", [refused_at_create, failed_as_a_whole])
def test_killed_after_a_whole_batch_was_refused_it_is_not_sent_again(refuse: Callable[..., None]) -> None:
    nth, died = 0, True
    while died:
        nth += 1
        stack, job, creates = Stack(RECORDS[:3]), job_of(), list[str]()
        refuse(stack, creates)
        plan = flow.prepare(stack.ports(), job, NIGHT)
        dying = KillAt(stack.ledger, nth, "after")
        try:
            flow.advance(stack.ports(ledger=dying), job, plan.shards[0].ref)
            died = False
        except Killed:
            pass

        with pytest.raises(RunIncomplete, match="3 request_refused"):
            flow.run(stack.ports(), job, NIGHT)

        assert creates == ["create"], f"after {dying.names}"
    assert "end_attempt" in dying.names


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_many_attempts_at_once_send_each_shard_once_and_settle_as_one(found_by: str) -> None:
    stack, job, problems = Stack(RECORDS, found_by=found_by), job_of(rounds=0), []
    stack.vendor.answer = slow_to_answer

    def together(work: Callable[[], object]) -> None:
        def watched() -> None:
            try:
                work()
            except RunIncomplete:
                return
            except NightbatchError as error:
                problems.append(error)

        threads = [threading.Thread(target=watched) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    plan = flow.prepare(stack.ports(), job, NIGHT)
    # Four in one round of looks may find a shard waiting for another; one who is alone then finishes it.
    together(lambda: [flow.advance(stack.ports(), job, shard.ref) for shard in plan.shards])
    flow._finish_shards(stack.ports(), job, plan, lambda _: None)
    together(lambda: flow.close_round(stack.ports(), job, plan.run, 0))
    together(lambda: flow.finish(stack.ports(), job, plan.run))

    assert problems == []
    assert set(stack.answers()) == {key for key, _ in RECORDS[1:]}
    assert set(stack.vendor.billed.values()) == {1}
    assert [file.rows for file in stack.ledger.pending("reviews")] == [1]

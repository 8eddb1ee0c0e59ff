"""A canary goes first; the others follow it, or stay pending until a person, or a new run, lets them go."""

import pytest

from nightbatch import flow
from nightbatch.adapters.memory_vendor import echo
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Usage
from nightbatch.core.result import Finish, Outcome, Result
from nightbatch.errors import RunFailed, RunIncomplete
from nightbatch.job import Job
from nightbatch.steps.outcome import Waiting
from nightbatch.steps.release import let_go
from tests.memory_deaths import Deaths
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
CANARY = {"rows": 2, "max_bad_share": 0.4}


def canary_job(**changes: object) -> Job:
    return job_of(canary=CANARY, notify={"mail": ["a@example.com"]}, **changes)


def refuses(messages: object, times: int) -> Result:
    return Result("", Outcome.ANSWERED, "no", Finish.REFUSED, usage=Usage(10, output_tokens=5), model="echo-1")


def test_the_first_rows_go_alone_and_the_others_follow_when_they_came_home_well() -> None:
    stack = Stack(RECORDS)
    ports, job = stack.ports(), canary_job()
    plan = flow.prepare(ports, job, NIGHT)
    assert [shard.rows for shard in plan.shards] == [2, 3, 3]

    behind = ShardRef(plan.run, 0, 1)
    waiting = flow.advance(ports, job, behind)

    assert isinstance(waiting, Waiting)
    assert waiting.reason == "waits for the canary, 2 rows that go first"
    assert stack.vendor.batches == {}

    books = flow.run(ports, job, NIGHT)
    assert (books.state, books.good, books.batches) == ("complete", 8, 3)
    gate = stack.ledger.gate(plan.run, "canary")
    assert gate is not None
    assert (gate.state, gate.decided_by) == ("passed", "")


def test_a_bad_canary_stops_the_run_and_one_message_says_why_and_what_to_do() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses

    with pytest.raises(RunIncomplete) as ended:
        flow.run(stack.ports(), canary_job(), NIGHT)

    assert ended.value.pending == 6
    assert sum(stack.vendor.billed.values()) == 2
    (message,) = stack.notifier.messages
    assert message.happened.startswith(
        "The canary stopped the run: 2 of 2 rows were answered badly (100.0%: 2 refused)"
    )
    assert message.kind == "canary"
    assert any(command.startswith("nightbatch release reviews/") for command in message.commands)


def test_a_person_lets_the_others_go_and_no_second_canary_is_sent() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses
    with pytest.raises(RunIncomplete) as ended:
        flow.run(stack.ports(), canary_job(), NIGHT)
    stack.vendor.answer = echo
    run = stack.ledger.run(ended.value.run_id)

    let_go(stack.ledger, run, by="a person", now=stack.clock.now())
    books = flow.run(stack.ports(), canary_job(), NIGHT)

    assert (books.from_pending, books.good, books.state) == (6, 6, "complete")
    assert stack.ledger.gate(books.run, "canary") is None
    gate = stack.ledger.gate(run.run, "canary")
    assert gate is not None
    assert (gate.state, gate.decided_by) == ("released", "a person")
    assert gate.facts["breaches"]


def test_the_trigger_form_lets_the_others_go_too() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), canary_job(), NIGHT)
    stack.vendor.answer = echo

    books = flow.run(stack.ports(), canary_job(), NIGHT, flow.Options(release="airflow manual__1"))

    assert (books.good, books.state, stack.ledger.gate(books.run, "canary")) == (6, "complete", None)


def test_a_new_run_takes_the_rows_behind_a_canary_of_its_own() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = refuses
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), canary_job(), NIGHT)
    stack.vendor.answer = echo
    stack.records = []

    books = flow.run(stack.ports(), canary_job(), NEXT_NIGHT)

    assert (books.from_pending, books.good) == (6, 6)
    gate = stack.ledger.gate(books.run, "canary")
    assert gate is not None
    assert gate.state == "passed"


def test_dearer_answers_than_the_last_good_run_hold_the_others_back() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), canary_job(), NIGHT)
    stack.records = [(f"n{n}", f"new {n}") for n in range(8)]
    stack.vendor.answer = lambda messages, times: Result(
        "", Outcome.ANSWERED, messages.user, usage=Usage(10, output_tokens=50), model="echo-1"
    )

    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), canary_job(), NEXT_NIGHT)

    run = stack.ledger.runs(job="reviews", window=NEXT_NIGHT)[0]
    gate = stack.ledger.gate(run.run, "canary")
    assert gate is not None
    assert [said.split(",")[0] for said in gate.facts["breaches"]] == [
        "an answer has 50.0 output tokens",
        "a row costs 0.000105 USD",
    ]


def test_a_canary_that_could_not_be_sent_lets_nobody_follow() -> None:
    stack = Stack(RECORDS)

    with pytest.raises(RunIncomplete) as ended:
        flow.run(stack.ports(), canary_job(budget_usd="0.00001"), NIGHT)

    assert ended.value.pending == 8
    assert stack.vendor.batches == {}


def test_fewer_rows_than_the_canary_go_at_once() -> None:
    stack = Stack(RECORDS[:2])

    books = flow.run(stack.ports(), canary_job(), NIGHT)

    assert (books.state, books.batches) == ("complete", 1)
    assert stack.ledger.gate(books.run, "canary") is None


def test_nothing_to_let_go_is_said_in_a_sentence() -> None:
    stack = Stack(RECORDS)
    books = flow.run(stack.ports(), canary_job(), NIGHT)

    with pytest.raises(RunFailed, match="neither a quality gate nor a canary holds anything back"):
        let_go(stack.ledger, stack.ledger.run(books.run), by="a person", now=stack.clock.now())


def test_killed_at_any_call_a_canary_is_still_sent_once_and_first() -> None:
    whole = Stack(RECORDS[:5])
    deaths = Deaths(whole)
    flow.run(whole.ports(**deaths.ports()), canary_job(), NIGHT)
    for where, stack in deaths:
        books = flow.run(stack.ports(), canary_job(), NIGHT)

        assert (books.state, books.good, len(stack.vendor.batches)) == ("complete", 5, 2), where
        assert set(stack.vendor.billed.values()) == {1}, where
        assert len(stack.vendor.batches["batch_0"].lines) == 2, where
    assert len(deaths) > 30

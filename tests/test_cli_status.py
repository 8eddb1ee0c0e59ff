"""`nightbatch status`: which budget a run waits for, how it stands, and until when."""

from __future__ import annotations

import pytest

from nightbatch import cli_status, flow
from nightbatch.core.money import Usage
from nightbatch.core.result import Outcome, Result
from nightbatch.core.shard import ShardState
from nightbatch.errors import BadSink, RunIncomplete, RunUnloaded
from nightbatch.steps.submit import submit
from tests.memory_stack import NIGHT, Stack, job_of

RECORDS = [(f"k{number}", f"text {number}") for number in range(6)]


def told(stack: Stack, capsys: pytest.CaptureFixture[str]) -> str:
    cli_status.show(stack.ledger, stack.ledger.runs(), {}, now=stack.clock.now())
    return " ".join(capsys.readouterr().out.split())


def test_a_run_that_a_budget_holds_back_says_which_and_until_when(capsys: pytest.CaptureFixture[str]) -> None:
    stack = Stack(RECORDS)
    usage = Usage(input_tokens=600, output_tokens=100)
    stack.vendor.answer = lambda messages, _: Result("", Outcome.ANSWERED, messages.user, usage=usage, model="m")
    with pytest.raises(RunIncomplete, match="3 budget"):
        flow.run(stack.ports(), job_of(budget_month_usd="0.003"), NIGHT)

    page = told(stack, capsys)

    words = "budget_month_usd is 0.0030 USD; in 2026-11 0.0015 are spent and 0.0000 reserved, and 0.0016 are needed"
    assert f"a budget: {words} at worst. This shard was not sent and its rows are pending." in page
    assert "from 2026-12-01 on" in page
    assert "pending rows go with the job's next run" in page
    (run,) = cli_status.runs_json(stack.ledger, stack.ledger.runs(), {}, now=stack.clock.now())["runs"]
    assert [shard["waits_for"][: len(words)] for shard in run["shards"]] == ["", words]


def test_a_shard_that_waits_for_others_says_for_which_budget(capsys: pytest.CaptureFixture[str]) -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    plan = flow.prepare(stack.ports(), job_of(budget_day_usd="0.0022"), NIGHT)
    job = flow.sealed_job(stack.ports(), plan.run)
    for shard in plan.shards:
        submit(stack.ports(), job, stack.ledger.shard(shard.ref))
    assert [shard.state for shard in stack.ledger.shards(plan.run)] == [ShardState.OPEN, ShardState.SEALED]

    page = told(stack, capsys)

    assert "budget_day_usd is 0.0022 USD; on 2026-11-21 0.0000 are spent and 0.00" in page
    assert "waits for what other shards give back (1 shard)" in page


def test_a_run_whose_answers_the_sink_did_not_take_says_why(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = Stack(RECORDS)

    def refuse(*_: object) -> None:
        raise BadSink("the table", problem="it is gone", remedy="Make it again.")

    with monkeypatch.context() as broken, pytest.raises(RunUnloaded, match="6 rows came back, are paid and kept"):
        broken.setattr(stack.sink, "merge", refuse)
        flow.run(stack.ports(), job_of(), NIGHT)

    page = told(stack, capsys)
    assert "waits for sink the table: it is gone. Make it again. (2 shards)" in page
    assert "next if no process runs it, run the window again" in page

    assert flow.run(stack.ports(), job_of(), NIGHT).merged == 6
    assert set(stack.vendor.billed.values()) == {1}

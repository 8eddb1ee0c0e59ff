"""Two prompts on one sample: the same records for both, told what it may cost before, and nothing written."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.core.result import Finish, Outcome, Result
from nightbatch.core.window import Window
from nightbatch.errors import AccountTrouble, JobInvalid, ProviderBusy
from nightbatch.job import Prompt
from nightbatch.steps.compare import Compared, batch_usd_a_record, compare, sealed_prompts, sides_of, words_of
from tests.memory_stack import NEXT_NIGHT, NIGHT, RATE, REALTIME, Stack, job_of
from tests.steps.shards import stack_of
from tests.steps.test_retry import RESULTS

OLD, NEW = Prompt(user="{{ text }}", version="v3"), Prompt(user="{{ text }}!", version="v4")


def compared(stack: Stack, count: int = 50, **changes: object) -> Compared:
    job = job_of(prompt=OLD.model_dump(), **changes)
    first, second = sides_of(stack.ports(), job, [OLD, NEW], NIGHT, count=count)
    *_, found = compare(stack.ports(), (first, second))
    return found


def test_both_prompts_are_asked_about_the_same_records_and_differences_are_counted_by_field() -> None:
    stack = stack_of(6)

    def answer(messages, _):
        mood = "good" if messages.user.endswith(("!", "text 0")) else "bad"
        text = json.dumps({"mood": mood, "n": 1})
        return Result("", Outcome.ANSWERED, text, Finish.DONE, usage=RESULTS["good"].usage, model="echo-1")

    stack.vendor.answer = answer
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "n": {"type": "integer"}},
        "required": ["mood", "n"],
    }

    found = compared(stack, answer={"schema": schema})

    fields = {name: (one.same, one.differ, dict(one.changes)) for name, one in found.fields.fields.items()}
    assert fields == {"mood": (1, 5, {("bad", "good"): 5}), "n": (6, 0, {})}
    assert (found.fields.records, found.fields.equal) == (6, 1)
    usage = RESULTS["good"].usage
    assert [told.cost_usd for told in found.told] == [REALTIME.cost_usd(usage) * 6] * 2
    assert batch_usd_a_record(found.sides[0], found.told[0]) == RATE.cost_usd(usage)
    assert all(told.cost_usd <= side.worst_usd for side, told in zip(found.sides, found.told, strict=True))
    assert (stack.store.files, stack.sink.answers, stack.ledger.runs()) == ({}, {}, [])


def test_the_sample_is_drawn_by_the_keys_alone_and_the_same_each_time() -> None:
    rows = [(f"k{number}", f"text {number}") for number in range(200)]
    one = [pair.key for pair in compared(Stack(rows), 20).pairs]
    other = [pair.key for pair in compared(Stack(rows[::-1]), 20).pairs]

    assert one == other
    assert len(set(one)) == 20
    assert one != [key for key, _ in rows[:20]]
    assert set(one) < {pair.key for pair in compared(Stack(rows), 50).pairs}


def test_a_badly_answered_record_counts_as_a_verdict_and_not_as_a_difference() -> None:
    stack = stack_of(3)
    stack.vendor.answer = lambda messages, _: RESULTS["empty" if messages.user == "text 1" else "good"]

    found = compared(stack)

    assert [dict(told.verdicts) for told in found.told] == [{"good": 2, "change: empty_answer": 1}, {"good": 3}]
    assert found.fields.records == 2
    [odd] = [pair for pair in found.pairs if pair.changed is None]
    assert (odd.key, words_of(odd.first), words_of(odd.second)) == ("k1", "change: empty_answer", "good")


def test_a_record_that_one_prompt_cannot_be_rendered_for_is_not_asked_by_it() -> None:
    stack = Stack([("k0", None), ("k1", "b")])
    job, upper = job_of(), Prompt(user="{{ text.upper() }}")
    sides = sides_of(stack.ports(), job, [upper, Prompt(user="Say {{ text }}")], NIGHT, count=9)

    *_, found = compare(stack.ports(), (sides[0], sides[1]))

    assert [dict(told.verdicts) for told in found.told] == [{"bad record": 1, "good": 1}, {"good": 2}]
    assert sum(stack.vendor.billed.values()) == 3


def test_a_vendor_that_does_not_answer_costs_one_record_its_place() -> None:
    stack = stack_of(3)
    ask = stack.provider.ask

    def flaky(body, *, endpoint):
        if b"text 1!" in body:
            raise ProviderBusy("memory", "asking", cause="HTTP 500", retry_after_s=0)
        return ask(body, endpoint=endpoint)

    stack.provider.ask = flaky

    assert [dict(told.verdicts) for told in compared(stack).told] == [{"good": 3}, {"good": 2, "no reply": 1}]


def test_an_account_in_trouble_is_found_out_by_the_first_record() -> None:
    stack, asked = stack_of(40), []

    def refuse(body, *, endpoint):
        asked.append(body)
        raise AccountTrouble("memory", code="401", message="no")

    stack.provider.ask = refuse

    with pytest.raises(AccountTrouble):
        compared(stack)
    assert len(asked) == 1


def test_a_sample_that_may_cost_more_than_a_budget_is_refused_before_anything_is_asked() -> None:
    stack = stack_of(50)

    with pytest.raises(JobInvalid, match=r"both prompts may cost 0\.\d+ USD at worst, and budget_usd is 0.01 USD"):
        compared(stack, budget_usd=Decimal("0.01"))
    assert stack.vendor.billed == {}


def test_vectors_are_not_compared() -> None:
    prompts = [Prompt(embed="{{ text }}"), Prompt(embed="{{ text }}!")]
    job = job_of(
        prompt={"embed": "{{ text }}"},
        models=[{"provider": "openai", "model": "echo-1", "connection": "c", "endpoint": "embeddings"}],
    )

    with pytest.raises(JobInvalid, match="vectors of two prompts"):
        sides_of(stack_of(1).ports(), job, prompts, NIGHT, count=1)


def test_prompts_of_earlier_runs_are_found_in_their_plans_newest_first() -> None:
    stack = stack_of(2)
    flow.run(stack.ports(), job_of(prompt=OLD.model_dump()), NIGHT)
    flow.run(stack.ports(), job_of(prompt=NEW.model_dump()), NEXT_NIGHT)
    flow.run(stack.ports(), job_of(prompt=NEW.model_dump()), Window(NEXT_NIGHT.end, NEXT_NIGHT.end.replace(day=23)))

    assert sealed_prompts(stack.ledger, "reviews") == [NEW, OLD]
    assert {row["prompt_version"] for row in stack.sink.answers.values()} == {NEW.named}

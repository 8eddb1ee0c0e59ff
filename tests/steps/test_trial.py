"""Trials: a few records in real time, all that a prompt's author wants to see, and nothing written."""

from __future__ import annotations

from decimal import Decimal

from nightbatch.errors import ProviderBusy
from nightbatch.steps.trial import TRIES, trials
from tests.memory_stack import NIGHT, REALTIME, Stack, job_of
from tests.steps.shards import stack_of
from tests.steps.test_retry import RESULTS

BUSY = ProviderBusy("memory", "asking", cause="HTTP 500", retry_after_s=3)


def test_the_first_records_are_asked_and_judged_at_the_real_time_price() -> None:
    stack = stack_of(5)
    stack.vendor.answer = lambda messages, _: RESULTS["empty" if messages.user == "text 1" else "good"]

    found = list(trials(stack.ports(), job_of(), NIGHT, count=2))

    assert [(it.key, it.result.text, it.verdict.kind) for it in found] == [
        ("k0", "fine", "good"),
        ("k1", "  ", "change"),
    ]
    cost = (10 * REALTIME.input_usd + 5 * REALTIME.output_usd) / Decimal(1_000_000)
    assert {it.cost_usd for it in found} == {cost}
    assert (stack.store.files, stack.sink.answers, stack.ledger.runs()) == ({}, {}, [])


def test_a_record_that_cannot_be_rendered_says_why_and_the_next_is_asked() -> None:
    stack = Stack([("k0", None), ("k1", "b")])

    bad, good = trials(stack.ports(), job_of(prompt={"user": "{{ text.upper() }}"}), NIGHT, count=2)

    assert (bad.key, bad.result, bad.problem.split(":")[0]) == ("k0", None, "bad_record")
    assert (good.key, good.result.text) == ("k1", "B")


def test_a_vendor_that_does_not_answer_at_first_is_asked_again() -> None:
    stack = stack_of(1)
    failures, ask = [BUSY] * (TRIES - 1), stack.provider.ask

    def flaky(body, *, endpoint):
        if failures:
            raise failures.pop()
        return ask(body, endpoint=endpoint)

    stack.provider.ask = flaky

    (found,) = trials(stack.ports(), job_of(), NIGHT, count=1)

    assert found.result.text == "text 0"


def test_a_vendor_that_does_not_answer_at_all_fails_that_record_alone() -> None:
    stack = stack_of(2)
    ask = stack.provider.ask

    def dead(body, *, endpoint):
        if b"text 0" in body:
            raise BUSY
        return ask(body, endpoint=endpoint)

    stack.provider.ask = dead

    first, second = trials(stack.ports(), job_of(), NIGHT, count=2)

    assert (first.result, first.problem) == (None, "memory did not answer in 3 tries: HTTP 500")
    assert second.result.text == "text 1"

"""Rows: each in exactly one place, asked again in a way that can help, and told to the reader as it is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import MemorySink
from nightbatch.core.money import Usage
from nightbatch.core.request import Endpoint
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.errors import RunIncomplete, StorageUnavailable
from nightbatch.steps.parquet import ROWS_AT_A_TIME
from tests.memory_stack import NIGHT, Stack, job_of

USAGE = Usage(input_tokens=10, output_tokens=5)
RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]


def answered(text: str, finish: Finish = Finish.DONE) -> Result:
    return Result("", Outcome.ANSWERED, text, finish, usage=USAGE, model="echo-1")


def model_of(name: str = "echo-1", **changes):
    return {"provider": "openai", "model": name, "connection": "c", "max_output_tokens": 100, **changes}


# --- asked again ----------------------------------------------------------------------------------------------


def test_a_text_to_embed_is_sent_again_as_it_is() -> None:
    """A vector of the text and of a word of advice behind it is a wrong answer that nobody would notice."""
    stack = Stack([("k", "text")])
    stack.provider.endpoints = (Endpoint.EMBEDDINGS,)
    stack.vendor.answer = lambda messages, times: answered('["x"]' if times == 0 else "[0.5]")
    job = job_of(prompt={"embed": "{{ text }}"}, models=[model_of(max_output_tokens=None)])

    flow.run(stack.ports(), job, NIGHT)

    assert stack.vendor.billed == {"text": 2}
    assert stack.answers() == {"k": "[0.5]"}


def test_an_answer_cut_off_without_a_cap_of_ours_is_not_asked_for_again_in_the_same_way() -> None:
    stack = Stack([("k", "text")])
    stack.vendor.answer = lambda messages, _: answered("te", Finish.TRUNCATED)

    books = flow.run(stack.ports(), job_of(models=[model_of(max_output_tokens=None)]), NIGHT)

    assert (stack.vendor.billed, books.dead) == ({"text": 1}, {"truncated": 1})


def test_an_answer_cut_off_without_a_cap_of_ours_goes_to_the_next_model() -> None:
    stack = Stack([("k", "text")])
    stack.vendor.answer = lambda messages, times: answered("te", Finish.TRUNCATED) if times == 0 else answered("text")
    job = job_of(models=[model_of(max_output_tokens=None), model_of("big-1")])

    books = flow.run(stack.ports(), job, NIGHT)

    shard = stack.ledger.shards(books.run, round_=1)[0]
    assert (shard.plan.model, stack.answers()) == ("big-1", {"k": "text"})


def test_advice_to_the_model_does_not_pile_up_round_after_round() -> None:
    stack = Stack([("k", "text")])
    asked = []

    def answer(messages, _times):
        asked.append(messages.user)
        return answered(["", "no json", "{}", '{"a": 1}'][len(asked) - 1])

    stack.vendor.answer = answer
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    flow.run(stack.ports(), job_of(rounds=3, answer={"schema": schema}), NIGHT)

    assert [text.count("\n\n") for text in asked] == [0, 1, 1, 1]
    assert all(text.startswith("text") for text in asked)
    assert stack.answers() == {"k": '{"a": 1}'}


def test_rows_that_one_provider_refuses_go_to_another_one_by_its_own_connection() -> None:
    first, second = Stack(RECORDS[:2]), Stack([])
    second.vendor.answer = lambda messages, _: answered(messages.user.upper())
    second.vendor.clock = first.clock
    first.vendor.answer = lambda messages, _: answered("no", Finish.REFUSED)
    opened = []

    def provider(name, connection):
        opened.append((name, connection))
        return first.provider if name == "openai" else second.provider

    models = [model_of(), {**model_of("big-1"), "provider": "anthropic", "connection": "d"}]
    prices = first.ports().prices
    prices._prices["anthropic", "big-1"] = prices._prices["openai", "big-1"]

    books = flow.run(first.ports(provider=provider, prices=prices), job_of(models=models), NIGHT)

    shard = first.ledger.shards(books.run, round_=1)[0]
    assert (shard.plan.provider, shard.plan.connection, shard.current.provider) == ("anthropic", "d", "anthropic")
    assert set(opened) == {("openai", "c"), ("anthropic", "d")}
    assert first.answers() == {"k0": "TEXT 0", "k1": "TEXT 1"}
    assert (books.state, books.cost_usd) == ("complete", Decimal("0.000060000"))


# --- dead letters ---------------------------------------------------------------------------------------------


class Moody(MemorySink):
    """A sink that takes no dead letters for a while."""

    down = True

    def bury(self, context, part, batches):
        if self.down:
            raise StorageUnavailable("the sink", cause="down")
        return super().bury(context, part, batches)


def test_a_run_is_not_complete_before_its_dead_letters_are_in_the_sink() -> None:
    """Airflow settles whatever happened: also when the task that should have buried them failed for good."""
    stack = Stack(RECORDS[:2], sink=Moody())
    job = job_of()
    refusal = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="too_long")
    stack.vendor.answer = lambda messages, _: refusal
    plan = flow.prepare(stack.ports(), job, NIGHT)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    with pytest.raises(StorageUnavailable):
        flow.close_round(stack.ports(), job, plan.run, 0)

    with pytest.raises(StorageUnavailable):
        flow.finish(stack.ports(), job, plan.run)
    assert stack.ledger.run(plan.run).state == "open"
    stack.sink.down = False
    books = flow.finish(stack.ports(), job, plan.run)

    assert (books.state, {key for _, key in stack.sink.dead}) == ("complete", {"k0", "k1"})


def test_every_bad_record_has_a_dead_letter_of_its_own() -> None:
    stack = Stack([("k", 1), ("k", 2)])
    job = job_of(prompt={"user": "{{ text.missing }}"})

    books = flow.run(stack.ports(), job, NIGHT)

    assert books.unrenderable == len(stack.sink.dead) == 2
    assert "k" in {key for _, key in stack.sink.dead}


def test_a_key_that_is_no_text_is_a_dead_letter_and_harms_no_other_record() -> None:
    stack = Stack([("k\ud800", "text"), *RECORDS])

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.good, books.unrenderable) == (8, 1)
    assert [letter["reason"] for letter in stack.sink.dead.values()] == ["bad_key"]


# --- results --------------------------------------------------------------------------------------------------


def test_a_row_that_is_told_twice_costs_what_its_usage_says() -> None:
    """First as expired, which cost nothing, and then answered after all."""
    stack = Stack(RECORDS[:1])
    inner = stack.provider.results

    def results(state):
        for file in inner(state):
            line = next(file.chunks)
            expired = line.replace(b'"answered"', b'"expired"').replace(b"[10, 5,", b"[0, 0,")
            yield type(file)(file.name, iter([expired + line]))

    stack.provider.results = results

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.good, books.odd) == (1, {"repeated rows": 1})
    assert str(books.cost_usd) == "0.000015000"
    assert str(stack.sink.answers["k0"]["cost_usd"]) == "0.000015000"
    assert stack.ledger.spent(books.run) == (0, books.cost_usd)


def test_lines_nobody_can_read_are_counted_and_their_rows_sent_again() -> None:
    stack = Stack(RECORDS[:3])
    inner = stack.provider.results

    def results(state):
        for file in inner(state):
            content = b"".join(file.chunks)
            # The first batch's file comes so every time: it is the vendor's own fault, and no download's.
            if state.batch_id == "batch_0":
                content = b"\x00\xff not json\n\n" + content[content.index(b"\n") + 1 :][:-7]
            yield type(file)(file.name, iter([content]))

    stack.provider.results = results

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.good, books.sent_again, books.odd) == (3, {"missing": 2}, {"unreadable lines": 2})
    assert stack.answers() == dict(RECORDS[:3])


def test_many_records_that_ask_the_same_are_loaded_a_few_at_a_time() -> None:
    count = 5 * ROWS_AT_A_TIME
    stack = Stack([(f"k{n}", "same") for n in range(count)])
    sizes = []

    class Counting(MemorySink):
        def merge(self, context, part, batches):
            def counted():
                for batch in batches:
                    sizes.append(batch.num_rows)
                    yield batch

            return super().merge(context, part, counted())

    stack.sink = Counting()

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.requests, books.duplicates, books.merged) == (1, count - 1, count)
    assert max(sizes) <= ROWS_AT_A_TIME


# --- words ----------------------------------------------------------------------------------------------------


def test_the_message_about_pending_rows_counts_their_copies_too() -> None:
    stack = Stack([("k0", "text 0"), ("twin", "text 0")])
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)

    with pytest.raises(RunIncomplete, match="2 rows are pending"):
        flow.run(stack.ports(), job_of(), NIGHT)

    assert stack.notifier.messages[-1].title == "reviews: 2 rows are pending"


def test_no_prompt_or_answer_stands_in_what_a_run_says(caplog) -> None:
    stack = Stack([("k0", "SECRET question"), ("k1", 7)])
    stack.vendor.answer = lambda messages, _: answered("SECRET answer")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    caplog.set_level("DEBUG")

    books = flow.run(stack.ports(), job_of(answer={"schema": schema}), NIGHT)

    plans = [stack.ledger.sealed(books.run, number).facts for number in range(3)]
    assert "SECRET" not in f"{books.as_json()} {caplog.text} {stack.notifier.messages} {plans}"

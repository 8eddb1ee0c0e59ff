"""All ten steps on memory adapters: what goes in is accounted for, and a killed run that is run again pays once."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.adapters.memory import StaticPrices
from nightbatch.core.money import Usage
from nightbatch.core.request import Messages
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.core.shard import ShardState
from nightbatch.core.window import Window
from nightbatch.errors import BatchVanished, JobInvalid, RunFailed, RunIncomplete, StaleAttempt, StorageUnavailable
from nightbatch.flow import Options
from nightbatch.steps.outcome import Finished, Waiting
from tests.memory_deaths import Deaths
from tests.memory_stack import NEXT_NIGHT, NIGHT, Killed, Stack, job_of, later

DAY = timedelta(days=1)
RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
USAGE = Usage(input_tokens=10, output_tokens=5)


def answered(text: str) -> Result:
    return Result("", Outcome.ANSWERED, text, usage=USAGE, model="echo-1")


def test_every_record_is_answered_and_the_books_close() -> None:
    stack = Stack(RECORDS)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert stack.answers() == {f"k{n}": f"text {n}" for n in range(8)}
    assert (books.state, books.pulled, books.requests, books.good, books.merged) == ("complete", 8, 8, 8, 8)
    assert books.batches == 3
    assert str(books.cost_usd) == "0.000120000"
    assert books.realtime_usd == 2 * books.cost_usd


def test_a_run_again_reads_no_source_sends_nothing_and_costs_nothing() -> None:
    stack = Stack(RECORDS)
    first = flow.run(stack.ports(), job_of(), NIGHT)

    second = flow.run(stack.ports(), job_of(), NIGHT)

    assert stack.reads == 1
    assert len(stack.vendor.batches) == 3
    assert second.cost_usd == first.cost_usd


def test_records_that_ask_the_same_are_asked_once_and_answered_each() -> None:
    stack = Stack([*RECORDS, ("twin", "text 3")])

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert stack.answers()["twin"] == "text 3"
    assert (books.duplicates, books.requests, books.merged) == (1, 8, 9)
    assert stack.vendor.billed["text 3"] == 1


def test_a_record_whose_answer_is_in_the_sink_is_not_sent_again() -> None:
    stack = Stack(RECORDS)
    flow.run(stack.ports(), job_of(), NIGHT)
    stack.records = [*RECORDS, ("new", "new text")]

    books = flow.run(stack.ports(), job_of(), NEXT_NIGHT)

    assert (books.pulled, books.unchanged, books.requests) == (9, 8, 1)
    assert set(stack.vendor.billed.values()) == {1}


def test_failed_rows_are_sent_again_and_only_they() -> None:
    stack = Stack(RECORDS)

    def answer(messages, times):
        if messages.user == "text 1" and times == 0:
            return Result("", Outcome.EXPIRED)
        if messages.user == "text 2" and times == 0:
            return Result("", Outcome.ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="500")
        return answered(messages.user)

    stack.vendor.answer = answer

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert books.sent_again == {"expired": 1, "transient_error": 1}
    assert (books.good, books.state) == (8, "complete")
    assert {text: times for text, times in stack.vendor.billed.items() if times > 1} == {"text 1": 2, "text 2": 2}


def test_a_truncated_row_is_asked_again_with_a_larger_cap() -> None:
    stack = Stack(RECORDS[:1])
    stack.vendor.answer = lambda messages, times: (
        Result("", Outcome.ANSWERED, "tex", Finish.TRUNCATED, usage=USAGE) if times == 0 else answered("whole")
    )

    flow.run(stack.ports(), job_of(), NIGHT)

    shard = stack.ledger.shards(stack.ledger.runs()[0].run, round_=1)[0]
    assert shard.plan.max_output_tokens == 200
    assert stack.answers() == {"k0": "whole"}


def test_a_row_that_can_never_be_answered_is_a_dead_letter_with_its_reason() -> None:
    stack = Stack([*RECORDS, ("twin", "text 0")])
    refusal = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="context_length_exceeded")
    stack.vendor.answer = lambda messages, _: refusal if messages.user == "text 0" else answered(messages.user)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert books.dead == {"invalid_request": 1}
    assert (books.copies_dead, books.dead_rows, books.merged) == (1, 2, 7)
    run = stack.ledger.runs()[0].run
    letters = {key: letter["reason"] for (_, key), letter in stack.sink.dead.items() if _ == run}
    assert letters == {"k0": "invalid_request", "twin": "invalid_request"}


def test_rows_never_answered_are_pending_and_go_on_when_the_run_is_run_again() -> None:
    stack = Stack([*RECORDS, ("twin", "text 0")])
    stack.vendor.answer = lambda messages, _: (
        Result("", Outcome.EXPIRED) if messages.user == "text 0" else answered(messages.user)
    )
    with pytest.raises(RunIncomplete, match="2 rows are pending"):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = lambda messages, _: answered(messages.user)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.from_pending, books.pulled, books.merged) == ("complete", 2, 0, 2)
    assert len(stack.answers()) == 9
    assert stack.reads == 1


def test_the_next_night_takes_what_the_last_one_left_pending() -> None:
    stack = Stack(RECORDS[:2])
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = lambda messages, _: answered(messages.user)
    stack.records = [("k0", "text 0, changed"), ("k9", "text 9")]

    books = flow.run(stack.ports(), job_of(), NEXT_NIGHT)

    assert stack.answers() == {"k0": "text 0, changed", "k1": "text 1", "k9": "text 9"}
    assert (books.pulled, books.from_pending, books.superseded, books.requests) == (2, 2, 1, 3)


def test_pending_rows_wait_for_a_window_between_that_may_hold_them_anew() -> None:
    """Else an old record's answer would be loaded under a later window, above the newer record's."""
    stack = Stack([("k0", "old text")])
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(), NIGHT)
    stack.vendor.answer = lambda messages, _: answered(messages.user)
    night_2, night_3, night_4 = (Window(NIGHT.start + DAY * n, NIGHT.end + DAY * n) for n in (1, 2, 3))
    stack.records = []
    run_2 = stack.ledger.open_run("reviews", night_2, now=stack.clock.now())

    meanwhile = flow.run(stack.ports(), job_of(), night_3)
    stack.ledger.settle(run_2.run, state="failed", books={}, now=stack.clock.now())
    after = flow.run(stack.ports(), job_of(), night_4)

    assert (meanwhile.from_pending, after.from_pending) == (0, 1)


def test_account_trouble_stops_sending_and_keeps_every_row_pending() -> None:
    stack = Stack(RECORDS)
    credit = Result("", Outcome.ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="credit")
    stack.vendor.answer = lambda messages, _: credit

    with pytest.raises(RunIncomplete, match="8 account_trouble"):
        flow.run(stack.ports(), job_of(), NIGHT)

    assert len(stack.vendor.batches) == 1


def test_a_shard_that_could_break_the_budget_is_not_sent() -> None:
    stack = Stack(RECORDS)

    with pytest.raises(RunIncomplete, match="8 budget"):
        flow.run(stack.ports(), job_of(budget_usd="0.0005"), NIGHT)

    assert stack.vendor.batches == {}
    assert stack.ledger.spent(stack.ledger.runs()[0].run) == (0, 0)


def test_what_is_reserved_counts_against_the_budget_until_it_is_settled() -> None:
    stack = Stack([*RECORDS, ("k8", "text 8")])
    stack.provider.ends_at_once = False
    plan = flow.prepare(stack.ports(), job_of(budget_usd="0.0042"), NIGHT)
    job = flow.sealed_job(stack.ports(), plan.run)
    worst = plan.shards[0].worst_usd
    assert worst * 2 < job.budget_usd < worst * 3

    for shard in plan.shards:
        flow.advance(stack.ports(), job, shard.ref)

    assert [shard.state for shard in stack.ledger.shards(plan.run)] == ["open", "open", "sealed"]
    assert stack.ledger.spent(plan.run) == (worst * 2, 0)


def test_shards_wait_for_what_others_give_back_and_the_run_is_complete() -> None:
    """The worst case of all shards is several times the budget, and what they cost is a fraction of it."""
    stack = Stack([(f"k{number}", f"text {number}") for number in range(24)])

    books = flow.run(stack.ports(), job_of(budget_usd="0.0022"), NIGHT)

    assert (books.state, books.good, books.batches) == ("complete", 24, 8)
    assert stack.ledger.spent(books.run) == (0, books.cost_usd)


def dear(messages: Messages, _times: int) -> Result:
    """Answer at nearly the worst: almost a token a byte, and the whole cap."""
    return Result("", Outcome.ANSWERED, messages.user, usage=Usage(input_tokens=600, output_tokens=100), model="m")


@pytest.mark.parametrize("key", ["budget_usd", "budget_day_usd", "budget_month_usd", "account"])
def test_what_a_budget_keeps_back_is_told_and_goes_on_when_there_is_more(key: str) -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = dear
    keys = {} if key == "account" else {key: "0.0035"}
    stack.provider.budget_month_usd = Decimal("0.0035") if key == "account" else None
    name = "the account's budget_month_usd" if key == "account" else key

    with pytest.raises(RunIncomplete, match=re.escape(f"Why: {name} is 0.0035 USD")) as incomplete:
        flow.run(stack.ports(), job_of(**keys), NIGHT)

    assert "2 budget" in str(incomplete.value)
    assert len(stack.notifier.messages) == 1
    assert name in stack.notifier.messages[0].happened
    with pytest.raises(RunIncomplete, match="2 budget"):
        flow.run(stack.ports(), job_of(**keys), NIGHT)
    stack.provider.budget_month_usd = None
    raised = {} if key == "account" else {key: "0.01"}
    books = flow.run(stack.ports(), job_of(**raised), NIGHT)
    assert (books.state, set(stack.vendor.billed.values())) == ("complete", {1})
    assert sorted(stack.answers()) == [key for key, _ in RECORDS]


@pytest.mark.parametrize(("key", "days"), [("budget_day_usd", 1), ("budget_month_usd", 10)])
def test_a_new_day_or_month_lets_the_rows_go_on(key: str, days: int) -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = dear
    with pytest.raises(RunIncomplete, match="2 budget"):
        flow.run(stack.ports(), job_of(**{key: "0.0035"}), NIGHT)

    later(stack, days=days)

    assert flow.run(stack.ports(), job_of(**{key: "0.0035"}), NIGHT).state == "complete"


def test_a_window_run_again_has_the_rest_of_its_budget_and_a_forced_one_all_of_it() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = dear
    job = job_of(budget_usd="0.0035")
    for _ in range(2):
        with pytest.raises(RunIncomplete, match="2 budget"):
            flow.run(stack.ports(), job, NIGHT)
    assert sum(sum(stack.ledger.spent(run.run)) for run in stack.ledger.runs()) <= job.budget_usd

    with pytest.raises(RunIncomplete, match="budget"):
        flow.run(stack.ports(), job, NIGHT, Options(force="somebody", refresh=True))

    assert stack.ledger.spent(stack.ledger.runs()[0].run)[1] > 0


def test_a_cost_above_its_reserve_is_booked_and_told() -> None:
    stack = Stack(RECORDS[:3])
    usage = Usage(input_tokens=10_000, output_tokens=100)
    stack.vendor.answer = lambda messages, _: replace(dear(messages, 0), usage=usage)

    books = flow.run(stack.ports(), job_of(notify={"on": ["report"]}), NIGHT)

    over = books.cost_usd - stack.ledger.shards(books.run)[0].current.reserved_usd
    assert over > 0
    assert (books.above_reserve, books.above_reserve_usd) == (1, over)
    told = dict(stack.notifier.messages[-1].facts)["Above the reserve"]
    assert told.startswith(f"1 shards cost {over:.4f} USD more than their worst case")


def test_an_account_with_a_budget_takes_no_model_of_unknown_price_or_length() -> None:
    stack = Stack(RECORDS)
    stack.provider.budget_month_usd = Decimal(5)

    with pytest.raises(JobInvalid, match="the account's budget_month_usd cannot be kept"):
        flow.prepare(stack.ports(prices=StaticPrices({})), job_of(), NIGHT)
    capped = {"provider": "openai", "model": "echo-1", "connection": "c", "max_output_tokens": 100}
    uncapped = {"provider": "openai", "model": "big-1", "connection": "c"}
    for models in ([uncapped], [capped, uncapped]):
        with pytest.raises(
            JobInvalid, match=rf"models\.{len(models) - 1}\.max_output_tokens: the account has a budget"
        ):
            flow.prepare(stack.ports(), job_of(models=models), NIGHT)


def test_what_was_sent_is_collected_though_the_account_has_a_budget_by_now() -> None:
    stack = Stack(RECORDS)
    job = job_of(models=[{"provider": "openai", "model": "free-1", "connection": "c"}])
    plan = flow.prepare(stack.ports(), job, NIGHT)
    stack.provider.ends_at_once = False
    for shard in plan.shards[:1]:
        flow.advance(stack.ports(), job, shard.ref)
    stack.provider.budget_month_usd, stack.provider.ends_at_once = Decimal(5), True

    assert flow.advance(stack.ports(), job, plan.shards[0].ref) == Finished("loaded")
    with pytest.raises(JobInvalid, match="the account has a budget"):
        flow.advance(stack.ports(), job, plan.shards[1].ref)


def test_a_batch_that_failed_as_a_whole_is_told_once_and_not_sent_in_circles() -> None:
    """A vendor that refuses a whole file (a model it does not have) has answered nothing: a person must act."""
    stack = Stack(RECORDS[:3])
    poll = stack.provider.poll
    stack.provider.poll = lambda batch_id: replace(poll(batch_id), problem="model_not_found: no such model")
    stack.provider.results = lambda state: iter(())

    with pytest.raises(RunIncomplete, match="3 request_refused"):
        flow.run(stack.ports(), job_of(), NIGHT)

    assert len(stack.vendor.batches) == 1
    assert stack.ledger.spent(stack.ledger.runs()[0].run) == (0, 0)


def test_a_batch_that_the_vendor_no_longer_knows_is_left_to_a_person() -> None:
    stack = Stack(RECORDS[:3])
    stack.provider.ends_at_once = False
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    job, ref = flow.sealed_job(stack.ports(), plan.run), plan.shards[0].ref
    flow.advance(stack.ports(), job, ref)
    stack.vendor.batches.clear()
    for _ in range(4):
        later(stack, minutes=4)
        assert isinstance(flow.advance(stack.ports(), job, ref), Waiting)
    later(stack, minutes=4)

    with pytest.raises(BatchVanished):
        flow.advance(stack.ports(), job, ref)


def test_a_ledger_that_always_says_stale_makes_a_shard_wait_and_not_spin() -> None:
    stack = Stack(RECORDS[:3])
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    job, ref = flow.sealed_job(stack.ports(), plan.run), plan.shards[0].ref

    class Stale:
        def __getattr__(self, name):
            return getattr(stack.ledger, name)

        def begin(self, intent, *, now):
            raise StaleAttempt("r0-s000", expected="attempt 1", found="attempt 2")

    outcome = flow.advance(stack.ports(ledger=Stale()), job, ref)

    assert isinstance(outcome, Waiting)
    assert outcome.until > stack.clock.now()


def test_answers_go_where_the_sealed_job_says_also_when_its_file_was_edited_meanwhile() -> None:
    stack = Stack(RECORDS)
    refusal = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="400")
    stack.vendor.answer = lambda messages, _: refusal if messages.user == "text 0" else answered(messages.user)
    asked: list[str] = []

    def sink(job):
        asked.append(job.sink.files)
        return stack.sink

    flow.prepare(stack.ports(), job_of(), NIGHT)
    flow.run(stack.ports(sink=sink), job_of(sink={"files": "memory/elsewhere"}), NIGHT)

    assert set(asked) == {"memory/answers"}


def test_a_sink_that_is_away_keeps_nobody_from_collecting_what_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    for shard in plan.shards:
        flow.advance(stack.ports(), job_of(), shard.ref)
    stack.provider.ends_at_once = True

    def away(*_: object) -> None:
        raise StorageUnavailable("the table", cause="no route to it")

    with monkeypatch.context() as broken:
        for name in ("prepare", "merge"):
            broken.setattr(stack.sink, name, away)
        assert flow.prepare(stack.ports(), job_of(), NIGHT) == plan
        for shard in plan.shards:
            with pytest.raises(StorageUnavailable):
                flow.advance(stack.ports(), job_of(), shard.ref)
        assert {shard.state for shard in stack.ledger.shards(plan.run)} == {ShardState.COLLECTED}

    assert flow.run(stack.ports(), job_of(), NIGHT).merged == 8


def test_a_dag_that_lost_rounds_mid_run_leaves_no_row_to_a_round_that_never_comes() -> None:
    stack = Stack(RECORDS[:3])
    stack.vendor.answer = lambda messages, _: Result("", Outcome.EXPIRED)
    plan = flow.prepare(stack.ports(), job_of(rounds=2), NIGHT)
    job = flow.sealed_job(stack.ports(), plan.run)
    flow.advance(stack.ports(), job, plan.shards[0].ref)

    closed = flow.close_round(stack.ports(), job, plan.run, 0, last=0)

    assert (closed.shards, closed.facts["pending"]) == ((), {"expired": 3})


def test_a_store_that_is_away_when_a_run_is_settled_calls_nobody_out_of_bed() -> None:
    """Airflow tries again, a few times; only how the run ends is news."""
    stack = Stack(RECORDS[:3])
    refusal = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="400")
    stack.vendor.answer = lambda messages, _: refusal if messages.user == "text 0" else answered(messages.user)
    job = job_of(max_dead_share=0.0)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    flow.close_round(stack.ports(), job, plan.run, 0)

    def away(_job):
        raise StorageUnavailable("the sink", cause="down")

    with pytest.raises(StorageUnavailable):
        flow.finish(stack.ports(sink=away), job, plan.run)
    assert stack.notifier.messages == []

    with pytest.raises(RunFailed):
        flow.finish(stack.ports(), job, plan.run)
    assert [message.kind for message in stack.notifier.messages] == ["failed"]


def test_a_failed_prepare_does_not_claim_that_nothing_was_sent_where_a_plan_stands() -> None:
    stack = Stack(RECORDS[:3])
    flow.prepare(stack.ports(), job_of(), NIGHT)

    with pytest.raises(RunFailed, match="the plan that was sealed before stands"):
        flow.fail_unplanned(stack.ports(), job_of(), NIGHT)

    assert stack.ledger.runs()[0].state == "open"


def test_a_lost_create_reply_is_found_again_and_not_paid_twice() -> None:
    stack = Stack(RECORDS[:3])

    def lose() -> None:
        stack.vendor.after_create = lambda: None
        raise Killed

    stack.vendor.after_create = lose
    with pytest.raises(Killed):
        flow.run(stack.ports(), job_of(), NIGHT)

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert len(stack.vendor.batches) == 1
    assert (books.good, set(stack.vendor.billed.values())) == (3, {1})


@pytest.mark.parametrize("found_by", ["label", "count"])
def test_killed_at_any_call_and_run_again_gives_the_same_rows_cost_and_batches(found_by: str) -> None:
    """Dies before and after each call of each port that the run makes, and compares with the run that lived."""

    def flaky(messages, times):
        return Result("", Outcome.EXPIRED) if messages.user == "text 1" and times == 0 else answered(messages.user)

    whole = Stack(RECORDS, found_by=found_by)
    whole.vendor.answer = flaky
    deaths = Deaths(whole)
    expected = flow.run(whole.ports(**deaths.ports()), job_of(), NIGHT)
    for where, stack in deaths:
        books = flow.run(stack.ports(), job_of(), NIGHT)

        assert stack.answers() == whole.answers(), where
        assert (books.cost_usd, books.state) == (expected.cost_usd, "complete"), where
        assert len(stack.vendor.batches) == len(whole.vendor.batches), where
        assert stack.vendor.billed == whole.vendor.billed, where
    assert len(deaths) > 50


def test_dying_at_any_call_would_show_a_batch_that_is_paid_twice() -> None:
    """Where the vendor hides its batches, a create whose reply was lost is sent again: the deaths above can fail."""
    whole = Stack(RECORDS)
    deaths = Deaths(whole)
    flow.run(whole.ports(**deaths.ports()), job_of(), NIGHT)
    whole.provider.find = lambda *_, **__: []

    creates = [(where, stack) for where, stack in deaths if "after MemoryProvider.create" in where]

    assert len(creates) == 3
    assert all(_pays_twice(stack, whole) for _, stack in creates)


def _pays_twice(stack: Stack, whole: Stack) -> bool:
    stack.provider.find = whole.provider.find
    flow.run(stack.ports(), job_of(), NIGHT)
    return len(stack.vendor.batches) > len(whole.vendor.batches)

"""Shards: attempts that meet, files at the vendor, slow lines, and a batch that is gone."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from nightbatch import flow
from nightbatch.core.money import Usage
from nightbatch.core.result import Finish, Outcome, Result
from nightbatch.errors import AccountTrouble, BatchVanished, DoesNotAddUp, QueueFull, RunIncomplete
from nightbatch.steps.outcome import Finished, Waiting
from tests.memory_stack import NEXT_NIGHT, NIGHT, Killed, Stack, job_of, later

USAGE = Usage(input_tokens=10, output_tokens=5)
RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]


def answered(text: str) -> Result:
    return Result("", Outcome.ANSWERED, text, usage=USAGE, model="echo-1")


class Wakeful:
    """Wraps a port; before or after one call something else happens first."""

    def __init__(self, inner, name, then, *, when="before"):
        self._inner, self._name, self._then, self._when = inner, name, then, when

    def __getattr__(self, name):
        value = getattr(self._inner, name)
        if name != self._name or self._then is None:
            return value
        then, self._then = self._then, None

        def called(*args, **kwargs):
            if self._when == "before":
                then()
                return value(*args, **kwargs)
            result = value(*args, **kwargs)
            then()
            return result

        return called


STEPS = (
    "shard", "begin", "note_sending", "note_open", "note_seen", "note_stored", "note_collected", "note_loaded",
)  # fmt: skip


@pytest.mark.parametrize("found_by", ["label", "count"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("asleep_s", [1, 3_600])
def test_an_attempt_that_sleeps_at_a_step_meets_its_successor_and_nothing_is_paid_twice(
    step: str, when: str, asleep_s: int, found_by: str
) -> None:
    stack = Stack(RECORDS[:3], found_by=found_by)
    job = job_of()
    ref = flow.prepare(stack.ports(), job, NIGHT).shards[0].ref

    def meanwhile() -> None:
        later(stack, seconds=asleep_s)
        flow.advance(stack.ports(), job, ref)

    flow.advance(stack.ports(ledger=Wakeful(stack.ledger, step, meanwhile, when=when)), job, ref)
    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.state, stack.answers()) == ("complete", dict(RECORDS[:3]))
    assert (len(stack.vendor.batches), set(stack.vendor.billed.values())) == (1, {1})
    assert stack.ledger.spent(books.run) == (0, books.cost_usd)


def test_an_attempt_that_finds_the_account_in_trouble_gives_way_to_one_that_did_not() -> None:
    stack = Stack(RECORDS[:3])
    stack.provider.ends_at_once = False
    job = job_of()
    ref = flow.prepare(stack.ports(), job, NIGHT).shards[0].ref

    class Troubled:
        def __getattr__(self, name):
            return getattr(stack.provider, name)

        def account(self):
            flow.advance(stack.ports(), job, ref)
            raise AccountTrouble("memory", code="key", message="no")

    outcome = flow.advance(stack.ports(provider=lambda *_: Troubled()), job, ref)

    assert isinstance(outcome, Waiting)
    assert stack.ledger.shard(ref).state == "open"


def test_an_attempt_whose_create_was_refused_late_gives_way_to_its_successor() -> None:
    stack = Stack(RECORDS[:3])
    job = job_of()
    ref = flow.prepare(stack.ports(), job, NIGHT).shards[0].ref

    def refuse() -> None:
        stack.vendor.before_create = lambda: None
        # Its successor looks for the batch until it is certain that there is none, and sends the shard again.
        while not isinstance(flow.advance(stack.ports(), job, ref), Finished):
            later(stack, seconds=30)
        raise QueueFull("memory", cause="full")

    stack.vendor.before_create = refuse

    assert isinstance(flow.advance(stack.ports(), job, ref), Finished)
    assert len(stack.vendor.batches) == 1


class Filing:
    """A provider that takes request files, and keeps them until they are deleted."""

    def __init__(self, stack: Stack, *, upload_s: float = 0) -> None:
        self.stack, self.upload_s, self.files, self.uploads = stack, upload_s, [], 0

    def __getattr__(self, name):
        return getattr(self.stack.provider, name)

    def upload(self, lines, *, size_bytes, name):
        self.uploads += 1
        if self.uploads > 5:
            raise Killed("uploads in circles")
        later(self.stack, seconds=self.upload_s)
        self.files.append(f"file-{self.uploads}")
        return self.files[-1]

    def withdraw(self, file_id):
        self.files.remove(file_id)


def test_a_shard_that_waits_its_turn_leaves_no_files_at_the_vendor() -> None:
    stack = Stack(RECORDS[:3])
    provider, job = Filing(stack), job_of()
    ports = stack.ports(provider=lambda *_: provider)
    ref = flow.prepare(ports, job, NIGHT).shards[0].ref

    def full() -> None:
        raise QueueFull("memory", cause="full")

    stack.vendor.before_create = full
    for _ in range(3):
        outcome = flow.advance(ports, job, ref)
        assert isinstance(outcome, Waiting)
        later(stack, seconds=300)

    assert (provider.uploads, provider.files) == (3, [])


def test_an_upload_that_misses_its_send_deadline_is_not_repeated_without_a_pause() -> None:
    stack = Stack(RECORDS[:3])
    provider, job = Filing(stack, upload_s=3_000), job_of()
    ports = stack.ports(provider=lambda *_: provider)
    ref = flow.prepare(ports, job, NIGHT).shards[0].ref

    outcome = flow.advance(ports, job, ref)

    assert isinstance(outcome, Waiting)
    assert (provider.uploads, provider.files, len(stack.vendor.batches)) == (1, [], 0)


def test_a_large_shard_may_take_as_long_to_send_as_its_bytes_need() -> None:
    """200 MB over a slow line take minutes; a fixed send deadline would send them again for ever."""
    text = "x" * 1_000_000
    stack = Stack([(f"k{n}", f"{n}{text}") for n in range(20)])
    provider, job = Filing(stack, upload_s=150), job_of(shard={"max_rows": 20})
    ports = stack.ports(provider=lambda *_: provider)
    ref = flow.prepare(ports, job, NIGHT).shards[0].ref

    flow.advance(ports, job, ref)

    assert (provider.uploads, len(stack.vendor.batches)) == (1, 1)


def test_a_strangers_batch_whose_results_cannot_be_read_keeps_nobody_waiting() -> None:
    stack = Stack(RECORDS[:3], found_by="count")
    job = job_of()
    ref = flow.prepare(stack.ports(), job, NIGHT).shards[0].ref

    def lost() -> None:
        stack.vendor.before_create = lambda: None
        raise Killed

    stack.vendor.before_create = lost
    with pytest.raises(Killed):
        flow.advance(stack.ports(), job, ref)
    stranger = stack.vendor.create([b'{"custom_id":"x","body":{"system":"","user":"theirs"}}'] * 3, None)
    stack.vendor.end(stranger.batch_id)
    stack.vendor.batches[stranger.batch_id].lines = [b"not json\n"]

    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.state, books.good, len(stack.vendor.batches)) == ("complete", 3, 2)


# --- budget and books -----------------------------------------------------------------------------------------


def test_the_budget_holds_over_rounds_and_every_reserve_returns_once() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, times: (
        Result("", Outcome.ANSWERED, "cut", Finish.TRUNCATED, usage=USAGE) if times < 2 else answered(messages.user)
    )
    job = job_of(budget_usd="0.0025")
    highest = []

    class Watching:
        def __getattr__(self, name):
            highest.append(sum(stack.ledger.spent(stack.ledger.runs()[0].run)) if stack.ledger.runs() else 0)
            return getattr(stack.ledger, name)

    with pytest.raises(RunIncomplete, match="budget"):
        flow.run(stack.ports(ledger=Watching()), job, NIGHT)

    run = stack.ledger.runs()[0]
    reserved, actual = stack.ledger.spent(run.run)
    assert reserved == 0
    assert actual == Decimal(run.books["cost_usd"]) == sum(stack.vendor.billed.values()) * Decimal("0.000015")
    assert max(highest) <= job.budget_usd


def test_settling_at_any_moment_adds_up_and_hinders_nobody() -> None:
    stack = Stack([*RECORDS, ("twin", "text 1")])
    stack.vendor.answer = lambda messages, times: (
        Result("", Outcome.EXPIRED) if messages.user == "text 1" and times < 2 else answered(messages.user)
    )
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    with pytest.raises(RunIncomplete, match="8 with the vendor"):
        flow.finish(stack.ports(), job, plan.run)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    with pytest.raises(RunIncomplete):
        flow.finish(stack.ports(), job, plan.run)

    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)
    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.state, stack.answers()) == ("complete", {**dict(RECORDS), "twin": "text 1"})
    assert {text: times for text, times in stack.vendor.billed.items() if times > 1} == {"text 1": 3}


def test_a_shard_that_comes_back_after_its_round_was_sealed_joins_the_next_one() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, times: Result("", Outcome.EXPIRED) if times == 0 else answered(messages.user)
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    late, *others = plan.shards
    for shard in others:
        flow.advance(stack.ports(), job, shard.ref)
    first = flow.close_round(stack.ports(), job, plan.run, 0)
    flow.advance(stack.ports(), job, late.ref)
    for shard in first.shards:
        flow.advance(stack.ports(), job, shard.ref)
    second = flow.close_round(stack.ports(), job, plan.run, 1)
    for shard in second.shards:
        flow.advance(stack.ports(), job, shard.ref)
    flow.close_round(stack.ports(), job, plan.run, 2)

    books = flow.finish(stack.ports(), job, plan.run)

    assert (books.state, stack.answers()) == ("complete", dict(RECORDS))
    assert sum(shard.rows for shard in second.shards) == 3


def test_a_batch_that_vanished_stops_only_its_shard_and_is_never_sent_again_on_its_own() -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    for shard in plan.shards:
        flow.advance(stack.ports(), job, shard.ref)
    gone = stack.vendor.batches.pop("batch_0")
    later(stack, hours=1)
    stack.provider.ends_at_once = True

    with pytest.raises(RunIncomplete, match="3 with the vendor"):
        flow.run(stack.ports(), job, NIGHT)
    assert (len(stack.answers()), len(stack.vendor.batches)) == (5, 2)
    with pytest.raises(BatchVanished):
        flow.advance(stack.ports(), job, plan.shards[0].ref)

    stack.vendor.batches["batch_0"] = gone
    assert flow.run(stack.ports(), job, NIGHT).state == "complete"
    assert set(stack.vendor.billed.values()) == {1}


def test_an_answer_of_an_older_window_does_not_replace_a_newer_one() -> None:
    stack = Stack([("k", "new")])
    flow.run(stack.ports(), job_of(), NEXT_NIGHT)
    stack.records = [("k", "old")]

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.merged, stack.answers()) == ("complete", 1, {"k": "new"})


def test_people_hear_of_a_deadline_once_each_at_risk_and_late_and_that_it_is_over() -> None:
    stack = Stack(RECORDS[:1])
    stack.provider.ends_at_once = False
    job = job_of(deadline={"after": "4h"}, warn_before="1h", notify={"on": ["at_risk", "late"]})
    waits = []

    def watch(step) -> None:
        waits.append(stack.clock.now())
        later(stack, minutes=10)
        if len(waits) > 30:
            stack.provider.ends_at_once = True

    flow.run(stack.ports(), job, NIGHT, watch=watch)

    assert [message.kind for message in stack.notifier.messages] == ["at_risk", "late", "over"]


def test_a_batch_that_vanished_is_sent_again_when_a_person_forces_it() -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    for shard in plan.shards:
        flow.advance(stack.ports(), job, shard.ref)
    stack.vendor.batches["elsewhere"] = stack.vendor.batches.pop("batch_0")
    later(stack, hours=1)
    stack.provider.ends_at_once = True
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)

    books = flow.run(stack.ports(), job, NIGHT, flow.Options(force="a person"))

    assert (books.run[-2:], books.state, books.unchanged, books.requests) == ("g2", "complete", 5, 3)
    assert stack.answers() == dict(RECORDS)
    assert stack.ledger.spent(plan.run)[0] == 0
    assert stack.ledger.pending("reviews") == []


def test_force_gives_no_batch_up_that_the_vendor_still_knows() -> None:
    stack = Stack(RECORDS)
    stack.provider.ends_at_once = False
    job = job_of()
    plan = flow.prepare(stack.ports(), job, NIGHT)
    for shard in plan.shards:
        flow.advance(stack.ports(), job, shard.ref)
    later(stack, hours=1)

    again = flow.prepare(stack.ports(), job, NIGHT, flow.Options(force="a person"))

    assert again == plan
    assert [shard.state for shard in stack.ledger.shards(plan.run)] == ["open"] * 3


def test_a_request_file_that_is_gone_stops_only_its_shard() -> None:
    stack = Stack(RECORDS)
    plan = flow.prepare(stack.ports(), job_of(), NIGHT)
    stack.store.delete(plan.shards[0].requests_name)

    with pytest.raises(DoesNotAddUp, match=r"s000/requests.jsonl: expected the file that was written, found no such"):
        flow.run(stack.ports(), job_of(), NIGHT)

    assert len(stack.answers()) == 5


def test_answers_that_the_vendor_counts_but_does_not_show_yet_are_waited_for_and_not_bought_again() -> None:
    stack = Stack(RECORDS[:3])
    inner, hidden = stack.provider.poll, [True, True]

    def poll(batch_id):
        state = replace(inner(batch_id), rows_done=3, result_files=("results",))
        return replace(state, result_files=()) if hidden and hidden.pop() else state

    def results(state):
        return stack.provider.__class__.results(stack.provider, state) if state.result_files else iter(())

    stack.provider.poll, stack.provider.results = poll, results

    books = flow.run(stack.ports(), job_of(), NIGHT)

    assert (books.state, books.sent_again, set(stack.vendor.billed.values())) == ("complete", {}, {1})


def with_one_shard_down(job):
    """Run a night in which one shard's batch may not be looked at; gives the stack, where it may again."""
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, times: Result("", Outcome.EXPIRED) if times < 2 else answered(messages.user)
    poll = stack.provider.poll

    def closed(batch_id):
        if batch_id == "batch_0":
            raise BatchVanished("memory", batch_id, since=NIGHT.end)
        return poll(batch_id)

    stack.provider.poll = closed
    with pytest.raises(RunIncomplete, match="3 with the vendor"):
        flow.run(stack.ports(), job, NIGHT)
    stack.provider.poll = poll
    return stack


def test_a_shard_that_was_down_when_its_round_closed_still_gets_all_its_rounds_in_one_more_run() -> None:
    """The message says: mend the cause, then run the window again. Once is enough, also for rows that fail."""
    job = job_of(rounds=2)
    stack = with_one_shard_down(job)

    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.state, stack.answers()) == ("complete", dict(RECORDS))
    assert len(stack.ledger.runs()) == 1, "no second generation was needed"
    assert set(stack.vendor.billed.values()) == {3}


def test_a_row_of_a_late_shard_is_sent_no_more_often_than_any_other() -> None:
    job = job_of(rounds=1)
    stack = with_one_shard_down(job)

    with pytest.raises(RunIncomplete, match="8 expired"):
        flow.run(stack.ports(), job, NIGHT)

    assert set(stack.vendor.billed.values()) == {2}

"""The quality gate: what is too far from usual waits, whole and paid for, until a person releases or discards it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.request import Messages
from nightbatch.core.result import Finish, Outcome, Result
from nightbatch.core.shard import ShardState
from nightbatch.errors import RunDiscarded, RunFailed, RunHeldBack, StaleAttempt
from nightbatch.housekeeping import House, housekeep
from nightbatch.job import Job
from nightbatch.ports import Ports, Run
from nightbatch.steps.audit import audit
from nightbatch.steps.examples import examples
from nightbatch.steps.outcome import Finished
from nightbatch.steps.release import discard, let_go, why
from tests.memory_deaths import Deaths
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of, later
from tests.steps.shards import answered

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
SCHEMA = {
    "type": "object",
    "properties": {"rating": {"type": "string", "enum": ["good", "bad"]}, "why": {"type": "string"}},
    "required": ["rating", "why"],
    "additionalProperties": False,
}
QUALITY = {"min_rows": 3, "max_refused_share": 0.4, "max_shift": 0.3}
SECRET = "SECRET-ANSWER"


def rated_job(**changes: Any) -> Job:
    values: dict[str, Any] = {"answer": {"schema": SCHEMA}, "quality": QUALITY, "notify": {"mail": ["a@example.com"]}}
    return job_of(**{**values, **changes})


def rates(rating: str, why: str = SECRET) -> Callable[[Messages, int], Result]:
    return lambda messages, times: answered(json.dumps({"rating": rating, "why": why}))


def refuses(messages: Messages, times: int) -> Result:
    return Result("", Outcome.ANSWERED, SECRET, Finish.REFUSED, model="echo-1")


class Patient:
    """A vendor whose batches run until it is told that they are over."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.is_over = stack, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stack.provider, name)

    def poll(self, batch_id: str) -> BatchState:
        if self.is_over:
            return self.stack.provider.poll(batch_id)
        return BatchState(batch_id, BatchStatus.RUNNING, "in_progress")


def stand(records: Iterable[tuple[str, str]] = RECORDS) -> Stack:
    stack = Stack(list(records))
    stack.vendor.answer = rates("good")
    return stack


def after_a_good_night() -> Stack:
    """Give a stack whose last run rated all good, with new records."""
    stack = stand()
    flow.run(stack.ports(), rated_job(), NIGHT)
    stack.records = [(f"n{n}", f"new {n}") for n in range(8)]
    later(stack, days=1)
    return stack


def held_back(stack: Stack, window: Any = NEXT_NIGHT, job: Job | None = None) -> Run:
    """Run a night that the gate stops; gives its run."""
    with pytest.raises(RunHeldBack) as ended:
        flow.run(stack.ports(), job or rated_job(), window)
    return stack.ledger.run(ended.value.run_id)


def new_answers(stack: Stack) -> set[str]:
    return {key for key in stack.answers() if key.startswith("n")}


def test_answers_that_are_as_usual_are_loaded() -> None:
    stack = after_a_good_night()

    books = flow.run(stack.ports(), rated_job(), NEXT_NIGHT)

    assert (books.state, books.good, books.held_back) == ("complete", 8, 0)
    assert stack.ledger.gate(books.run, "quality") is None


def test_ratings_that_turned_round_are_not_loaded_and_one_message_says_how(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")

    run = held_back(stack)

    assert new_answers(stack) == set()
    assert (run.state, (run.books or {})["held_back"]) == ("open", 3)
    states = [shard.state for shard in stack.ledger.shards(run.run)]
    assert states == [ShardState.COLLECTED, ShardState.SEALED, ShardState.SEALED]
    gate = stack.ledger.gate(run.run, "quality")
    assert gate is not None
    assert gate.facts["breaches"][0] == (
        "shard r0-s000: rating = bad: 100.0% of 3 answers, 0.0% of 8 in the last good run; "
        "the job allows a change of 30 points"
    )
    (message,) = stack.notifier.messages
    assert message.kind == "held_back"
    assert "rating = bad: 100.0% of 3 answers" in message.happened
    assert message.commands[0] == f"nightbatch release {run.run} --look"
    told = " ".join([caplog.text, str(message), json.dumps([run.books, gate.facts], default=str)])
    assert SECRET not in told


def test_the_first_night_has_nothing_to_compare_with_and_is_held_to_shares_and_ranges() -> None:
    stack = stand()
    stack.vendor.answer = rates("bad", why="x")
    assert flow.run(stack.ports(), rated_job(), NIGHT).state == "complete"

    other = stand()
    other.vendor.answer = rates("good", why="x")
    run = held_back(other, NIGHT, rated_job(quality={**QUALITY, "ranges": {"why": {"min": 2}}}))

    gate = other.ledger.gate(run.run, "quality")
    assert gate is not None
    assert (
        gate.facts["breaches"][0] == "shard r0-s000: why outside 2 to …: 3 of 3 answers (100.0%); the job allows 1.0%"
    )


def test_while_it_is_closed_nothing_is_sent_sorted_or_loaded_and_what_is_under_way_is_collected() -> None:
    stack = stand()
    stack.vendor.answer = refuses
    vendor = Patient(stack)
    ports, job = stack.ports(provider=lambda *_: vendor), rated_job()
    plan = flow.prepare(ports, job, NIGHT)
    first, second, third = (shard.ref for shard in plan.shards)
    for ref in (first, second):
        flow.advance(ports, job, ref)
    vendor.is_over = True

    assert flow.advance(ports, job, first) == Finished("collected")
    assert flow.advance(ports, job, third) == Finished("sealed")
    assert flow.advance(ports, job, second) == Finished("collected")
    assert flow.close_round(ports, job, plan.run, 0).shards == ()
    assert stack.ledger.sealed(plan.run, 1) is None
    with pytest.raises(RunHeldBack):
        flow.finish(ports, job, plan.run)
    assert len(stack.vendor.batches) == 2
    assert stack.sink.dead == {}


def test_a_person_releases_it_and_it_goes_on_where_it_stood_and_pays_for_nothing_again() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)

    let_go(stack.ledger, run, by="a person", now=stack.clock.now())
    books = flow.run(stack.ports(), rated_job(), NEXT_NIGHT)

    assert (books.run, books.state, books.merged) == (run.run, "complete", 8)
    assert len(new_answers(stack)) == 8
    assert set(stack.vendor.billed.values()) == {1}
    assert all(link.holds is not False for link in audit(stack.ports(), rated_job(), stack.ledger.run(run.run)))


def test_what_is_released_is_the_new_usual() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    let_go(stack.ledger, held_back(stack), by="a person", now=stack.clock.now())
    flow.run(stack.ports(), rated_job(), NEXT_NIGHT)
    stack.records = [(f"m{n}", f"newer {n}") for n in range(8)]
    later(stack, days=1)

    books = flow.run(
        stack.ports(), rated_job(), type(NIGHT)(NEXT_NIGHT.end, NEXT_NIGHT.end + (NIGHT.end - NIGHT.start))
    )

    assert books.state == "complete"


def test_refused_rows_get_their_rounds_after_the_release() -> None:
    stack = stand()
    stack.vendor.answer = refuses
    second = {"provider": "openai", "model": "big-1", "connection": "c", "max_output_tokens": 100}
    job = rated_job(models=[{**second, "model": "echo-1"}, second])
    run = held_back(stack, NIGHT, job)
    stack.vendor.answer = rates("good")

    books = flow.run(stack.ports(), job, NIGHT, flow.Options(release="airflow manual__1"))

    assert (books.run, books.state, books.good, books.sent_again) == (run.run, "complete", 8, {"refused": 3})
    assert sorted(stack.vendor.billed.values()) == [1, 1, 1, 1, 1, 2, 2, 2]


def test_a_person_discards_it_and_its_rows_are_dead_letters_that_say_so() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    _, spent = stack.ledger.spent(run.run)

    discard(stack.ledger, run, by="a person", now=stack.clock.now())
    with pytest.raises(RunDiscarded) as ended:
        flow.run(stack.ports(), rated_job(), NEXT_NIGHT)

    assert (ended.value.discarded, ended.value.loaded) == (8, 0)
    assert new_answers(stack) == set()
    assert {letter["reason"] for letter in stack.sink.dead.values()} == {"discarded"}
    assert len(stack.sink.dead) == 8
    assert SECRET in next(iter(stack.sink.dead.values()))["raw_answer"]
    assert stack.ledger.spent(run.run)[1] == spent
    assert stack.ledger.run(run.run).state == "failed"
    assert all(link.holds is not False for link in audit(stack.ports(), rated_job(), stack.ledger.run(run.run)))


def test_discarded_and_forced_it_is_planned_anew_in_one_go() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    stack.vendor.answer = rates("good")

    books = flow.run(stack.ports(), rated_job(), NEXT_NIGHT, flow.Options(force="me", discard="me"))

    assert (books.run, books.state, books.good) == (f"{run.run[:-2]}g2", "complete", 8)
    assert len(new_answers(stack)) == 8
    assert stack.ledger.run(run.run).state == "failed"
    assert stack.sink.dead == {}


def test_dead_letters_that_were_discarded_can_be_sent_again_and_are_held_to_nothing() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    discard(stack.ledger, run, by="a person", now=stack.clock.now())
    with pytest.raises(RunDiscarded):
        flow.run(stack.ports(), rated_job(), NEXT_NIGHT)

    books = flow.run(stack.ports(), rated_job(), NEXT_NIGHT, flow.Options(retry=flow.Ask(("discarded",), "me")))

    assert (books.state, books.from_dead, books.merged) == ("complete", 8, 8)


def test_rows_never_sent_are_discarded_too_and_copies_share_the_fate_of_their_twin() -> None:
    stack = stand([*RECORDS, ("twin", "text 0")])
    stack.vendor.answer = refuses
    ports, job = stack.ports(), rated_job()
    plan = flow.prepare(ports, job, NIGHT)
    flow.advance(ports, job, plan.shards[0].ref)

    discard(stack.ledger, stack.ledger.run(plan.run), by="a person", now=stack.clock.now())
    with pytest.raises(RunDiscarded):
        flow.run(ports, job, NIGHT)

    reasons = sorted((key, letter["reason"]) for (_, key), letter in stack.sink.dead.items())
    assert reasons[:4] == [("k0", "refused"), ("k1", "refused"), ("k2", "refused"), ("k3", "discarded")]
    assert reasons[-1] == ("twin", "refused")
    assert len(stack.vendor.batches) == 1


def test_only_settle_run_again_carries_out_what_a_person_decided() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    ports, job = stack.ports(), rated_job()
    let_go(stack.ledger, run, by="a person", now=stack.clock.now())

    assert flow.advance_late(ports, job, run.run) is None
    assert flow.finish(ports, job, run.run).state == "complete"


def test_a_shard_that_is_not_loaded_yet_is_left_by_a_round_so_that_all_its_rows_can_be_discarded() -> None:
    stack = stand()
    stack.vendor.answer = lambda messages, times: (
        refuses(messages, times) if messages.user == "text 3" else rates("good")(messages, times)
    )
    job = rated_job(rounds=0)
    plan = flow.prepare(stack.ports(), job, NIGHT)
    died = Deaths(stack)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    flow.advance(stack.ports(ledger=died.watched(stack.ledger)), job, plan.shards[1].ref)
    (stack,) = [left for where, left in died if where.endswith("after SqlLedger.note_collected")]

    assert flow.close_round(stack.ports(), job, plan.run, 0).facts["dead"] == {}
    stack.ledger.decide_gate(plan.run, "quality", "stopped", {"breaches": []}, by="", now=stack.clock.now())
    discard(stack.ledger, stack.ledger.run(plan.run), by="a person", now=stack.clock.now())
    with pytest.raises(RunDiscarded):
        flow.run(stack.ports(), job, NIGHT)

    assert {key: letter["reason"] for (_, key), letter in stack.sink.dead.items()} == {
        **dict.fromkeys(("k4", "k5", "k6", "k7"), "discarded"),
        "k3": "refused",
    }
    assert set(stack.answers()) == {"k0", "k1", "k2"}


def test_a_process_that_froze_in_its_merge_loads_nothing_once_the_gate_is_closed() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = lambda messages, times: rates("good" if messages.user < "new 3" else "bad")(messages, times)
    ports, job = stack.ports(), rated_job()
    plan = flow.prepare(ports, job, NEXT_NIGHT)
    frozen, other = plan.shards[0].ref, plan.shards[1].ref

    class Freezes:
        """A sink whose first merge stops in the middle, while the gate is closed by another process."""

        froze = False

        def __getattr__(self, name: str) -> Any:
            return getattr(stack.sink, name)

        def merge(self, context: Any, part: str, batches: Any) -> Any:
            def slowly() -> Any:
                for batch in batches:
                    if not self.froze:
                        self.froze = True
                        assert flow.advance(ports, job, other) == Finished("collected")
                    yield batch

            return stack.sink.merge(context, part, slowly())

    zombie = Freezes()

    assert flow.advance(stack.ports(sink=lambda _: zombie), job, frozen) == Finished("collected")

    assert zombie.froze
    assert new_answers(stack) == set()
    assert stack.ledger.gate(plan.run, "quality") is not None


def test_verdicts_that_were_replaced_meanwhile_are_not_replaced_again() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    shard = stack.ledger.shards(run.run)[0]

    with pytest.raises(StaleAttempt):
        stack.ledger.note_discarded(
            shard.plan.ref, instead_of="other", verdicts_name="x", verdicts_sha256="", counts={}, now=stack.clock.now()
        )


def test_examples_are_of_what_is_different_twenty_at_most_and_only_when_asked_for() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = lambda messages, times: (
        refuses(messages, times) if messages.user == "new 7" else rates("bad")(messages, times)
    )
    run = held_back(stack)
    gate = stack.ledger.gate(run.run, "quality")
    assert gate is not None

    shown = list(examples(stack.ledger, stack.store, gate))
    few = list(examples(stack.ledger, stack.store, gate, most=2))

    assert {one.what for one in shown} == {"rating = bad"}
    assert {one.key for one in shown} <= {f"n{n}" for n in range(7)}
    assert json.loads(shown[0].answer) == {"rating": "bad", "why": SECRET}
    assert len(few) == 2


def test_values_inside_an_array_are_compared_too_and_shown() -> None:
    rating = SCHEMA["properties"]["rating"]
    schema = {"type": "object", "properties": {"moods": {"type": "array", "items": rating}}, "required": ["moods"]}
    job, stack = rated_job(answer={"schema": {**schema, "additionalProperties": False}}), stand()
    for window, moods in ((NIGHT, ["good", "good", "bad"]), (NEXT_NIGHT, ["good", "bad", "bad"])):
        stack.vendor.answer = lambda *_, moods=moods: answered(json.dumps({"moods": moods}))
        if window is NIGHT:
            flow.run(stack.ports(), job, window)
            stack.records = [(f"n{n}", f"new {n}") for n in range(8)]
    run = held_back(stack, job=job)
    gate = stack.ledger.gate(run.run, "quality")
    assert gate is not None

    assert "moods[] = bad: 66.7% of the items in" in why(gate)
    assert [json.loads(one.answer) for one in examples(stack.ledger, stack.store, gate, most=1)] == [{"moods": moods}]


def test_housekeeping_keeps_what_waits_for_a_person_and_sends_no_message_each_day() -> None:
    stack = after_a_good_night()
    stack.vendor.answer = rates("bad")
    run = held_back(stack)
    files = set(stack.store.files)
    told = len(stack.notifier.messages)
    later(stack, days=60)
    ports = stack.ports()

    swept = housekeep(House(stack.ledger, stack.store, stack.clock, lambda _: ports, lambda *_: stack.provider))

    assert swept.waiting == {run.run: "a person, who looks at what the quality gate holds back"}
    assert {name for name in files if name.startswith(f"{run.run}/")} <= set(stack.store.files)
    assert len(stack.notifier.messages) == told


def test_nothing_to_release_or_discard_is_said_in_a_sentence() -> None:
    stack = stand()
    run = stack.ledger.run(flow.run(stack.ports(), rated_job(), NIGHT).run)

    with pytest.raises(RunFailed, match="neither a quality gate nor a canary"):
        let_go(stack.ledger, run, by="a person", now=stack.clock.now())
    with pytest.raises(RunFailed, match="the quality gate holds no answers back"):
        discard(stack.ledger, run, by="a person", now=stack.clock.now())


def test_one_release_opens_canary_and_gate_together() -> None:
    stack = stand()
    stack.vendor.answer = refuses
    job = rated_job(canary={"rows": 3, "max_bad_share": 0.4})
    run = held_back(stack, NIGHT, job)
    assert [gate.kind for gate in let_go(stack.ledger, run, by="a person", now=stack.clock.now())] == [
        "quality",
        "canary",
    ]
    stack.vendor.answer = rates("good")

    books = flow.run(stack.ports(), job, NIGHT)

    assert (books.run, books.state, books.good, books.dead) == (run.run, "complete", 5, {"refused": 3})


@pytest.mark.parametrize("decision", ["released", "discarded"])
def test_killed_at_any_call_and_run_again_it_ends_the_same(decision: str) -> None:
    stack = stand(RECORDS[:4])
    stack.vendor.answer = lambda messages, times: rates("good", "x" * (1 + 99 * (messages.user > "text 2")))(
        messages, times
    )
    job = rated_job(rounds=0, quality={"min_rows": 1, "ranges": {"why": {"max": 50}}, "max_outside_share": 0})
    plan = flow.prepare(stack.ports(), job, NIGHT)
    flow.advance(stack.ports(), job, plan.shards[0].ref)
    deaths = Deaths(stack)
    _to_the_end(stack.ports(**deaths.ports()), job, decision)

    for where, left in deaths:
        _to_the_end(left.ports(), job, decision)

        (run,) = left.ledger.runs()
        loaded, dead = set(left.answers()), {key for _, key in left.sink.dead}
        assert set(left.vendor.billed.values()) == {1}, where
        if decision == "released":
            assert (run.state, loaded, dead) == ("complete", {"k0", "k1", "k2", "k3"}, set()), where
        else:
            assert (run.state, loaded, dead) == ("failed", {"k0", "k1", "k2"}, {"k3"}), where
        assert [str(link) for link in left.ledger.proof(run.run) if link.holds is False] == [], where
    assert len(deaths) > 15


def _to_the_end(ports: Ports, job: Job, decision: str) -> None:
    """Run a window as people do: once, then a decision, then again."""
    with suppress(RunDiscarded):
        try:
            flow.run(ports, job, NIGHT)
        except RunHeldBack as held:
            run = ports.ledger.run(held.run_id)
            (let_go if decision == "released" else discard)(ports.ledger, run, by="a person", now=ports.clock.now())
            flow.run(ports, job, NIGHT)

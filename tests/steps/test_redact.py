"""Redact: what leaves holds pseudonyms, also in retries, the next run and a trial; what is loaded holds originals."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightbatch import flow
from nightbatch.core.ids import ShardRef
from nightbatch.core.redaction import PSEUDONYM
from nightbatch.core.request import Messages
from nightbatch.core.result import Finish, Outcome, Result
from nightbatch.errors import JobInvalid, RunIncomplete
from nightbatch.steps.planning import Options
from nightbatch.steps.redact import KEY, key_of
from nightbatch.steps.trial import trials
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of
from tests.steps.shards import USAGE

EMAIL = r"[\w.+-]+@[\w-]+(\.[\w-]+)+"
REDACT = {"patterns": {"email": EMAIL}}
TEXTS = [f"mail k{number}@planted.example today" for number in range(5)]
RECORDS = [(f"k{number}", text) for number, text in enumerate(TEXTS)]


def sent(stack: Stack) -> str:
    """Give all that ever reached the vendor."""
    return b"".join(line for batch in stack.vendor.batches.values() for line in batch.lines).decode()


def said(messages: Messages, finish: Finish = Finish.DONE) -> Result:
    """Answer with the question."""
    return Result("", Outcome.ANSWERED, messages.user, finish=finish, usage=USAGE, model="echo-1")


def holders(stack: Stack) -> set[str]:
    """Name the kinds of files between the steps that hold an original."""
    found = set()
    for name in stack.store.names(""):
        content = stack.store.read(name)
        text = str(pq.read_table(pa.BufferReader(content)).to_pylist()) if name.endswith("parquet") else str(content)
        if "planted" in text:
            found.add(name.rsplit("/", 1)[-1])
    return found


def test_nothing_that_matches_is_sent_and_every_answer_is_whole() -> None:
    stack = Stack(RECORDS)

    flow.run(stack.ports(), job_of(redact=REDACT), NIGHT)

    assert stack.answers() == dict(RECORDS)
    assert "planted" not in sent(stack)
    assert len(PSEUDONYM.findall(sent(stack))) == 5
    assert holders(stack) == {"index.parquet"}


def test_rows_that_are_asked_again_or_wait_for_the_next_run_stay_hidden_and_come_back_whole() -> None:
    stack = Stack(RECORDS)
    job = job_of(redact=REDACT, rounds=1)
    asked: list[str] = []

    def answer(messages: Messages, times: int) -> Result:
        asked.append(messages.user)
        row = sorted(set(asked)).index(messages.user)
        return Result("", Outcome.EXPIRED) if row < 2 or (row == 2 and times == 0) else said(messages)

    stack.vendor.answer = answer
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job, NIGHT)
    assert holders(stack) == {"index.parquet", "pending.parquet"}
    stack.vendor.answer = lambda messages, _: said(messages)
    stack.records = []
    flow.run(stack.ports(), job, NEXT_NIGHT)

    assert stack.answers() == dict(RECORDS)
    assert "planted" not in sent(stack)


def test_dead_letters_hold_pseudonyms_and_come_back_whole_when_they_are_sent_again() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda messages, _: said(messages, finish=Finish.TRUNCATED)
    flow.run(stack.ports(), job_of(redact=REDACT, rounds=0), NIGHT)
    letters = [row["raw_answer"] for row in stack.sink.dead.values()]
    assert len(letters) == 5
    assert "planted" not in str(letters)
    assert all(PSEUDONYM.search(letter) for letter in letters)

    stack.vendor.answer = lambda messages, _: said(messages)
    ask = flow.Ask(("truncated",), asked_by="a test")
    # The job file has lost its redaction meanwhile: these are asked as they were.
    flow.run(stack.ports(), job_of(rounds=0), NIGHT, Options(retry=ask))

    assert stack.answers() == dict(RECORDS)
    assert "planted" not in sent(stack)


def test_the_next_run_has_the_same_key_so_what_did_not_change_is_not_asked_again() -> None:
    stack = Stack(RECORDS)
    job = job_of(redact=REDACT)
    flow.run(stack.ports(), job, NIGHT)
    bodies = sent(stack)

    flow.run(stack.ports(), job, NEXT_NIGHT)

    plans = [stack.ledger.sealed(run.run, 0) for run in stack.ledger.runs(job=job.name)]
    assert len({plan.facts[KEY] for plan in plans if plan}) == 1
    assert [plan.facts["counts"]["unchanged"] for plan in plans if plan] == [5, 0]
    assert sent(stack) == bodies


def test_a_job_that_redacts_nothing_has_no_key_and_writes_no_originals() -> None:
    stack = Stack(RECORDS)

    plan = flow.prepare(stack.ports(), job_of(), NIGHT)

    assert KEY not in plan.facts
    assert key_of(stack.ports(), job_of()) == ""
    index = pq.read_table(pa.BufferReader(stack.store.read(plan.shards[0].index_name)))
    assert index.column("originals").null_count == index.num_rows


def test_records_that_were_left_pending_before_a_pattern_came_are_hidden_from_then_on() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = lambda *_: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(rounds=0), NIGHT)
    before = len(sent(stack))
    stack.vendor.answer = lambda messages, _: said(messages)
    stack.records = []

    flow.run(stack.ports(), job_of(rounds=0, redact=REDACT), NEXT_NIGHT)

    assert "planted" not in sent(stack)[before:]
    assert stack.answers() == dict(RECORDS)


def test_an_answer_gets_back_only_what_its_own_record_held() -> None:
    """A record that names another one's pseudonym, and a model that says it, learn nothing of it."""
    stack = Stack([("victim", "I am ada@planted.example")])
    job = job_of(redact=REDACT)
    flow.run(stack.ports(), job, NIGHT)
    [stolen] = PSEUDONYM.findall(sent(stack))
    stack.records = [("thief", f"I am eve@thief.example; what is {stolen}?")]

    flow.run(stack.ports(), job, NEXT_NIGHT)

    assert stack.answers()["thief"] == f"I am eve@thief.example; what is {stolen}?"


def names_of(text: str) -> Iterable[tuple[int, int]]:
    """Find Ada; trip over Eve."""
    if "Eve" in text:
        raise KeyError(text)
    at = text.find("Ada")
    return [(at, at + 3)] if at >= 0 else []


def test_a_record_that_a_function_fails_at_is_a_dead_letter_and_never_sent() -> None:
    stack = Stack([("a", "Ada was here"), ("b", "Eve was here"), ("c", "nobody"), ("d", "out of bounds")])
    job = job_of(redact={"functions": {"person": "own.names"}})

    flow.run(stack.ports(function=lambda _: names_of), job, NIGHT)

    assert stack.answers() == {"a": "Ada was here", "c": "nobody", "d": "out of bounds"}
    assert "Ada" not in sent(stack)
    assert "Eve" not in sent(stack)
    [letter] = stack.sink.dead.values()
    told = (letter["key"], letter["reason"], letter["detail"])
    assert told == ("b", "bad_record", "redact.functions.person: KeyError")


@pytest.mark.parametrize("found", [[(0, 99)], [(3, 3)], [(-1, 2)], [(0,)], "no spans", None, [("0", "1")]])
def test_what_is_no_span_of_the_text_hides_nothing_and_sends_nothing(found: object) -> None:
    stack = Stack([("a", "Ada was here")])

    flow.run(stack.ports(function=lambda _: lambda _text: found), job_of(redact={"functions": {"x": "own.f"}}), NIGHT)

    assert sent(stack) == ""
    assert len(stack.sink.dead) == 1


def test_a_function_that_may_not_be_called_stops_the_run_before_a_record_is_read() -> None:
    def refused(name: str) -> object:
        raise JobInvalid(name, [])

    stack = Stack(RECORDS)

    with pytest.raises(JobInvalid):
        flow.run(stack.ports(function=refused), job_of(redact={"functions": {"x": "os.system"}}), NIGHT)

    assert (sent(stack), stack.ledger.shards("reviews")) == ("", [])


def test_a_trial_in_real_time_sends_pseudonyms_too() -> None:
    stack = Stack(RECORDS)

    shown = list(trials(stack.ports(), job_of(redact=REDACT), NIGHT, count=2))

    assert [one.result.text == one.messages.user for one in shown if one.result and one.messages] == [True, True]
    assert "planted" not in str(shown)


def test_an_index_of_an_older_version_is_read_as_one_without_originals() -> None:
    stack = Stack(RECORDS)
    job = job_of(shard={"max_rows": 10})
    plan = flow.prepare(stack.ports(), job, NIGHT)
    name = plan.shards[0].index_name
    table = pq.read_table(pa.BufferReader(stack.store.read(name))).drop_columns(["originals"])
    with stack.store.writer(name) as file:
        pq.write_table(table, file)
    ref = ShardRef(plan.run, 0, 0)

    while isinstance(outcome := flow.advance(stack.ports(), job, ref), flow.Waiting):
        stack.clock.advance(outcome.until - stack.clock.now())

    assert stack.answers() == dict(RECORDS)

"""A second chance: dead letters are sent again, they alone and once, and settle against the run that buried them."""

from __future__ import annotations

import pytest

from nightbatch import flow
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.errors import NothingToRetry, RunFailed, RunIncomplete, RunOverlaps
from nightbatch.steps.letters import by_reason, standing
from tests.memory_deaths import Deaths
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of
from tests.steps.shards import USAGE, answered

RECORDS = [(f"k{n}", f"text {n}") for n in range(8)]
CUT = Result("", Outcome.ANSWERED, "te", Finish.TRUNCATED, usage=USAGE, model="echo-1")
REFUSED = Result("", Outcome.ANSWERED, "no", Finish.REFUSED, usage=USAGE, model="echo-1")
BAD = Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="context_length_exceeded")
EXPIRED = Result("", Outcome.EXPIRED)
MODELS = [
    {"provider": "openai", "model": name, "connection": "c", "max_output_tokens": 100} for name in ("echo-1", "big-1")
]


def answers_with(**bad: Result):
    """Give a vendor that answers `text 3` with `t3`, and every other question well."""
    return lambda messages, _: bad.get(f"t{messages.user.split()[1]}") or answered(messages.user)


def echo(messages, _times):
    return answered(messages.user)


def after(job=None, **bad: Result) -> Stack:
    """Give an installation whose first night ended like this."""
    stack = Stack([*RECORDS, ("twin", "text 1"), ("", "no key")])
    stack.vendor.answer = answers_with(**bad)
    flow.run(stack.ports(), job or job_of(rounds=1), NIGHT)
    stack.vendor.answer = echo
    return stack


def ask(*reasons: str, by: str = "me", **more) -> flow.Options:
    return flow.Options(retry=flow.Ask(reasons, by, **more))


def latest(stack: Stack):
    return max(stack.ledger.runs(), key=lambda run: (run.window.end, run.generation))


def groups(stack: Stack):
    return {
        (group.reason, group.can_be_sent): group.rows for group in by_reason(standing(stack.ports(), latest(stack)))
    }


def test_dead_letters_are_sent_again_they_alone_and_a_copy_gets_its_twins_answer() -> None:
    stack = after(t1=BAD, t2=CUT)
    billed = dict(stack.vendor.billed)

    books = flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("invalid_request"))

    assert (books.state, books.from_dead, books.requests, books.duplicates, books.merged) == ("complete", 2, 1, 1, 2)
    assert (books.pulled, stack.reads) == (0, 1)
    assert {key for key in stack.vendor.billed if stack.vendor.billed[key] != billed.get(key)} == {"text 1"}
    assert {key: stack.answers()[key] for key in ("k1", "twin")} == {"k1": "text 1", "twin": "text 1"}


def test_what_succeeds_leaves_the_dead_letters_and_what_does_not_stays() -> None:
    stack = after(t1=BAD, t2=CUT, t3=REFUSED)
    stack.vendor.answer = answers_with(t2=CUT)

    flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))

    assert sorted(key for _, key in stack.sink.dead if key in stack.answers()) == []
    assert {key for _, key in stack.sink.dead} == {"k2", "(no key) (bad record 1)"}
    assert groups(stack) == {("truncated", True): 1, ("bad_key", False): 1}


def test_what_a_retry_costs_is_told_by_reason_and_its_worst_case_holds() -> None:
    stack = after(t1=BAD, t2=CUT, t3=CUT)
    told = {group.reason: group for group in by_reason(standing(stack.ports(), latest(stack)))}

    plan = flow.prepare(stack.ports(), job_of(rounds=1), NIGHT, ask("truncated"))

    assert (told["truncated"].rows, told["truncated"].requests) == (2, 2)
    assert (told["invalid_request"].rows, told["invalid_request"].requests) == (2, 1)
    assert (told["bad_key"].rows, told["bad_key"].requests) == (1, 0)
    sealed = sum(shard.worst_usd for shard in plan.shards)
    assert 0 < told["truncated"].expected_usd < sealed <= told["truncated"].worst_usd < 2 * sealed


def test_a_cut_off_answer_gets_twice_the_cap_it_had_and_a_given_cap_stands() -> None:
    stack = after(t2=CUT)
    doubled = flow.look_ahead(stack.ports(), job_of(rounds=1), NIGHT, ask("truncated"))
    given = flow.look_ahead(stack.ports(), job_of(rounds=1), NIGHT, ask("truncated", max_output_tokens=900))

    assert (doubled.output_tokens_cap, given.output_tokens_cap) == (400, 900)
    assert latest(stack).generation == 1


def test_another_model_is_asked_with_its_own_cap() -> None:
    stack = after(t2=CUT)

    books = flow.run(
        stack.ports(), job_of(rounds=1), NIGHT, flow.Options(model="big-1", retry=flow.Ask(("truncated",), "me"))
    )

    (shard,) = stack.ledger.shards(books.run)
    assert (shard.plan.model, shard.plan.max_output_tokens) == ("big-1", 100)
    assert stack.answers()["k2"] == "text 2"


def test_the_hint_of_an_earlier_round_is_not_sent_along() -> None:
    stack = after(t2=Result("", Outcome.ANSWERED, " ", usage=USAGE))
    asked: list[str] = []
    stack.vendor.answer = lambda messages, _: asked.append(messages.user) or answered(messages.user)

    flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("empty_answer"))

    assert asked == ["text 2"]


def test_the_next_night_finds_the_answer_and_asks_nothing() -> None:
    stack = after(t2=CUT)
    flow.run(stack.ports(), job_of(rounds=1), NIGHT, flow.Options(model="big-1", retry=flow.Ask(("truncated",), "me")))

    books = flow.run(stack.ports(), job_of(rounds=1), NEXT_NIGHT)

    assert (books.unchanged, books.requests, books.unrenderable) == (9, 0, 1)


# --- settling against the old run -----------------------------------------------------------------------------


def test_a_failed_run_is_complete_when_its_dead_letters_succeed() -> None:
    job = job_of(rounds=0, max_dead_share=0.2)
    stack = Stack(RECORDS)
    stack.vendor.answer = answers_with(t1=BAD, t2=BAD, t3=CUT)
    with pytest.raises(RunFailed, match="3 of 8 rows are dead letters"):
        flow.run(stack.ports(), job, NIGHT)
    stack.vendor.answer = answers_with(t1=BAD)

    with pytest.raises(RunFailed, match="nightbatch retry"):
        stack.vendor.answer = answers_with(t1=BAD, t2=BAD)
        flow.run(stack.ports(), job, NIGHT, ask("invalid_request"))
    stack.vendor.answer = answers_with(t1=BAD)
    books = flow.run(stack.ports(), job, NIGHT, ask("all", by="me again"))

    # One of eight is dead in the end, whatever way it took.
    assert (books.state, books.from_dead, books.good, books.dead) == ("complete", 3, 2, {"invalid_request": 1})
    assert [one["rows"] for one in books.letters] == [1]


def test_rows_that_expire_in_a_retry_are_pending_and_go_on_like_any_other() -> None:
    stack = after(t1=BAD)
    stack.vendor.answer = lambda *_: EXPIRED
    with pytest.raises(RunIncomplete, match="2 rows are pending"):
        flow.run(stack.ports(), job_of(rounds=1, max_dead_share=0.2), NIGHT, ask("invalid_request"))
    stack.vendor.answer = echo

    books = flow.run(stack.ports(), job_of(rounds=1, max_dead_share=0.2), NIGHT)

    assert (books.state, books.from_pending, books.merged) == ("complete", 2, 2)
    assert {key for _, key in stack.sink.dead} == {"(no key) (bad record 1)"}


def test_pending_rows_of_the_old_run_are_not_sent_along_and_the_window_is_not_done_without_them() -> None:
    stack = Stack(RECORDS)
    stack.vendor.answer = answers_with(t1=BAD, t2=EXPIRED)
    with pytest.raises(RunIncomplete):
        flow.run(stack.ports(), job_of(rounds=0), NIGHT)
    stack.vendor.answer = echo

    with pytest.raises(RunIncomplete, match="1 left by an earlier generation"):
        flow.run(stack.ports(), job_of(rounds=0), NIGHT, ask("all"))
    assert set(stack.answers()) == {key for key, _ in RECORDS} - {"k2"}

    assert flow.run(stack.ports(), job_of(rounds=0), NIGHT).state == "complete"
    assert set(stack.answers()) == {key for key, _ in RECORDS}
    assert stack.reads == 1


def test_a_record_that_was_answered_meanwhile_is_not_asked_again() -> None:
    stack = after(t1=BAD, t2=CUT)
    stack.records = [("k1", "text 1"), ("k2", "text 2, newer")]
    flow.run(stack.ports(), job_of(rounds=1), NEXT_NIGHT)
    sent = len(stack.vendor.batches)

    books = flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))

    # The copy of k1 was answered by nobody.
    assert (books.from_dead, books.superseded, books.requests, books.merged) == (3, 2, 1, 1)
    assert len(stack.vendor.batches) == sent + 1
    assert (stack.answers()["k2"], stack.answers()["twin"]) == ("text 2, newer", "text 1")


# --- once, whatever dies --------------------------------------------------------------------------------------


def test_the_same_asker_is_heard_once() -> None:
    stack = after(t1=BAD)
    first = flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))

    again = flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))

    assert (again.run, again.cost_usd) == (first.run, first.cost_usd)
    assert latest(stack).generation == 2


@pytest.mark.parametrize("looks", [True, False], ids=["somebody looks", "nobody looks"])
def test_killed_at_any_call_of_its_planning_and_run_again_it_pays_once(looks: bool) -> None:
    """Whoever looks at the window meanwhile goes on with the retry, or finds the old run."""
    whole = after(t1=BAD, t2=CUT)
    deaths = Deaths(whole)
    flow.prepare(whole.ports(**deaths.ports()), job_of(rounds=1), NIGHT, ask("all"))
    flow.run(whole.ports(), job_of(rounds=1), NIGHT, ask("all"))
    for where, stack in deaths:
        if looks:
            flow.run(stack.ports(), job_of(rounds=1), NIGHT)

        books = flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))
        assert books.state == "complete", where
        assert stack.answers() == whole.answers(), where
        assert stack.vendor.billed == whole.vendor.billed, where
        assert {key for _, key in stack.sink.dead} == {"(no key) (bad record 1)"}, where
    assert len(deaths) > 2


# --- what can not be sent again -------------------------------------------------------------------------------


def test_records_that_were_never_rendered_are_named_and_not_sent() -> None:
    stack = after()

    with pytest.raises(NothingToRetry, match=r"no dead letter of reason bad_key stands .* 1 more were never rendered"):
        flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("bad_key"))
    assert latest(stack).generation == 1


def test_letters_whose_files_are_gone_are_not_sent_and_it_says_what_to_do() -> None:
    stack = after(t1=BAD)
    for name in [name for name in stack.store.files if "dead_letters" in name]:
        stack.store.delete(name)

    with pytest.raises(NothingToRetry, match=r"no longer in the staging folder .* with force"):
        flow.run(stack.ports(), job_of(rounds=1), NIGHT, ask("all"))
    assert latest(stack).generation == 1


def test_an_open_run_is_waited_for() -> None:
    stack = Stack(RECORDS)
    flow.prepare(stack.ports(), job_of(), NIGHT)

    with pytest.raises(RunOverlaps):
        flow.prepare(stack.ports(), job_of(), NIGHT, ask("all"))


def test_a_window_that_never_ran_has_nothing_to_retry() -> None:
    with pytest.raises(NothingToRetry, match="never planned"):
        flow.prepare(Stack(RECORDS).ports(), job_of(), NIGHT, ask("all"))

"""Retry: each row that is not good gets exactly one fate, and a sealed round stays as it is."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch import flow
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.steps.parquet import TEXTS_AT_A_TIME, read_rows
from nightbatch.steps.retry import retry
from tests.memory_stack import NIGHT, job_of
from tests.steps.shards import UNHURRIED, USAGE, answered, stack_of

ROWS = 7
RESULTS = {
    "good": answered("fine"),
    "expired": Result("", Outcome.EXPIRED),
    "transient": Result("", Outcome.ERRORED, error_kind=ErrorKind.TRANSIENT, error_code="500"),
    "permanent": Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code="400"),
    "account": Result("", Outcome.ERRORED, error_kind=ErrorKind.ACCOUNT, error_code="no credit"),
    "truncated": Result("", Outcome.ANSWERED, "fi", Finish.TRUNCATED, usage=USAGE),
    "refused": Result("", Outcome.ANSWERED, "no", Finish.REFUSED, usage=USAGE),
    "empty": Result("", Outcome.ANSWERED, "  ", usage=USAGE),
}
endings = st.lists(st.sampled_from(sorted(RESULTS)), min_size=ROWS, max_size=ROWS)
MODELS = [
    {"provider": "openai", "model": name, "connection": "c", "max_output_tokens": 100} for name in ("echo-1", "big-1")
]


def collected(how, *, models=1):
    """Run round 0 with these endings; gives the installation, the job, and the run."""
    stack, job = stack_of(len(how)), job_of(models=MODELS[:models])
    stack.records.append(("copy", "text 0"))
    stack.vendor.answer = lambda messages, _: RESULTS[how[int(messages.user.split()[1])]]
    plan = flow.prepare(stack.ports(), job, NIGHT)
    # All are sent before an answer comes: one that tells of account trouble holds back what is not sent yet.
    for stack.provider.ends_at_once in (False, True):
        for shard in plan.shards:
            flow.advance(stack.ports(), job, shard.ref)
    return stack, job, plan.run


def keys_in(stack, name):
    return [key for (key,) in read_rows(stack.store, name, ("key",))] if name else []


@UNHURRIED
@given(endings, st.integers(1, 2), st.booleans())
def test_each_bad_row_gets_exactly_one_fate(how, models, has_rounds) -> None:
    stack, job, run = collected(how, models=models)

    plan = retry(stack.ports(), job, run, seals=1, has_rounds=has_rounds)

    sent = [key for shard in plan.shards for key in keys_in(stack, shard.index_name)]
    dead, pending = keys_in(stack, plan.facts["dead_name"]), keys_in(stack, plan.facts["pending_name"])
    bad = {f"k{row}" for row, ending in enumerate(how) if ending != "good"}
    assert sorted([*sent, *(key for key in [*dead, *pending] if key != "copy")]) == sorted(bad)
    # A copy shares its twin's end, and follows it where it is sent again.
    assert [*dead, *pending].count("copy") == int("k0" in [*dead, *pending])
    facts = plan.facts
    assert sum(facts["sent_again"].values()) == len(sent)
    assert sum(facts["dead"].values()) + facts["copies_dead"] == len(dead)
    assert sum(facts["pending"].values()) + facts["copies_pending"] == len(pending)
    assert has_rounds or not sent


def test_a_sink_takes_dead_letters_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2 * TEXTS_AT_A_TIME + 1
    stack, job, run = collected(["permanent"] * count)
    bury, sizes = stack.sink.bury, []

    def noting(context, part, batches):
        some = list(batches)
        sizes.extend(batch.num_rows for batch in some)
        return bury(context, part, some)

    monkeypatch.setattr(stack.sink, "bury", noting)

    retry(stack.ports(), job, run, seals=1, has_rounds=True)

    assert max(sizes) <= TEXTS_AT_A_TIME
    assert sum(sizes) == count + 1  # and the copy


@UNHURRIED
@given(endings)
def test_what_is_sealed_stays_whoever_asks_again(how) -> None:
    stack, job, run = collected(how)
    first = retry(stack.ports(), job, run, seals=1, has_rounds=True)
    dead = dict(stack.sink.dead)

    second = retry(stack.ports(), job, run, seals=1, has_rounds=False)

    assert second == first
    assert stack.sink.dead == dead


def test_a_row_is_asked_again_as_it_is_or_with_what_helps_it() -> None:
    stack, job, run = collected(["expired", "truncated", "empty", "good", "good", "good", "good"])

    plan = retry(stack.ports(), job, run, seals=1, has_rounds=True)

    asked = {keys_in(stack, shard.index_name)[0]: shard for shard in plan.shards}
    assert {key: (shard.max_output_tokens, bool(shard.hint)) for key, shard in asked.items()} == {
        "k0": (100, False),
        "k1": (200, False),
        "k2": (100, True),
    }


def test_a_round_that_breaks_off_leaves_no_half_file_and_nothing_open() -> None:
    """Breaks off at the nth file that it opens or finishes, for every n."""
    nth, broke = 0, True
    while broke:
        nth += 1
        stack, job, run = collected(["expired", "truncated", "empty", "permanent", *["expired"] * 3])
        before = set(stack.store.files)
        files = BreaksOff(stack.store, nth)
        try:
            retry(stack.ports(store=files), job, run, seals=1, has_rounds=True)
            broke = False
        except OSError:
            assert set(stack.store.files) - before == files.whole, nth

        assert files.open == [], nth
    assert nth > 16


class BreaksOff:
    """A store whose disk is full at the nth opening or finishing of a file."""

    def __init__(self, store, nth):
        self.store, self.left, self.open, self.whole = store, nth, [], set()

    def __getattr__(self, name):
        return getattr(self.store, name)

    def _count(self):
        self.left -= 1
        if self.left == 0:
            raise OSError("the disk is full")

    @contextmanager
    def writer(self, name):
        self._count()
        with self.store.writer(name) as file:
            self.open.append(name)
            try:
                yield file
                self._count()
                self.whole.add(name)
            finally:
                self.open.remove(name)


def test_what_one_model_refuses_goes_to_the_next() -> None:
    stack, job, run = collected(["refused", "permanent", *["good"] * 5], models=2)

    plan = retry(stack.ports(), job, run, seals=1, has_rounds=True)

    assert {shard.model for shard in plan.shards} == {"big-1"}
    assert plan.facts["sent_again"] == {"refused": 1, "invalid_request": 1}

"""Pack: every question ends in exactly one count, and no shard breaks a limit."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.memory import MemoryStore
from nightbatch.core.ids import custom_id_prefix, row_of, run_code
from nightbatch.core.request import Endpoint, Messages
from nightbatch.core.verdict import Reason
from nightbatch.steps.fill import ShardFiller, numbers
from nightbatch.steps.lanes import body_of, open_lane
from nightbatch.steps.pack import pack as packing
from nightbatch.steps.parquet import read_rows
from nightbatch.steps.pull import Question, Tally
from nightbatch.steps.seen import seen
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of
from tests.steps.shards import UNHURRIED

PORTS = Stack([]).ports()
MAX_BYTES = 1_000
texts = st.text("ab\n\u2028é", max_size=400)
asked = st.builds(
    Question,
    st.sampled_from(["k1", "k2", "k3", "k4", "k5", "k6"]),
    st.builds(Messages, st.just(""), texts),
    was_pending=st.booleans(),
)
bad = st.builds(
    Question, st.sampled_from(["", "k1", "k9"]), st.none(), st.sampled_from([Reason.BAD_KEY, Reason.BAD_RECORD])
)
questions = st.lists(asked | bad, max_size=25)


def pack(found, *, max_rows=3, known=()):
    """Pack questions, in two chunks, into a store of their own."""
    return pack_chunks([found[:7], found[7:]], max_rows=max_rows, known=known)


def pack_chunks(chunks, *, max_rows=3, known=()):
    job = job_of(shard={"max_rows": max_rows, "max_bytes": MAX_BYTES})
    store, tally = MemoryStore(), Tally()
    filler = ShardFiller(store, open_lane(PORTS, job, 0), ledger="a" * 32, folder="f", numbers=numbers("run", 0))
    with seen() as memory:
        memory.learn(known)
        packed = packing(
            [[replace(one) for one in chunk] for chunk in chunks], filler, store, "f", seen=memory, tally=tally
        )
    return store, tally, packed


def rows_in(store, name, columns):
    return list(read_rows(store, name, columns)) if name else []


@UNHURRIED
@given(questions, st.integers(1, 4))
def test_every_question_ends_in_exactly_one_place(found, max_rows) -> None:
    store, tally, packed = pack(found, max_rows=max_rows)

    counts = asdict(tally)
    reasons = counts.pop("dead_reasons")
    assert sum(counts.values()) == len(found)
    assert sum(reasons.values()) == tally.unrenderable
    sent = [row for plan in packed.shards for row in rows_in(store, plan.index_name, ("key", "fingerprint"))]
    copies = rows_in(store, packed.duplicates_name, ("key", "fingerprint", "twin_key"))
    dead = rows_in(store, packed.dead_name, ("key",))
    assert (len(sent), len(copies), len(dead)) == (tally.requests, tally.duplicates, tally.unrenderable)
    assert len(set(dead)) == len(dead)
    assert len({key for key, *_ in [*sent, *copies]}) == len(sent) + len(copies)
    assert len({print_ for _, print_ in sent}) == len(sent)
    assert all((twin, print_) in sent for _, print_, twin in copies)


@UNHURRIED
@given(questions, st.integers(1, 4))
def test_no_shard_breaks_a_limit_and_what_was_sealed_is_what_is_there(found, max_rows) -> None:
    store, _, packed = pack(found, max_rows=max_rows)

    for number, plan in enumerate(packed.shards):
        content = store.files[plan.requests_name]
        lines = content.split(b"\n")[:-1]
        assert plan.ref.shard == number
        assert 0 < plan.rows == len(lines) <= max_rows
        assert plan.size_bytes == len(content) <= MAX_BYTES
        assert plan.content_sha256 == hashlib.sha256(content).hexdigest()
        custom_ids = [json.loads(line)["custom_id"] for line in lines]
        prefix = custom_ids[0].removesuffix("0")
        assert [row_of(custom_id, prefix) for custom_id in custom_ids] == list(range(len(lines)))


@UNHURRIED
@given(questions, st.integers(1, 4), st.lists(st.integers(0, 25)))
def test_chunks_change_nothing_and_what_is_written_is_what_the_plain_way_writes(found, max_rows, cuts) -> None:
    ends = [*sorted(cuts), len(found)]
    chunks = [found[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    by_chunks, by_one = (pack_chunks(way, max_rows=max_rows) for way in (chunks, [[one] for one in found]))

    assert by_chunks[1:] == by_one[1:]
    assert by_chunks[0].files == by_one[0].files
    store, _, packed = by_chunks
    encoder = open_lane(PORTS, job_of(), 0).encoder
    asked = {question.key: question.messages for question in reversed(found) if question.messages}
    for plan in packed.shards:
        prefix = custom_id_prefix("a" * 32, run_code("run"), 0, plan.ref.shard)
        index = rows_in(store, plan.index_name, ("key", "fingerprint"))
        bodies = [body_of(encoder, encoder.decode(line)) for line in store.files[plan.requests_name].splitlines()]
        plain = [encoder.envelope.line(f"{prefix}{row}", body) for row, body in enumerate(bodies)]
        assert store.files[plan.requests_name] == b"".join(plain)
        assert [print_ for _, print_ in index] == [
            hashlib.sha256(Endpoint.CHAT.value.encode() + b"\n" + body).hexdigest() for body in bodies
        ]
        assert all(key in asked for key, _ in index)


def test_the_first_record_of_a_run_owns_its_key() -> None:
    good, bad_record = Question("k1", Messages("", "a")), Question("k1", None, Reason.BAD_RECORD)

    after, before = pack([good, bad_record]), pack([bad_record, good])

    assert [rows_in(store, packed.dead_name, ("key", "reason")) for store, _, packed in (after, before)] == [
        [("k1 (bad record 1)", "bad_record")],
        [("k1", "bad_record"), ("k1 (bad record 2)", "duplicate_key")],
    ]


def test_what_the_sink_holds_already_is_not_sent() -> None:
    first = Question("k1", Messages("", "a"))
    store, _, packed = pack([first])
    known = [(*row, NIGHT.end) for row in rows_in(store, packed.shards[0].index_name, ("key", "fingerprint"))]

    _, tally, packed = pack([first, Question("k2", Messages("", "b"))], known=known)

    assert (tally.unchanged, tally.requests) == (1, 1)


def test_a_pending_row_gives_way_to_the_windows_own_record() -> None:
    new, old = Question("k1", Messages("", "new")), Question("k1", Messages("", "old"), was_pending=True)

    _, tally, _ = pack([new, old])

    assert (tally.requests, tally.superseded, tally.unrenderable) == (1, 1, 0)


@pytest.mark.parametrize(("answered", "superseded"), [(NIGHT, 0), (NEXT_NIGHT, 1)])
def test_a_pending_row_gives_way_to_an_answer_of_a_later_window_only(answered, superseded) -> None:
    old = Question("k1", Messages("", "old"), was_pending=True, window_end=NIGHT.end)

    _, tally, _ = pack([old], known=[("k1", "print of another question", answered.end)])

    assert (tally.requests, tally.superseded) == (1 - superseded, superseded)


def test_a_question_that_no_shard_could_hold_is_a_dead_letter() -> None:
    store, tally, packed = pack([Question("k1", Messages("", "x" * MAX_BYTES))])

    assert (tally.requests, packed.shards, tally.dead_reasons) == (0, (), {"too_large": 1})
    assert rows_in(store, packed.dead_name, ("key", "reason")) == [("k1", "too_large")]


def test_a_source_that_breaks_off_leaves_no_half_file() -> None:
    def broken():
        yield [Question("k1", Messages("", "a"))]
        raise OSError("the source went away")

    store, tally = MemoryStore(), Tally()
    filler = ShardFiller(store, open_lane(PORTS, job_of(), 0), ledger="a" * 32, folder="f", numbers=numbers("run", 0))
    with seen() as memory, pytest.raises(OSError, match="went away"):
        packing(broken(), filler, store, "f", seen=memory, tally=tally)

    assert store.files == {}

"""Pull: each record read is kept, left out and counted, or bad with a reason."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.memory import MemorySource, MemoryStore
from nightbatch.core.verdict import Reason
from nightbatch.ports import Chunk, PendingFile
from nightbatch.steps.parquet import row_writer
from nightbatch.steps.pull import MAX_KEY_CHARS, Tally, pull, pull_pending
from nightbatch.steps.retry import PENDING_SCHEMA
from tests.memory_stack import NIGHT, job_of
from tests.steps.shards import UNHURRIED

SOURCE = {"files": "memory/records.jsonl", "key": "id", "deferrable": "urgency < 5"}
records = st.lists(
    st.tuples(st.none() | st.text(max_size=3) | st.integers(), st.none() | st.integers(0, 9), st.text(max_size=3))
)


def pulled(chunks, **options):
    """Pull from chunks; gives the rows kept, the bad records, and the tally."""
    tally = Tally()
    parts = list(pull(MemorySource(chunks), job_of(source=SOURCE), NIGHT, tally, **options))
    return [row for part in parts for row in part.chunk.rows], [bad for part in parts for bad in part.bad], tally


def chunks_of(rows, size=3):
    return [Chunk(("id", "urgency", "text"), rows[at : at + size]) for at in range(0, len(rows), size)]


@UNHURRIED
@given(records)
def test_every_record_is_kept_or_left_out_or_bad(rows) -> None:
    kept, bad, tally = pulled(chunks_of(rows))

    assert tally.pulled == len(rows) == len(kept) + len(bad) + tally.not_deferrable
    assert all(isinstance(key, str) and key.strip() for key, *_ in kept)
    assert all(one.messages is None and one.reason in (Reason.BAD_KEY, Reason.BAD_RECORD) for one in bad)


@UNHURRIED
@given(records, st.integers(1, 12))
def test_a_limit_bounds_the_records_that_are_read(rows, limit) -> None:
    _, _, tally = pulled(chunks_of(rows), limit=limit)

    assert tally.pulled == min(limit, len(rows))


def test_keys_are_text_and_what_cannot_be_one_says_why() -> None:
    rows = [(7, 1, "a"), (None, 1, "b"), (" ", 1, "c"), ("x" * (MAX_KEY_CHARS + 1), 1, "d"), ("a\0b", 1, "e")]

    kept, bad, _ = pulled(chunks_of(rows))

    assert kept == [("7", 1, "a")]
    assert [one.reason for one in bad] == [Reason.BAD_KEY] * 4
    assert [len(one.key) <= MAX_KEY_CHARS and "\0" not in one.key for one in bad] == [True] * 4


def test_a_record_that_cannot_be_judged_is_bad_and_the_others_go_on() -> None:
    kept, bad, tally = pulled(chunks_of([("a", None, "x"), ("b", 9, "y"), ("c", 1, "z")]))

    assert [row[0] for row in kept] == ["c"]
    assert [(one.key, one.reason) for one in bad] == [("a", Reason.BAD_RECORD)]
    assert tally.not_deferrable == 1


def test_pending_rows_come_back_as_they_were_rendered() -> None:
    store, tally = MemoryStore(), Tally()
    with row_writer(store, "p.parquet", PENDING_SCHEMA) as out:
        for number in range(1_200):
            out.add((f"k{number}", "f", "system", f"text {number}", "expired", 0, NIGHT.end))

    parts = list(pull_pending(store, [PendingFile("run", "p.parquet", 1_200)], tally))

    questions = [question for part in parts for question in part]
    assert [question.messages.user for question in questions] == [f"text {number}" for number in range(1_200)]
    assert all(question.was_pending and question.window_end == NIGHT.end for question in questions)
    assert (tally.from_pending, tally.pulled) == (1_200, 0)
    assert max(map(len, parts)) <= 500

"""Validate: each row that was sent gets exactly one verdict, whatever the result files look like."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.adapters.memory import MemoryStore, StaticPrices
from nightbatch.core.ids import custom_id_prefix, run_code
from nightbatch.core.money import NANO, Cost, Price, Usage, total
from nightbatch.steps.parquet import ROWS_AT_A_TIME, read_rows
from nightbatch.steps.validate import lines, validate
from tests.memory_stack import RATE, REALTIME, job_of, later
from tests.steps.shards import UNHURRIED, again, stack_of, stored

ROWS = 5
NOISE = (b"", b"   ", b"not json", b'{"custom_id":', b"\xff\xfe", b"[]")
told = st.tuples(st.integers(0, ROWS - 1), st.sampled_from(["good", "transient", "expired", "permanent", "truncated"]))
strange = st.tuples(st.just("other"), st.sampled_from(["row 9", "another shard", "nobody's"]))
histories = st.lists(told | strange | st.sampled_from(NOISE), max_size=15)

ENDINGS = {
    "good": {"outcome": "answered", "text": "fine"},
    "transient": {"outcome": "errored", "error_kind": "transient", "error_code": "500"},
    "expired": {"outcome": "expired"},
    "permanent": {"outcome": "errored", "error_kind": "permanent", "error_code": "too_long"},
    "truncated": {"outcome": "answered", "text": "fi", "finish": "truncated"},
}


def line_of(custom_id: str, ending: str, **changes) -> bytes:
    """Write one line of a result file, as the memory vendor does."""
    values = {"text": None, "finish": "done", "error_kind": None, "error_code": "", "tokens": [10, 5], "model": "m"}
    values |= {"custom_id": custom_id, **ENDINGS[ending], **changes}
    return json.dumps(values, ensure_ascii=False).encode()


def prefix_of(stack, shard) -> str:
    ref = shard.plan.ref
    return custom_id_prefix(stack.ledger.ledger_id, run_code(ref.run), ref.round, ref.shard)


def judged(stack, shard, content: bytes, job):
    """Put content into the shard's raw file and validate it; gives the rows of the verdict file and the shard."""
    stack.store.files[shard.raw_names[0]] = content
    validate(stack.ports(), job, shard)
    shard = again(stack, shard.plan.ref)
    columns = ("row", "key", "kind", "reason", "answer", "cost_usd")
    return list(read_rows(stack.store, shard.verdicts_name, columns)), shard


@UNHURRIED
@given(histories)
def test_each_row_has_exactly_one_verdict_in_any_order_of_any_lines(history) -> None:
    job = job_of(shard={"max_rows": ROWS})
    stack = stack_of(ROWS)
    shard = stored(stack, job)
    prefix = prefix_of(stack, shard)
    strangers = {"row 9": f"{prefix}9", "another shard": "nb_00000000_000000000000_0_0_0", "nobody's": "mine"}
    written = []
    for one in history:
        if isinstance(one, bytes):
            written.append(one)
        elif one[0] == "other":
            written.append(line_of(strangers[one[1]], "good"))
        else:
            written.append(line_of(f"{prefix}{one[0]}", one[1]))

    rows, shard = judged(stack, shard, b"\n".join(written), job)

    by_row = [
        [ending for row, ending in (one for one in history if isinstance(one, tuple)) if row == n] for n in range(ROWS)
    ]
    verdicts = {key: count for key, count in shard.counts.items() if not key.startswith("odd:")}
    assert sum(verdicts.values()) == ROWS
    assert verdicts.get("good", 0) == sum("good" in endings for endings in by_row)
    assert verdicts.get("again:missing", 0) == sum(not endings for endings in by_row)
    good = {row for row, _, kind, *_ in rows if kind == "good"}
    assert good == {row for row, endings in enumerate(by_row) if "good" in endings}
    assert {row for row, *_ in rows} == set(range(ROWS))
    assert max(Counter((row, kind == "good") for row, _, kind, *_ in rows).values()) == 1
    assert shard.counts.get("odd:unknown custom_ids", 0) == sum(
        one[0] == "other" for one in history if one in strange_ones(history)
    )
    assert shard.counts.get("odd:unreadable lines", 0) == sum(
        isinstance(one, bytes) and bool(one.strip()) for one in history
    )
    assert sum(cost for *_, cost in rows) == shard.cost.batch_usd
    told_rows = sum(bool(endings) for endings in by_row)
    assert shard.cost.batch_usd == told_rows * (RATE.input_usd * 10 + RATE.output_usd * 5) / Decimal(1_000_000)


def strange_ones(history):
    return [one for one in history if isinstance(one, tuple) and one[0] == "other"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_a_newline_ends_a_line(separator: str) -> None:
    """Python's splitlines would cut these answers in two."""
    stack = stack_of(1)
    shard = stored(stack)
    line = line_of(f"{prefix_of(stack, shard)}0", "good", text=f"one{separator}two")

    ((_, _, kind, _, answer, _),), shard = judged(stack, shard, line + b"\n", job_of())

    assert (kind, answer) == ("good", f"one{separator}two")
    assert shard.counts == {"good": 1}


@UNHURRIED
@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b""))), st.booleans())
def test_lines_come_out_as_they_went_in(written, is_ended) -> None:
    store = MemoryStore()
    store.files["a.jsonl"] = b"\n".join(written) + (b"\n" if is_ended else b"")

    assert list(lines(store, "a.jsonl")) == [line for line in written if line.strip()]


def test_answers_are_checked_against_the_schema_again() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    job = job_of(answer={"schema": schema})
    stack = stack_of(3)
    shard = stored(stack, job)
    prefix, texts = prefix_of(stack, shard), ['{"n": 1}', '{"n": "one"}', "n is one"]

    rows, _ = judged(
        stack, shard, b"\n".join(line_of(f"{prefix}{row}", "good", text=text) for row, text in enumerate(texts)), job
    )

    assert [(kind, reason) for _, _, kind, reason, *_ in rows] == [
        ("good", ""), ("change", "off_schema"), ("change", "not_json"),
    ]  # fmt: skip


def test_a_second_look_finds_the_same_and_books_nothing_more() -> None:
    stack = stack_of(3)
    shard = stored(stack)
    content = stack.store.files[shard.raw_names[0]]
    rows, first = judged(stack, shard, content, job_of())

    rows_again, second = judged(stack, shard, content, job_of())

    assert rows_again == rows
    assert second == first


def test_a_reading_that_ends_late_leaves_the_booked_verdicts_as_they_are() -> None:
    """A process that was frozen wakes up on another day, with another price."""
    stack, job = stack_of(2), job_of()
    shard = stored(stack, job)
    validate(stack.ports(), job, shard)
    first = again(stack, shard.plan.ref)
    later(stack, hours=24)
    dearer = replace(RATE, input_usd=9 * RATE.input_usd)

    validate(stack.ports(prices=StaticPrices({("openai", "echo-1"): Price(dearer, dearer)})), job, shard)

    assert again(stack, shard.plan.ref) == first
    assert first.verdicts_sha256 == sha256(stack.store.files[first.verdicts_name]).hexdigest()
    assert (first.rates["batch"], first.rates["realtime"]) == (RATE.as_json(), REALTIME.as_json())


def test_both_files_of_a_batch_are_read() -> None:
    stack = stack_of(2)
    shard = stored(stack)
    prefix = prefix_of(stack, shard)
    stack.store.files["errors.jsonl"] = line_of(f"{prefix}1", "transient")
    both = replace(shard, raw_names=(*shard.raw_names, "errors.jsonl"))

    _, shard = judged(stack, both, line_of(f"{prefix}0", "good"), job_of())

    assert shard.counts == {"good": 1, "again:transient_error": 1}


def test_every_kind_of_token_stands_in_its_row() -> None:
    stack = stack_of(2)
    shard = stored(stack)
    prefix = prefix_of(stack, shard)
    content = b"\n".join(line_of(f"{prefix}{row}", "good", tokens=[100, 20, 60, 30, 15]) for row in range(2))

    _, shard = judged(stack, shard, content, job_of())

    names = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    rows = list(read_rows(stack.store, shard.verdicts_name, names))
    assert [tuple(row) for row in rows] == [(100, 60, 30, 20, 15)] * 2
    assert shard.cost.usage == Usage(200, 120, 60, 40, 30)


@UNHURRIED
@given(
    st.lists(
        st.tuples(*[st.integers(0, 10**6)] * 5).filter(lambda one: one[2] + one[3] <= one[0]), min_size=1, max_size=5
    )
)
def test_each_row_costs_what_exact_decimals_say(tokens) -> None:
    """Rows are priced and added up in whole numbers; this is the long way round."""
    stack, job = stack_of(len(tokens)), job_of(shard={"max_rows": len(tokens)})
    shard = stored(stack, job)
    prefix = prefix_of(stack, shard)
    content = b"\n".join(line_of(f"{prefix}{row}", "good", tokens=list(one)) for row, one in enumerate(tokens))

    rows, shard = judged(stack, shard, content, job)

    used = [Usage(given, read, written, said, thought) for given, said, read, written, thought in tokens]
    assert [cost for *_, cost in rows] == [RATE.cost_usd(usage).quantize(NANO) for usage in used]
    assert shard.cost == total(
        Cost(usage, RATE.cost_usd(usage).quantize(NANO), REALTIME.cost_usd(usage).quantize(NANO)) for usage in used
    )


def test_more_rows_than_are_written_at_once_keep_their_keys() -> None:
    count = ROWS_AT_A_TIME + 3
    stack, job = stack_of(count), job_of(shard={"max_rows": count})
    shard = stored(stack, job)
    prefix = prefix_of(stack, shard)
    content = b"\n".join(line_of(f"{prefix}{row}", "good", text=str(row)) for row in reversed(range(1, count)))
    index = list(read_rows(stack.store, shard.plan.index_name, ("key", "fingerprint", "sends")))

    _, shard = judged(stack, shard, content, job)

    names = ("row", "custom_id", "answer", "key", "fingerprint", "sends")
    rows = list(read_rows(stack.store, shard.verdicts_name, names))
    assert [row[:3] for row in rows] == [
        *((row, f"{prefix}{row}", str(row)) for row in reversed(range(1, count))), (0, f"{prefix}0", None),
    ]  # fmt: skip
    assert [row[3:] for row in rows] == [index[row] for row, *_ in rows]
    assert shard.counts == {"good": count - 1, "again:missing": 1}

"""What a sink says that it holds, for an audit: the same from a table, from files, and from memory."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.adapters.sinks.answers import about
from tests.adapters.warehouses import open_warehouse
from tests.servers import postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.memory import MemorySink
from nightbatch.adapters.sinks.files import FileSink
from nightbatch.errors import BadSink
from nightbatch.ports import ANSWER_SCHEMA, GivenAnswer, HeldAnswer, Sink, SinkContext


@pytest.fixture(params=["postgres", "duckdb", "parquet", "jsonl", "memory"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sink]:
    if request.param == "memory":
        yield MemorySink()
    elif request.param in ("parquet", "jsonl"):
        yield FileSink(f"{tmp_path}/answers", format=request.param, key_column="id")
    else:
        server: Any = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
        with open_warehouse(request.param, server, tmp_path) as warehouse:
            yield warehouse.sink()


def load(sink: Sink, context: SinkContext, **costs: str) -> None:
    rows = [
        {
            "key": key,
            "fingerprint": f"print {key}",
            "answer": '"a"',
            "round": 0,
            "custom_id": f"nb_{context.generation}_{key}",
            "input_tokens": 1,
            "output_tokens": 1,
            "cached_tokens": 0,
            "cost_usd": Decimal(cost),
        }
        for key, cost in costs.items()
    ]
    sink.prepare(context)
    sink.merge(context, f"r0-s00{context.generation}", [pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)])


def held(sink: Sink, context: SinkContext) -> set[HeldAnswer]:
    return {answer for chunk in sink.held(context) for answer in chunk}


def row(context: SinkContext, key: str, cost: str) -> HeldAnswer:
    return HeldAnswer(key, context.run, f"print {key}", f"nb_{context.generation}_{key}", Decimal(cost))


def rated(sink: Sink, context: SinkContext, **ratings: str) -> None:
    """Load answers `{"rating": …}`, each a cent, from a prompt that is named after the window's day."""
    rows = [
        {
            "key": key,
            "fingerprint": f"print {key}",
            "answer": f'{{"rating": "{rating}"}}',
            "model": "m",
            "prompt_version": f"v{context.window.start.day}",
            "round": 0,
            "custom_id": f"nb_{key}",
            "cost_usd": Decimal("0.01"),
        }
        for key, rating in ratings.items()
    ]
    sink.prepare(context)
    sink.merge(context, "r0-s000", [pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)])


RATING = {"type": "object", "properties": {"rating": {"type": "string"}}}


@pytest.mark.parametrize("sink", ["postgres", "duckdb", "parquet", "jsonl", "memory"], indirect=True)
def test_a_field_of_each_answer_is_given_with_what_asked_for_it_the_latest_of_a_key_first(
    sink: Sink, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    kind = request.node.callspec.params["sink"]
    if kind in ("parquet", "jsonl"):
        sink = FileSink(f"{tmp_path}/rated", format=kind, key_column="id", answer_schema=RATING)
    elif kind != "memory":
        server: Any = request.getfixturevalue("postgres_server") if kind == "postgres" else None
        with open_warehouse(kind, server, tmp_path) as warehouse:
            check_given(warehouse.sink(answer_schema=RATING))
        return
    check_given(sink)


def check_given(sink: Sink) -> None:
    if not isinstance(sink, MemorySink):
        with pytest.raises(BadSink, match="no column of a field mood"):
            list(sink.given("mood"))
    assert list(sink.given("rating")) == []
    rated(sink, about(day=1), a="good", b="bad")
    rated(sink, about(day=2), b="good")

    given: dict[str, GivenAnswer] = {}
    for chunk in sink.given("rating"):
        for answer in chunk:
            given.setdefault(answer.key, answer)

    first, second = (f"v{about(day=day).window.start.day}" for day in (1, 2))
    assert given == {
        "a": GivenAnswer("a", "good", first, "m", Decimal("0.01")),
        "b": GivenAnswer("b", "good", second, "m", Decimal("0.01")),
    }


def test_each_answer_comes_with_its_request_and_its_exact_cost(sink: Sink) -> None:
    load(sink, about(), a="0.000000001", b="123456.123456789", c="0")

    assert held(sink, about()) == {
        row(about(), "a", "0.000000001"),
        row(about(), "b", "123456.123456789"),
        row(about(), "c", "0"),
    }


def test_newer_answers_are_given_and_older_ones_left_out(sink: Sink) -> None:
    load(sink, about(day=-1), older="1")
    load(sink, about(), mine="1", retaken="1", forced="1")
    load(sink, about(generation=2), forced="2")
    load(sink, about(day=1), retaken="3", newer="3")

    found = held(sink, about())

    latest = {
        row(about(), "mine", "1"),
        row(about(generation=2), "forced", "2"),
        row(about(day=1), "retaken", "3"),
        row(about(day=1), "newer", "3"),
    }
    assert latest <= found
    # A sink of files may still have what was replaced.
    assert found - latest <= {row(about(), "retaken", "1"), row(about(), "forced", "1")}
    assert held(sink, about(day=1)) == {row(about(day=1), "retaken", "3"), row(about(day=1), "newer", "3")}


def test_a_sink_that_is_not_there_yet_holds_nothing(sink: Sink) -> None:
    assert held(sink, about()) == set()

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
from nightbatch.ports import ANSWER_SCHEMA, HeldAnswer, Sink, SinkContext


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

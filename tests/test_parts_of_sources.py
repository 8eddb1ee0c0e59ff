"""Every source that can be read in parts gives one plan, in parts or as a whole, wherever its workers are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightbatch import flow
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.providers.anthropic_encoder import AnthropicEncoder
from nightbatch.adapters.providers.openai_encoder import OpenAIEncoder
from nightbatch.adapters.sources.files import FileSource
from nightbatch.core.request import Endpoint, Messages, RequestSpec
from nightbatch.core.window import ANY
from nightbatch.job import Job
from nightbatch.ports import RoundPlan, Settings, Source
from nightbatch.steps.lanes import body_of
from nightbatch.steps.parquet import read_rows
from nightbatch.steps.parts_mend import do
from tests.adapters.warehouses import open_warehouse
from tests.memory_stack import Stack, job_of
from tests.servers import postgres_server

__all__ = ["postgres_server"]

ROWS = [(f"k{number:03d}", f"text {number % 41}") for number in range(60)] + [("k003", "zz"), ("k059", "zzz")]
COLUMNS = ("id", "text")


def write(folder: Path, kind: str) -> str:
    """Write the rows in six files, or one with six row groups; gives what names them."""
    if kind == "row groups":
        columns = dict(zip(COLUMNS, map(list, zip(*ROWS, strict=True)), strict=True))
        pq.write_table(pa.table(columns), folder / "all.parquet", row_group_size=11)
        return str(folder / "all.parquet")
    for at in range(0, len(ROWS), 11):
        some = ROWS[at : at + 11]
        if kind == "jsonl":
            text = "".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in some)
        else:
            text = "id,text\n" + "".join(f"{key},{text}\n" for key, text in some)
        (folder / f"{at:02d}.{kind}").write_text(text)
    return f"{folder}/*.{kind}"


@pytest.fixture(params=["jsonl", "csv", "row groups", "postgres", "duckdb", "postgres key_range", "duckdb key_range"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    """The same rows in each source."""
    kind, _, parts_by = request.param.partition(" ")
    if kind not in ("postgres", "duckdb"):
        yield FileSource(write(tmp_path, request.param), columns=COLUMNS)
        return
    with open_warehouse(kind, request.getfixturevalue("postgres_server"), tmp_path) as warehouse:
        warehouse.run("CREATE TABLE records (id text, text text)")
        warehouse.run("INSERT INTO records VALUES " + ",".join(f"('{key}', '{text}')" for key, text in ROWS))
        query, by_key = "SELECT * FROM records ORDER BY id, text", bool(parts_by)
        yield warehouse.source(query, columns=COLUMNS, whole_table=True, key_ranges=by_key)


def job(parts: int) -> Job:
    """Make a job with full shards."""
    return job_of(source={"files": "x/*.jsonl", "key": "id", "parts": parts}, shard={"max_rows": 10})


def asked(store: Any, plan: RoundPlan) -> set[str]:
    return {print_ for shard in plan.shards for (print_,) in read_rows(store, shard.index_name, ("fingerprint",))}


def test_a_source_in_parts_asks_what_it_asks_as_a_whole(source: Source) -> None:
    one, many = Stack([]), Stack([])
    settings = Settings("sqlite://", "memory://", part_bytes=1)

    whole = flow.prepare(one.ports(source=lambda: source), job(1), ANY)
    ports = many.ports(source=lambda: source, settings=settings)

    def crew(errands: Sequence[flow.Errand]) -> None:
        for errand in reversed(errands):
            do(ports, errand)

    plan = flow.prepare(ports, job(4), ANY, crew=crew)

    assert plan.facts["counts"] == whole.facts["counts"]
    assert (plan.facts["counts"]["duplicates"], plan.facts["dead_reasons"]) == (19, {"duplicate_key": 2})
    assert asked(many.store, plan) == asked(one.store, whole)
    assert len(asked(many.store, plan)) == sum(shard.rows for shard in plan.shards) == 41
    assert sum(name.endswith("json") for name in many.store.names("reviews")) > 4


def test_workers_with_other_working_folders_share_the_store_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, stack = FileSource(write(tmp_path, "jsonl"), columns=COLUMNS), Stack([])
    settings = Settings("sqlite://", "memory://", part_bytes=1)

    def ports_of_worker(number: int) -> Any:
        folder = tmp_path / f"worker-{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        store = ObjectStore(f"{tmp_path}/staging", None)
        return stack.ports(source=lambda: found, settings=settings, store=store)

    errands = flow.split(ports_of_worker(0), job(3), ANY)
    for number, errand in enumerate(errands, start=1):
        do(ports_of_worker(number), errand)
    ports = ports_of_worker(9)
    plan = flow.prepare(ports, job(3), ANY, spread=errands[0].spread)

    assert len(asked(ports.store, plan)) == 41
    assert [list(folder.iterdir()) for folder in tmp_path.glob("worker-*")] == [[]] * 5


@pytest.mark.parametrize("encoder", [OpenAIEncoder, AnthropicEncoder])
def test_the_body_of_a_line_is_what_was_wrapped_whatever_it_holds(encoder: Any) -> None:
    made = encoder(RequestSpec(Endpoint.CHAT, "m", max_output_tokens=5))
    for text in ("a", 'nb_0_1_2","body":{"x"}}\n', "\0\u2028 é", ""):
        body = body_of(made, Messages("system", text))

        assert made.envelope.body("nb_id_7", made.envelope.line("nb_id_7", body)) == body
        with pytest.raises(ValueError, match="not one that its encoder made"):
            made.envelope.body("nb_id_8", made.envelope.line("nb_id_7", body))

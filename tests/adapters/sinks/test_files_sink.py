"""Answers become files: typed, whole, in order, never overwriting newer ones, and known again in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch.adapters.memory import MemorySink
from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sinks.files import FileSink, read_dead_letters, read_latest
from nightbatch.core.window import Window
from nightbatch.errors import BadSink
from nightbatch.ports import ANSWER_SCHEMA, DEAD_SCHEMA, Connection, MergeCounts, SinkContext

if TYPE_CHECKING:
    from tests.servers import S3ForTests

pytest_plugins = ["tests.servers"]

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
SCHEMA = {
    "type": "object",
    "properties": {
        "sentiment": {"enum": ["good", "bad"]},
        "confidence": {"type": "number"},
        "seen_at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}


def day(number: int) -> Window:
    start = MIDNIGHT + timedelta(days=number)
    return Window(start, start + timedelta(days=1))


def about(number: int = 0, generation: int = 1, job: str = "topics") -> SinkContext:
    window = day(number)
    return SinkContext(job, f"{job}-{window.key}-g{generation}", window, generation)


def answers(texts: dict[str, Any]) -> pa.RecordBatch:
    rows = [
        {
            "key": key,
            "fingerprint": f"f-{key}-{text}",
            "answer": text if isinstance(text, str) else json.dumps(text, ensure_ascii=False),
            "provider": "openai",
            "model": "small",
            "prompt_version": "p1",
            "round": 0,
            "custom_id": f"c-{key}",
            "input_tokens": 10,
            "output_tokens": 5,
            "cached_tokens": 0,
            "cost_usd": Decimal("0.000012300"),
        }
        for key, text in texts.items()
    ]
    return pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)


def dead(keys: str) -> pa.RecordBatch:
    rows = [{"key": key, "reason": "refused", "cost_usd": Decimal("0.5")} for key in keys]
    return pa.RecordBatch.from_pylist(rows, schema=DEAD_SCHEMA)


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Connection | None]:
    if request.param == "local":
        return str(tmp_path / "out"), None
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/out", None
    server: S3ForTests = request.getfixturevalue("s3_server")
    extra = {"endpoint_url": server.endpoint, "region_name": server.region}
    return f"s3://{server.new_bucket()}/out", Connection("s3", "aws", "", None, server.key, server.secret, "", extra)


def texts_of(place: tuple[str, Connection | None], key: str = "key") -> dict[str, Any]:
    table = read_latest(*place)
    return dict(zip(table.column(key).to_pylist(), table.column("answer").to_pylist(), strict=True))


def known(sink: FileSink) -> dict[str, str]:
    return {key: fingerprint for chunk in sink.known() for key, fingerprint, _ in chunk}


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_answers_come_back_typed_with_their_bookkeeping(place: tuple[str, Connection | None], format_: Any) -> None:
    sink = FileSink(place[0], connection=place[1], format=format_, answer_schema=SCHEMA, key_column="review_id")
    sink.prepare(about())
    answer = {"sentiment": "good", "confidence": 1, "seen_at": "2026-11-21T01:00:00+01:00", "tags": ["a\u2028", "b"]}

    assert sink.merge(about(), "r0-s000", [answers({"1": answer}), answers({"2": {"tags": []}})]).merged == 2

    table = read_latest(*place).sort_by("review_id")
    first, second = table.to_pylist()
    assert first | {"nb_answer": ""} == {
        "review_id": "1",
        "sentiment": "good",
        "confidence": 1.0,
        "seen_at": MIDNIGHT,
        "tags": '["a\u2028", "b"]',
        "nb_answer": "",
        "nb_fingerprint": f"f-1-{answer}",
        "nb_provider": "openai",
        "nb_model": "small",
        "nb_prompt_version": "p1",
        "nb_round": 0,
        "nb_custom_id": "c-1",
        "nb_duplicate_of": None,
        "nb_input_tokens": 10,
        "nb_output_tokens": 5,
        "nb_cached_tokens": 0,
        "nb_cost_usd": Decimal("0.000012300"),
        "nb_window_start": MIDNIGHT,
        "nb_window_end": MIDNIGHT + timedelta(days=1),
        "nb_generation": 1,
        "nb_run": about().run,
        "nb_job": "topics",
    }
    assert json.loads(first["nb_answer"]) == answer
    assert second["sentiment"] is None
    assert second["tags"] == "[]"


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_a_part_done_twice_changes_nothing(place: tuple[str, Connection | None], format_: Any) -> None:
    sink = FileSink(place[0], connection=place[1], format=format_)
    store = ObjectStore(*place)

    def load() -> tuple[MergeCounts, int, dict[str, bytes]]:
        sink.prepare(about())
        counts = sink.merge(about(), "r0-s000", [answers({"a": "1", "b": "2"})])
        buried = sink.bury(about(), "r0", [dead("xy")])
        return counts, buried, {name: store.read(name) for name in store.names("")}

    first = load()

    assert load() == first
    assert first[:2] == (MergeCounts(2, 2, 0), 2)
    assert list(first[2]) == [
        "_nightbatch.json",
        f"answers/window={day(0).key}/g0001-r0-s000.{format_}",
        f"dead_letters/window={day(0).key}/g0001-r0.{format_}",
    ]


def test_an_older_window_never_hides_a_newer_answer(place: tuple[str, Connection | None]) -> None:
    sink = FileSink(place[0], connection=place[1])
    sink.prepare(about())
    assert sink.merge(about(0), "r0-s000", [answers({"a": "new", "b": "new"})]) == MergeCounts(2, 2, 0)
    assert sink.merge(about(-7, generation=3), "r0-s000", [answers({"b": "old", "c": "old"})]) == MergeCounts(2, 1, 1)

    assert texts_of(place) == {"a": "new", "b": "new", "c": "old"}
    assert known(sink) == {"a": "f-a-new", "b": "f-b-new", "c": "f-c-old"}


merges = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(1, 3), st.dictionaries(st.sampled_from("abcd"), st.text("xyz"), max_size=4)
    ),
    max_size=8,
    unique_by=lambda merge: merge[:2],
)


@settings(max_examples=25, deadline=None)
@given(merges)
def test_files_keep_the_same_answers_and_counts_as_memory(found: list[tuple[int, int, dict[str, str]]]) -> None:
    """The winners do not depend on the order in which parts arrive, and DuckDB's documented query agrees."""
    place = f"memory://{uuid.uuid4().hex}"
    files, memory = FileSink(place), MemorySink()
    files.prepare(about())
    for number, generation, texts in found:
        context = about(number, generation)
        expected = memory.merge(context, "r0-s000", [answers(texts)])
        assert files.merge(context, "r0-s000", [answers(texts)]) == expected

    assert texts_of((place, None)) == {key: row["answer"] for key, row in memory.answers.items()}
    rows = [{row[0]: row for chunk in sink.known() for row in chunk} for sink in (files, memory)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_the_documented_query_gives_the_same_winners(tmp_path: Path, format_: Any) -> None:
    sink = FileSink(str(tmp_path), format=format_, key_column="review_id")
    sink.prepare(about())
    for number, generation, part, text in [(0, 1, "r0", "a"), (0, 2, "r0", "b"), (-1, 9, "r0", "c"), (0, 2, "r1", "d")]:
        sink.merge(about(number, generation), part, [answers({"x": text, f"only-{text}": text})])
    page = (Path(__file__).parents[3] / "docs" / "file-sinks.md").read_text(encoding="utf-8")
    query = page.split("```sql\n")[1].split("```")[0].replace("s3://bucket/folder", str(tmp_path))
    if format_ == "jsonl":
        query = query.replace(".parquet", ".jsonl").replace("read_parquet", "read_json")

    rows = duckdb.sql(query.replace("* EXCLUDE (filename)", "review_id, answer")).fetchall()

    assert dict(rows) == texts_of((str(tmp_path), None), "review_id")
    assert dict(rows)["x"] == "d"


def test_a_schema_that_gains_a_field_gains_a_column(place: tuple[str, Connection | None]) -> None:
    first = FileSink(place[0], connection=place[1], answer_schema=SCHEMA)
    first.prepare(about(0))
    first.merge(about(0), "r0-s000", [answers({"a": {"sentiment": "bad"}})])
    more = {**SCHEMA, "properties": {**SCHEMA["properties"], "score": {"type": "integer"}}}  # type: ignore[dict-item]
    second = FileSink(place[0], connection=place[1], answer_schema=more, format="jsonl")
    second.prepare(about(1))
    second.merge(about(1), "r0-s000", [answers({"b": {"score": 3}})])
    first.prepare(about(2))

    table = read_latest(*place).sort_by("key")

    assert table.select(["key", "sentiment", "score"]).to_pylist() == [
        {"key": "a", "sentiment": "bad", "score": None},
        {"key": "b", "sentiment": None, "score": 3},
    ]
    assert sorted(known(second)) == ["a", "b"]


def test_a_folder_belongs_to_one_job_one_key_and_one_kind_of_columns(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path), answer_schema=SCHEMA)
    sink.prepare(about())
    sink.prepare(about(1))

    with pytest.raises(BadSink, match="answers of job topics, and this is job other"):
        sink.prepare(about(job="other"))
    with pytest.raises(BadSink, match="key column is key, and the job now says id"):
        FileSink(str(tmp_path), answer_schema=SCHEMA, key_column="id").prepare(about())
    changed = {"type": "object", "properties": {"confidence": {"type": "string"}}}
    with pytest.raises(BadSink, match="column confidence holds number, and the answer schema now makes it text"):
        FileSink(str(tmp_path), answer_schema=changed).prepare(about())


def test_a_broken_marker_is_never_taken_for_a_free_folder(tmp_path: Path) -> None:
    (tmp_path / "_nightbatch.json").write_text("{")
    with pytest.raises(BadSink, match=r"_nightbatch\.json cannot be read"):
        FileSink(str(tmp_path)).prepare(about())
    (tmp_path / "_nightbatch.json").write_text('{"job": "topics", "key_column": "key", "columns": {}, "version": 2}')
    with pytest.raises(BadSink, match="version 2"):
        FileSink(str(tmp_path)).prepare(about())


def test_a_sink_that_is_not_there_yet_knows_nothing(place: tuple[str, Connection | None]) -> None:
    assert list(FileSink(place[0], connection=place[1]).known()) == []
    with pytest.raises(BadSink, match="no marker file"):
        read_latest(*place)


def test_a_part_without_rows_writes_no_file(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path))
    sink.prepare(about())

    assert sink.merge(about(), "r0", [answers({})]) == MergeCounts(0, 0, 0)
    assert sink.bury(about(), "r0", []) == 0
    assert read_latest(str(tmp_path)).num_rows == 0
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["_nightbatch.json"]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_a_merge_that_breaks_off_leaves_no_file(place: tuple[str, Connection | None], format_: Any) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield answers({"a": "1"})
        raise RuntimeError("mine")

    sink = FileSink(place[0], connection=place[1], format=format_)
    sink.prepare(about())
    with pytest.raises(RuntimeError, match="mine"):
        sink.merge(about(), "r0-s000", broken())

    assert list(ObjectStore(*place).names("answers")) == []


def test_many_small_batches_make_few_row_groups(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path))
    sink.merge(about(), "r0", [answers({f"{number}": "x"}) for number in range(300)])

    (file,) = tmp_path.rglob("*.parquet")
    assert pq.ParquetFile(file).num_row_groups == 1


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_an_answer_ends_the_dead_letters_that_are_not_newer(place: tuple[str, Connection | None], format_: Any) -> None:
    sink = FileSink(place[0], connection=place[1], format=format_)
    for days in (-1, 0, 1):
        sink.prepare(about(days))
        sink.bury(about(days), "r0", [dead("ab")])

    assert letters(place) == {(key, about(days).run) for key in "ab" for days in (-1, 0, 1)}

    sink.merge(about(0), "r0-s000", [answers({"a": "good", "c": "never dead"})])

    assert letters(place) == {("a", about(1).run), *(("b", about(days).run) for days in (-1, 0, 1))}


def letters(place: tuple[str, Connection | None]) -> set[tuple[str, str]]:
    table = read_dead_letters(*place)
    return set(zip(table.column("key").to_pylist(), table.column("nb_run").to_pylist(), strict=True))


def test_the_documented_query_gives_the_dead_letters_that_stand(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path), key_column="review_id")
    sink.prepare(about())
    sink.bury(about(), "r0", [dead("abc")])
    sink.bury(about(1), "r0", [dead("a")])
    sink.merge(about(0, 2), "r0-s000", [answers({"a": "good", "b": "good"})])
    page = (Path(__file__).parents[3] / "docs/file-sinks.md").read_text()
    query = page.split("```sql\n")[2].split("```")[0].replace("s3://bucket/folder", str(tmp_path))

    assert duckdb.sql(query).fetchall() == [("refused", 2)]


def test_a_folder_without_dead_letters_has_none_of_them(place: tuple[str, Connection | None]) -> None:
    FileSink(place[0], connection=place[1]).prepare(about())

    assert read_dead_letters(*place).num_rows == 0


def test_dead_letters_have_the_columns_of_a_dead_letter_table(tmp_path: Path) -> None:
    from nightbatch.adapters.sinks.table import DEAD_LETTERS

    FileSink(str(tmp_path), key_column="review_id").bury(about(), "r2", [dead("a"), dead("b")])

    (file,) = tmp_path.rglob("*.parquet")
    rows = pq.ParquetFile(file).read().to_pylist()
    assert [row["review_id"] for row in rows] == ["a", "b"]
    assert list(rows[0]) == ["review_id", *DEAD_LETTERS]
    assert rows[0] | {"review_id": ""} == dict.fromkeys(rows[0]) | {
        "review_id": "",
        "nb_reason": "refused",
        "nb_cost_usd": Decimal("0.5"),
        "nb_window_start": MIDNIGHT,
        "nb_window_end": MIDNIGHT + timedelta(days=1),
        "nb_generation": 1,
        "nb_run": about().run,
        "nb_job": "topics",
    }


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path))
    sink.prepare(about())
    sink.merge(about(), "r0", [answers({"a": "1"})])
    (tmp_path / "answers" / "notes.txt").write_text("mine")

    assert texts_of((str(tmp_path), None)) == {"a": "1"}
    assert known(sink) == {"a": "f-a-1"}


def test_a_damaged_file_is_told_with_its_name(tmp_path: Path) -> None:
    sink = FileSink(str(tmp_path))
    sink.prepare(about())
    sink.merge(about(), "r0", [answers({"a": "1"})])
    (file,) = tmp_path.rglob("*.parquet")
    file.write_bytes(file.read_bytes()[:-10])

    calls: list[Callable[[], object]] = [lambda: known(sink), lambda: read_latest(str(tmp_path))]
    for call in calls:
        with pytest.raises(BadSink, match=r"g0001-r0\.parquet"):
            call()


def test_names_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSink, match="key column is named nb_run"):
        FileSink(str(tmp_path), key_column="nb_run")
    with pytest.raises(BadSink, match="is not supported"):
        FileSink("ftp://host/x")
    with pytest.raises(ValueError, match="no name of a part"):
        FileSink(str(tmp_path)).merge(about(), "../x", [answers({"a": "1"})])


def test_the_identity_is_that_of_a_source_of_the_same_folder() -> None:
    from nightbatch.adapters.sources.files import FileSource

    assert FileSink("s3://b/out/").identity == FileSource("s3://b/out/*.parquet").identity == "s3://b/out"


MEASURE = """
import sys
from pathlib import Path
from nightbatch.adapters.sinks.files import FileSink
def rss_mb():  # the peak of this process; getrusage would also count that of its parent before the exec
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
def count(uri): return sum(len(chunk) for chunk in FileSink(uri).known())
count(sys.argv[1])
before = rss_mb()
rows = count(sys.argv[2])
print(rows, rss_mb() - before, "pandas" in sys.modules)
"""


def test_knowing_a_million_answers_takes_bounded_memory(tmp_path: Path) -> None:
    """Ten windows of 100,000 keys, a tenth of them answered anew in each next one."""
    schema = pa.schema([("key", pa.string()), ("nb_fingerprint", pa.string())])
    for folder, rows in (("small", 100), ("large", 100_000)):
        FileSink(str(tmp_path / folder)).prepare(about())
        for number in range(10):
            keys = [f"review-{key:012}" for key in range(number * rows * 9 // 10, number * rows * 9 // 10 + rows)]
            table = pa.Table.from_pydict({"key": keys, "nb_fingerprint": [key * 3 for key in keys]}, schema=schema)
            target = tmp_path / folder / "answers" / f"window={day(number).key}"
            target.mkdir(parents=True)
            pq.write_table(table, target / "g0001-r0.parquet")

    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    rows, extra_mb, has_pandas = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert int(rows) == 1_000_000
    assert float(extra_mb) < 25
    assert has_pandas == "False"

"""PostgreSQL and DuckDB keep the answers by the same rules: merged by key, never over newer ones, atomically."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.adapters.sinks.answers import about, answers, dead_letters
from tests.adapters.warehouses import Warehouse, open_warehouse
from tests.servers import postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.sinks.columns import BOOKKEEPING
from nightbatch.adapters.sinks.table import DEAD_LETTERS
from nightbatch.errors import BadSink, StorageUnavailable
from nightbatch.ports import ANSWER_SCHEMA, MergeCounts, Sink

MOOD = {"type": "object", "properties": {"mood": {"type": "string"}, "score": {"type": "integer"}}}


@pytest.fixture(params=["postgres", "duckdb"])
def warehouse(request: pytest.FixtureRequest, postgres_server: Any, tmp_path: Path) -> Iterator[Warehouse]:  # noqa: F811
    with open_warehouse(request.param, postgres_server, tmp_path) as empty:
        yield empty


def known(sink: Sink) -> dict[str, str]:
    return {key: fingerprint for chunk in sink.known() for key, fingerprint, _ in chunk}


def columns_of(warehouse: Warehouse, table: str) -> list[str]:
    schema, name = table.split(".")
    query = "SELECT column_name FROM information_schema.columns WHERE table_schema = '{}' AND table_name = '{}'"
    return [row[0] for row in warehouse.run(query.format(schema, name) + " ORDER BY ordinal_position")]


def test_tables_are_created_with_typed_columns(warehouse: Warehouse) -> None:
    warehouse.sink("shop.answers", answer_schema=MOOD).prepare(about())

    assert columns_of(warehouse, "shop.answers") == ["id", "mood", "score", *BOOKKEEPING]
    assert columns_of(warehouse, "shop.answers_dead_letters") == ["id", *DEAD_LETTERS]


def test_preparing_again_changes_nothing(warehouse: Warehouse) -> None:
    for _ in range(2):
        warehouse.sink().prepare(about())

    assert columns_of(warehouse, "shop.answers") == ["id", "answer", *BOOKKEEPING]


def test_every_value_arrives_as_it_was(warehouse: Warehouse) -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "share": {"type": "number"},
            "ok": {"type": "boolean"},
            "at": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "tags": {"type": "array"},
            "gone": {"type": ["string", "null"]},
        },
    }
    answer = {
        "text": "tab\t, line\nback\\slash \\N ' \" é 😀",
        "count": -(2**63),
        "share": 0.1,
        "ok": False,
        "at": "2026-01-02T03:04:05.123456+02:00",
        "day": "2026-02-28",
        "tags": ["a\\b", {"c": None}],
        "gone": None,
    }
    row = {
        "key": "k\t1",
        "fingerprint": "f",
        "answer": json.dumps(answer),
        "provider": "openai",
        "model": "m",
        "prompt_version": "p",
        "round": 2,
        "custom_id": "c",
        "duplicate_of": None,
        "input_tokens": 10**12,
        "output_tokens": 0,
        "cached_tokens": None,
        "cost_usd": Decimal("123456789.123456789"),
    }
    sink = warehouse.sink("shop.answers", answer_schema=schema)
    sink.prepare(about())

    sink.merge(about(generation=3), "r0-s000", [pa.RecordBatch.from_pylist([row], schema=ANSWER_SCHEMA)])

    names = ["id", *schema["properties"], *BOOKKEEPING]  # type: ignore[misc]
    kept = warehouse.run("SELECT " + ", ".join(f'"{name}"' for name in names) + " FROM shop.answers")
    found = dict(zip(names, kept[0], strict=True))
    for name in ("tags", "nb_answer"):
        found[name] = json.loads(found[name]) if isinstance(found[name], str) else found[name]
    for name in ("at", "nb_window_start", "nb_window_end"):
        found[name] = found[name].astimezone(UTC)
    assert found == {
        "id": "k\t1",
        **answer,
        "at": datetime(2026, 1, 2, 1, 4, 5, 123456, tzinfo=UTC),
        "day": date(2026, 2, 28),
        "nb_answer": answer,
        "nb_fingerprint": "f",
        "nb_provider": "openai",
        "nb_model": "m",
        "nb_prompt_version": "p",
        "nb_round": 2,
        "nb_custom_id": "c",
        "nb_duplicate_of": None,
        "nb_input_tokens": 10**12,
        "nb_output_tokens": 0,
        "nb_cached_tokens": None,
        "nb_cost_usd": Decimal("123456789.123456789"),
        "nb_window_start": about().window.start,
        "nb_window_end": about().window.end,
        "nb_generation": 3,
        "nb_run": about(generation=3).run,
        "nb_job": "reviews",
    }


HARD_JSON = [
    '{"mood": "nul \\u0000", "score": 1}',
    '{"mood": "\\\\u0000 is text", "score": 1}',
    '{"mood": "x", "score": 1e400000}',
    '{"mood": "x", "score": ' + "9" * 20_000 + "}",
    '{"mood": "2e99999", "score": 1}',
    '{"mood": ' + "[" * 600 + "]" * 600 + "}",
    '{"mood": "' + "[" * 600 + '"}',
    '{"mood": "\\ud800"}',
    "not json \x00",
    "",
]


def test_no_answer_is_too_hard_to_keep(warehouse: Warehouse) -> None:
    sink = warehouse.sink(answer_schema=MOOD)
    sink.prepare(about())
    hard = {f"k{number}": text for number, text in enumerate(HARD_JSON)}

    counts = sink.merge(about(), "s", [answers(hard)])

    assert counts == MergeCounts(offered=len(hard), merged=len(hard), newer_kept=0)
    kept = dict(warehouse.run("SELECT id, mood FROM shop.answers"))
    nul = "\ufffd" if warehouse.kind == "postgres" else "\x00"
    assert kept["k0"] == f"nul {nul}"
    assert (kept["k1"], kept["k4"]) == ("\\u0000 is text", "2e99999")
    assert warehouse.run("SELECT count(*) FROM shop.answers WHERE nb_answer IS NULL") == [(0,)]


def test_free_text_is_kept(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())

    sink.merge(about(), "s", [answers({"a": "He said:\n\\. and left\x00"})])

    nul = "\ufffd" if warehouse.kind == "postgres" else "\x00"
    assert warehouse.run("SELECT answer, nb_answer FROM shop.answers") == [(f"He said:\n\\. and left{nul}", None)]


def test_the_same_part_twice_changes_nothing(warehouse: Warehouse) -> None:
    sink = warehouse.sink(answer_schema=MOOD)
    sink.prepare(about())
    part = [answers({"a": '{"mood": "good"}', "b": "{}"}), answers({"c": '{"score": 1}'})]

    counts = [sink.merge(about(), "r0-s000", part) for _ in range(2)]

    assert counts == [MergeCounts(offered=3, merged=3, newer_kept=0)] * 2
    assert len(warehouse.run("SELECT * FROM shop.answers")) == 3
    assert sorted(known(sink)) == ["a", "b", "c"]


def test_an_older_window_never_replaces_a_newer_answer(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    sink.merge(about(), "s", [answers({"a": "today", "b": "today"})])

    counts = sink.merge(about(day=-7), "s", [answers({"a": "last week", "c": "last week"})])

    assert counts == MergeCounts(offered=2, merged=1, newer_kept=1)
    kept = dict(warehouse.run("SELECT id, answer FROM shop.answers"))
    assert kept == {"a": "today", "b": "today", "c": "last week"}


def test_of_one_window_the_later_generation_wins(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    sink.merge(about(generation=2), "s", [answers({"a": "second"})])

    assert sink.merge(about(generation=1), "s", [answers({"a": "first"})]).newer_kept == 1
    assert sink.merge(about(generation=3), "s", [answers({"a": "third"})]).merged == 1
    assert warehouse.run("SELECT answer, nb_generation FROM shop.answers") == [("third", 3)]


def test_an_empty_part_changes_nothing(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())

    assert sink.merge(about(), "s", []) == MergeCounts(offered=0, merged=0, newer_kept=0)
    assert sink.merge(about(), "s", [answers({})]) == MergeCounts(offered=0, merged=0, newer_kept=0)
    assert sink.bury(about(), "s", []) == 0


def test_a_part_that_breaks_off_changes_nothing(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())

    def broken() -> Iterator[pa.RecordBatch]:
        yield answers({"a": "x"})
        raise StorageUnavailable("store", cause="unplugged")

    with pytest.raises(StorageUnavailable, match="unplugged"):
        sink.merge(about(), "s", broken())

    assert known(sink) == {}


def test_known_streams_every_answer_and_is_empty_before_there_is_a_sink(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    assert list(sink.known()) == []
    sink.prepare(about())
    assert list(sink.known()) == []
    many = {f"k{number}": "x" for number in range(25_000)}
    sink.merge(about(), "s", [answers(many)])

    chunks = list(sink.known())

    assert max(len(chunk) for chunk in chunks) == 10_000
    assert known(sink) == {key: f"f-{text}" for key, text in many.items()}


def test_known_says_of_which_window_each_answer_is(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    sink.merge(about(day=1), "s", [answers({"a": "new"})])
    sink.merge(about(), "s", [answers({"a": "old", "b": "old"})])

    rows = sorted(row for chunk in sink.known() for row in chunk)

    assert rows == [("a", "f-new", about(day=1).window.end), ("b", "f-old", about().window.end)]


def test_dead_letters_are_kept_by_run_and_key(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())

    for _ in range(2):
        assert sink.bury(about(), "s", [dead_letters({"a": "refused", "b": "off_schema"})]) == 2
    sink.bury(about(day=-1), "s", [dead_letters({"a": "expired\x00"})])
    sink.bury(about(), "s", [dead_letters({"b": "truncated"})])

    kept = warehouse.run("SELECT id, nb_reason, nb_run FROM shop.answers_dead_letters ORDER BY nb_run, id")
    nul = "\ufffd" if warehouse.kind == "postgres" else "\x00"
    assert kept == [
        ("a", f"expired{nul}", about(day=-1).run),
        ("a", "refused", about().run),
        ("b", "truncated", about().run),
    ]


def test_a_good_answer_ends_the_dead_letters_that_are_not_newer(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    for day in (-1, 0, 1):
        sink.bury(about(day=day), "s", [dead_letters({"a": "refused", "b": "refused"})])

    sink.merge(about(day=0), "s", [answers({"a": "good"})])

    kept = warehouse.run("SELECT id, nb_run FROM shop.answers_dead_letters ORDER BY id, nb_run")
    assert kept == [("a", about(day=1).run), *[("b", about(day=day).run) for day in (-1, 0, 1)]]


def test_a_letter_whose_record_was_answered_meanwhile_is_not_buried_again(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    letters = [dead_letters({"a": "refused", "b": "refused"})]
    sink.bury(about(), "s", letters)
    sink.merge(about(generation=2), "s", [answers({"a": "good"})])
    sink.merge(about(day=-1), "s", [answers({"b": "of an older window"})])

    assert sink.bury(about(), "s", letters) == 2

    assert warehouse.run("SELECT id FROM shop.answers_dead_letters") == [("b",)]


def test_a_named_table_of_dead_letters_is_used(warehouse: Warehouse) -> None:
    sink = warehouse.sink("shop.answers", dead_letters_table="graves.letters")
    sink.prepare(about())
    sink.bury(about(), "s", [dead_letters({"a": "refused"})])

    assert warehouse.run("SELECT id FROM graves.letters") == [("a",)]


def test_a_field_that_is_new_adds_a_column_and_one_that_is_gone_stays(warehouse: Warehouse) -> None:
    warehouse.sink(answer_schema=MOOD).prepare(about())
    warehouse.sink(answer_schema=MOOD).merge(about(), "s", [answers({"a": '{"mood": "good", "score": 1}'})])
    wider = warehouse.sink(
        answer_schema={"type": "object", "properties": {"why": {"type": "string"}, "mood": {"type": "string"}}}
    )

    wider.prepare(about())
    wider.merge(about(day=1), "s", [answers({"a": '{"mood": "bad", "why": "rain"}', "b": "{}"})])

    assert warehouse.run("SELECT id, mood, score, why FROM shop.answers ORDER BY id") == [
        ("a", "bad", 1, "rain"),
        ("b", None, None, None),
    ]


def test_a_field_of_another_type_is_told(warehouse: Warehouse) -> None:
    warehouse.sink(answer_schema=MOOD).prepare(about())
    other = warehouse.sink(answer_schema={"type": "object", "properties": {"score": {"type": "string"}}})

    with pytest.raises(BadSink, match=r"score is (?i:bigint) and should be"):
        other.prepare(about())


@pytest.mark.parametrize("is_filled", [False, True])
@pytest.mark.parametrize("is_marked", [False, True])
def test_a_table_of_another_job_is_told(warehouse: Warehouse, is_filled: bool, is_marked: bool) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    if is_filled:
        sink.merge(about(), "s", [answers({"a": "x"})])
        sink.bury(about(), "s", [dead_letters({"a": "x"})])
    if not is_marked:
        warehouse.run("COMMENT ON TABLE shop.answers IS 'Moods, by the shop team'")
        warehouse.run("COMMENT ON TABLE shop.answers_dead_letters IS 'Moods'")

    sink.prepare(about())
    if is_filled or is_marked:
        with pytest.raises(BadSink, match="job reviews, and this is job topics"):
            sink.prepare(about(job="topics"))


def test_a_table_that_is_not_ours_is_left_alone(warehouse: Warehouse) -> None:
    warehouse.run("CREATE SCHEMA shop")
    warehouse.run("CREATE TABLE shop.answers (id text PRIMARY KEY, body text)")

    with pytest.raises(BadSink, match="a table that nightbatch did not make"):
        warehouse.sink().prepare(about())
    assert columns_of(warehouse, "shop.answers") == ["id", "body"]


def test_a_view_is_told(warehouse: Warehouse) -> None:
    warehouse.run("CREATE SCHEMA shop")
    warehouse.run("CREATE VIEW shop.answers AS SELECT 1 AS id")

    with pytest.raises(BadSink, match="is a view"):
        warehouse.sink().prepare(about())


def test_a_table_without_its_key_is_told(warehouse: Warehouse) -> None:
    warehouse.sink("shop.made").prepare(about())
    warehouse.run("CREATE TABLE shop.answers AS SELECT * FROM shop.made")

    with pytest.raises(BadSink, match="has no unique key on id"):
        warehouse.sink().prepare(about())


def test_a_table_that_is_gone_at_load_is_told(warehouse: Warehouse) -> None:
    with pytest.raises(BadSink, match="answers"):
        warehouse.sink().merge(about(), "s", [answers({"a": "x"})])


@pytest.mark.parametrize(
    "settings",
    [
        {"key_column": "nb_run"},
        {"key_column": ""},
        {"key_column": "x" * 64},
        {"key_column": "XMIN"},
        {"table": "a.b.c"},
        {"table": "shop.answers; DROP TABLE x"},
        {"table": "shop." + "x" * 60},
        {"table": "shop.x", "dead_letters_table": "Shop.X"},
    ],
)
def test_names_that_cannot_be_used_are_told(warehouse: Warehouse, settings: dict[str, str]) -> None:
    with pytest.raises(BadSink):
        warehouse.sink(**settings)


def test_names_are_quoted(warehouse: Warehouse) -> None:
    name = 'x"; DROP TABLE "y%s'
    warehouse.run('CREATE TABLE "y%s" (a int)')
    schema = {"type": "object", "properties": {"select": {"type": "string"}, "a'b": {"type": "string"}}}
    sink = warehouse.sink('"' + name.replace('"', '""') + '"', key_column='Ke"y %s', answer_schema=schema)

    sink.prepare(about(job="it's"))
    sink.prepare(about(job="it's"))
    sink.merge(about(job="it's"), "s", [answers({"a": '{"select": "x", "a\'b": "y"}'})])
    sink.bury(about(job="it's"), "s", [dead_letters({"a": "refused"})])
    sink.merge(about(job="it's"), "s", [answers({"a": '{"select": "x", "a\'b": "y"}'})])

    assert known(sink) == {"a": 'f-{"select": "x", "a\'b": "y"}'}
    assert warehouse.run('SELECT count(*) FROM "y%s"') == [(0,)]


def test_a_job_may_have_its_keys_named_like_a_field(warehouse: Warehouse) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}}
    sink = warehouse.sink(key_column="ID", answer_schema=schema)
    sink.prepare(about())
    sink.merge(about(), "s", [answers({"a": '{"id": 7}'})])

    assert warehouse.run('SELECT "ID", answer_id FROM shop.answers') == [("a", 7)]


def test_two_tasks_may_prepare_at_once(warehouse: Warehouse) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: warehouse.sink().prepare(about()), range(4)))

    assert columns_of(warehouse, "shop.answers")


def test_windows_end_at_the_instant_they_say(warehouse: Warehouse) -> None:
    sink = warehouse.sink()
    sink.prepare(about())
    sink.merge(about(), "s", [answers({"a": "x"})])

    (ends,) = warehouse.run("SELECT nb_window_start, nb_window_end FROM shop.answers")
    assert ends[1] - ends[0] == timedelta(days=1)
    assert ends[0] == about().window.start

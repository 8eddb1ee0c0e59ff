"""Dirty records, from the command line: a bad one is a dead letter with a reason, and every other one is answered."""

from __future__ import annotations

import gzip
import io
import json
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.strangers.desk import Desk, desk, parrot

__all__ = ["desk", "parrot"]

GOOD = {"id": "a", "text": "one"}
LAST = {"id": "z", "text": "last"}
ANSWERED = {"a": "one", "z": "last"}


def line(record: Any) -> str:
    return (record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)) + "\n"


def table(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


BAD = {
    "null key": ({"id": None, "text": "x"}, "bad_key", "the key is null"),
    "empty key": ({"id": " ", "text": "x"}, "bad_key", "the key is empty"),
    "no key": ({"text": "x"}, "bad_key", "the key is null"),
    "over-long key": ({"id": "k" * 2_000, "text": "x"}, "bad_key", "2,000 characters"),
    "NUL in the key": ({"id": "a\0b", "text": "x"}, "bad_key", "NUL"),
    "key twice": ({"id": "a", "text": "other"}, "duplicate_key", ""),
    "column without the field asked for": ({"id": "b", "text": {"title": "x"}}, "bad_record", ""),
    "empty text": ({"id": "b", "text": " "}, "bad_record", ""),
    "a line that is no JSON": ("{'id': 'b'}", "bad_record", "records.jsonl line 2: no JSON object can be read"),
    "a line that is a list": ("[1, 2]", "bad_record", "records.jsonl line 2: no JSON object can be read"),
    "a line that was cut": ('{"id": "b", "te', "bad_record", "records.jsonl line 2"),
    "NaN": ('{"id": "b", "text": NaN}', "bad_record", "records.jsonl line 2"),
    "invalid UTF-8": (b'{"id": "b", "text": "\xff"}\n', "bad_record", "records.jsonl line 2"),
    "half a surrogate pair": ('{"id": "b", "text": "\\ud800"}', "bad_record", ""),
    "too large for any batch": ({"id": "b", "text": "x" * 250_000}, "too_large", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_a_dead_letter_and_the_others_are_answered(desk: Desk, name: str) -> None:
    record, reason, detail = BAD[name]
    prompt = "{{ text.body if text is mapping else text }}"
    desk.job(prompt=prompt, more="shard: {max_bytes: 200000}")
    bad = record if isinstance(record, bytes) else line(record).encode()
    desk.put("records.jsonl", line(GOOD).encode() + bad + line(LAST).encode())

    ended = desk.run()

    [(told, why)] = desk.dead()
    assert (ended.code, ended.books["pulled"], ended.books["merged"]) == (0, 3, 2), ended
    assert (told, detail in why, desk.answers()) == (reason, True, ANSWERED), why


ODD = {
    "a number as key": ({"id": 7, "text": "x"}, "7", "x"),
    "line separators": ({"id": "b", "text": "one\u2028two\u2029three\x85four"}, "b", "one\u2028two\u2029three\x85four"),
    "emoji": ({"id": "b", "text": "👩🏽‍🚀🇩🇪"}, "b", "👩🏽‍🚀🇩🇪"),
    "right to left": ({"id": "ש", "text": "\u202eשלום"}, "ש", "\u202eשלום"),
    "template syntax": ({"id": "b", "text": "{{ 7 * 7 }} {% for %} {# #}"}, "b", "{{ 7 * 7 }} {% for %} {# #}"),
    "a megabyte": ({"id": "b", "text": "wide " * 200_000 + "."}, "b", "wide " * 200_000 + "."),
    "a null": ({"id": "b", "text": None}, "b", "None"),
    "a text of another type": ({"id": "b", "text": 12.5}, "b", "12.5"),
    "ten thousand columns": ({"id": "b", "text": "x", **{f"c{n}": n for n in range(10_000)}}, "b", "x"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_record_is_answered_as_it_is(desk: Desk, name: str) -> None:
    record, key, text = ODD[name]
    desk.put("records.jsonl", line(GOOD) + line(record) + line(LAST))

    ended = desk.run()

    assert (ended.code, ended.books["state"], desk.dead()) == (0, "complete", []), ended
    assert desk.answers() == {**ANSWERED, key: text}


def test_a_nul_in_a_text_goes_to_the_model_and_comes_back(desk: Desk) -> None:
    desk.put("records.jsonl", line(GOOD) + line({"id": "b", "text": "a\0b"}) + line(LAST))

    ended = desk.run()

    assert (ended.code, ended.books["state"], len(desk.answers()) + len(desk.dead())) == (0, "complete", 3)
    assert desk.answers().items() >= ANSWERED.items()


CSV = {
    "ragged": (b"id,text\na,one\nb\nc,x,y\nz,last\n", 2),
    "a BOM": (b"\xef\xbb\xbfid,text\na,one\nz,last\n", 0),
    "another encoding in one row": ("id,text\na,one\nb,é\nz,last\n".encode("latin-1"), 1),
    "a quote too many": (b'id,text\na,one\nb,"x"y\nz,last\n', 1),
    "empty lines and CRLF": (b"id,text\r\n\r\na,one\r\n\r\nz,last\r\n", 0),
}


@pytest.mark.parametrize("name", CSV)
def test_a_bad_row_of_a_csv_file_is_a_dead_letter_and_the_others_are_answered(desk: Desk, name: str) -> None:
    content, dead = CSV[name]
    desk.job(files="records.csv")
    desk.put("records.csv", content)

    ended = desk.run()

    assert (ended.code, ended.books["pulled"], desk.answers()) == (0, 2 + dead, ANSWERED), ended
    assert [reason for reason, _ in desk.dead()] == ["bad_record"] * dead


def test_a_needed_column_that_some_files_lack_or_have_in_another_type_costs_only_their_records(desk: Desk) -> None:
    desk.job(files="in/*.parquet")
    desk.put("in/1.parquet", table(id=["a"], text=["one"]))
    desk.put("in/2.parquet", table(id=["b", "c"]))
    desk.put("in/3.parquet", table(id=[1], text=[2.5]))
    desk.put("in/4.parquet", table(id=["z"], text=["last"]))

    ended = desk.run()

    assert (ended.code, desk.answers()) == (0, {**ANSWERED, "1": "2.5"}), ended
    assert [(reason, why.endswith("the file has no column text")) for reason, why in desk.dead()] == [
        ("bad_record", True)
    ] * 2


def broken(content: bytes) -> bytes:
    """Change some bytes in the middle."""
    at = len(content) // 3
    return content[:at] + bytes(byte ^ 0xFF for byte in content[at : at + 40]) + content[at + 40 :]


UNCOUNTABLE = {
    "truncated Parquet": ("records.parquet", table(id=["a"], text=["one"])[:-20]),
    "corrupt Parquet": ("records.parquet", broken(table(id=[*map(str, range(500))], text=["x" * 50] * 500))),
    "corrupt gzip": ("records.jsonl.gz", broken(gzip.compress(random.Random(1).randbytes(3_000).hex().encode()))),
    "truncated gzip": ("records.jsonl.gz", gzip.compress(line(GOOD).encode() * 1000)[:-30]),
    "a file that was cut off": ("records.jsonl", line(GOOD) + '{"id": "b"'),
    "an open quote": ("records.csv", 'id,text\na,"one\nz,last\n'),
    "another format": ("records.jsonl", "id,text\na,one\n"),
    "no such column": ("records.csv", "id,body\na,one\n"),
    "a column twice": ("records.csv", "id,text,text\na,one,two\n"),
}


@pytest.mark.parametrize("name", UNCOUNTABLE)
def test_what_cannot_be_counted_is_told_before_anything_is_spent(desk: Desk, name: str) -> None:
    file, content = UNCOUNTABLE[name]
    desk.job(files=file)
    desk.put(file, content)

    ended = desk.run()

    assert (ended.code, ended.answer["error"]) == (2, "BadSource"), ended
    assert file in ended.answer["message"]
    assert desk.answers() == {}


def test_no_records_at_all_are_a_complete_night(desk: Desk) -> None:
    desk.put("records.jsonl", "")

    ended = desk.run()

    assert (ended.code, ended.books["state"], ended.books["pulled"]) == (0, "complete", 0)

"""Files become records: every format and compression, in order, whole, in bounded memory, or with a complaint."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.sources.files import FileSource
from nightbatch.core.window import Window
from nightbatch.errors import BadSource, StorageUnavailable
from nightbatch.ports import Connection

if TYPE_CHECKING:
    from tests.servers import S3ForTests

pytest_plugins = ["tests.servers"]

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
Rows = list[tuple[Any, ...]]


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, **options)
    return file.getvalue()


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


def read(uri: object, **options: Any) -> Rows:
    return [row for chunk in FileSource(str(uri), **options).read(DAY) for row in chunk.rows]


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


RECORDS = [{"id": str(number), "text": f"line\u2028{number}"} for number in range(1201)]
ROWS = [(record["text"], record["id"]) for record in RECORDS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", parquet(RECORDS, row_group_size=700)),
        ("a.pq", parquet(RECORDS)),
        ("a.jsonl", jsonl(RECORDS)),
        ("a.ndjson", b"\xef\xbb\xbf" + jsonl(RECORDS)),
        ("a.jsonl.gz", gzip.compress(jsonl(RECORDS))),
        ("a.jsonl.gz", gzip.compress(jsonl(RECORDS[:500])) + gzip.compress(jsonl(RECORDS[500:]))),
        ("a.jsonl.zst", zstd(jsonl(RECORDS[:500])) + zstd(jsonl(RECORDS[500:]))),
        ("packed-in-secret.jsonl", zstd(jsonl(RECORDS))),
        ("no-last-newline.jsonl", jsonl(RECORDS).rstrip(b"\n")),
        ("windows.jsonl", jsonl(RECORDS).replace(b"\n", b"\r\n") + b"\r\n\n"),
        ("a.csv", as_csv(RECORDS)),
        ("a.CSV", b"\xef\xbb\xbf" + as_csv(RECORDS)),
        ("a.csv.gz", gzip.compress(as_csv(RECORDS))),
        ("a.csv.zstd", zstd(b"\xef\xbb\xbf" + as_csv(RECORDS))),
    ],
)
def test_every_format_gives_the_asked_columns_in_order(tmp_path: Path, name: str, content: bytes) -> None:
    chunks = list(FileSource(str(put(tmp_path / name, content)), columns=["text", "id"]).read(DAY))

    assert all(chunk.columns == ("text", "id") for chunk in chunks)
    assert all(0 < len(chunk.rows) <= 500 for chunk in chunks)
    assert [row for chunk in chunks for row in chunk.rows] == ROWS


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
values = st.none() | texts | st.booleans() | st.integers(-(2**53), 2**53) | st.lists(texts, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"a": values, "b\u2028 ü": values}), max_size=30), st.integers(1, 7))
def test_json_lines_lose_nothing(records: list[dict[str, Any]], chunk_rows: int) -> None:
    store = ObjectStore(f"memory://{uuid.uuid4().hex}")
    store.write("a.jsonl.gz", gzip.compress(jsonl(records)))

    rows = read(store.uri("a.jsonl.gz"), columns=["b\u2028 ü", "a"], chunk_rows=chunk_rows)

    assert rows == [(record["b\u2028 ü"], record["a"]) for record in records]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts.filter(bool)), max_size=30), st.integers(1, 7))
def test_csv_loses_nothing_but_tells_no_empty_text_from_null(pairs: list[tuple[str, str]], chunk_rows: int) -> None:
    store = ObjectStore(f"memory://{uuid.uuid4().hex}")
    store.write("a.csv", as_csv([{"a": "first", "b": "x"}, *({"a": a, "b": b} for a, b in pairs)]))

    rows = read(store.uri("a.csv"), chunk_rows=chunk_rows)

    assert rows == [("first", "x"), *((a or None, b) for a, b in pairs)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(texts | st.none(), st.integers() | st.none()), max_size=30), st.integers(1, 7))
def test_parquet_loses_nothing(pairs: list[tuple[str | None, int | None]], group_rows: int) -> None:
    small = [(text, number if number is not None and abs(number) < 2**62 else None) for text, number in pairs]
    schema = pa.schema([("a", pa.string()), ("b", pa.int64())])
    file = io.BytesIO()
    table = pa.Table.from_pylist([{"a": a, "b": b} for a, b in small], schema=schema)
    pq.write_table(table, file, row_group_size=group_rows)
    store = ObjectStore(f"memory://{uuid.uuid4().hex}")
    store.write("a.parquet", file.getvalue())

    assert read(store.uri("a.parquet"), columns=["b", "a"]) == [(b, a) for a, b in small]


def test_values_are_plain_python_values(tmp_path: Path) -> None:
    at = datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=UTC)
    table = pa.table(
        {
            "time": pa.array([1795230245678901234], pa.timestamp("ns", "UTC")),
            "nested": pa.array([{"t": [1795230245678901234]}], pa.struct([("t", pa.list_(pa.timestamp("ns", "UTC")))])),
            "money": pa.array([Decimal("1.50")]),
            "tag": pa.array(["x"]).dictionary_encode(),
            "none": pa.nulls(1),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    (row,) = read(tmp_path / "a.parquet")

    assert row == (at, {"t": [at]}, Decimal("1.50"), "x", None)
    assert type(row[0]) is datetime


def test_without_columns_all_are_given(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", b'{"a": 1}\n{"b": {"c": [1]}, "a": null}\n')
    (chunk,) = FileSource(str(tmp_path / "a.jsonl")).read(DAY)

    assert chunk.columns == ("a", "b")
    assert chunk.rows == [(1, None), (None, {"c": [1]})]


# --- which files ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Connection | None]]:
    """A folder with a few files, each of one record that says where it was."""
    names = [
        "a.jsonl",
        "b.jsonl",
        "2026/11/21/c.jsonl",
        "2026/11/22/d.jsonl",
        "_SUCCESS",
        "_tmp/x.jsonl",
        ".hidden.jsonl",
    ]
    uri, connection = str(tmp_path), None
    if request.param == "s3":
        server: S3ForTests = request.getfixturevalue("s3_server")
        extra = {"endpoint_url": server.endpoint, "region_name": server.region}
        connection = Connection("s3", "aws", login=server.key, password=server.secret, extra=extra)
        uri = f"s3://{server.new_bucket()}/in"
    store = ObjectStore(uri, connection)
    for name in names:
        store.write(name, jsonl([{"id": name}]))
    yield uri, connection


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("", ["2026/11/21/c.jsonl", "2026/11/22/d.jsonl", "a.jsonl", "b.jsonl"]),
        ("/", ["2026/11/21/c.jsonl", "2026/11/22/d.jsonl", "a.jsonl", "b.jsonl"]),
        ("/b.jsonl", ["b.jsonl"]),
        ("/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("/?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("/**/*.jsonl", ["2026/11/21/c.jsonl", "2026/11/22/d.jsonl", "a.jsonl", "b.jsonl"]),
        ("/2026/**", ["2026/11/21/c.jsonl", "2026/11/22/d.jsonl"]),
        ("/2026/*/22/*", ["2026/11/22/d.jsonl"]),
        ("/{{ window_start.strftime('%Y/%m/%d') }}/*.jsonl", ["2026/11/21/c.jsonl"]),
        ("/{{ window_end | strftime('%Y/%m/%d') }}", ["2026/11/22/d.jsonl"]),
        ("/{{ ds | replace('-', '/') }}/c.jsonl", ["2026/11/21/c.jsonl"]),
        ("/nothing/*", []),
        ("/nothing", []),
        ("/*.csv", []),
    ],
)
def test_an_address_names_files(folder: tuple[str, Connection | None], pattern: str, names: list[str]) -> None:
    uri, connection = folder

    assert read(uri + pattern, connection=connection, columns=["id"]) == [(name,) for name in names]


def test_an_exact_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="there is no such file"):
        read(tmp_path / "revews.parquet")


@pytest.mark.parametrize("template", ["{{ windw_start }}", "{{ ds", "{{ ds.__class__.x }}", "{{ ds | strftime }}"])
def test_a_template_that_fails_is_told(tmp_path: Path, template: str) -> None:
    with pytest.raises(BadSource, match="the template in its address fails"):
        read(f"{tmp_path}/{template}/*.csv")


def test_a_source_that_is_a_sinks_folder_is_found_out() -> None:
    for uri in ("s3://b/in", "s3://b/in/", "s3://b/in/*.csv", "s3://b/in/{{ ds }}/*.csv", "s3a://b/in/**"):
        assert FileSource(uri).identity == "s3://b/in"
    assert FileSource("s3://b/in/a.csv").identity == "s3://b/in/a.csv"


def test_names_without_extension_need_a_format(tmp_path: Path) -> None:
    put(tmp_path / "in" / "part-0", jsonl(RECORDS))
    put(tmp_path / "in" / "part-1", b"")

    assert read(tmp_path / "in", format="jsonl", columns=["text", "id"]) == ROWS
    with pytest.raises(BadSource, match="part-0: its name does not tell its format"):
        read(tmp_path / "in")


def test_folders_that_a_console_made_in_a_bucket_are_no_files(s3_server: S3ForTests) -> None:
    bucket = s3_server.new_bucket()
    files = {"in/": b"", "in/dir/": b"", "in/dir/empty.jsonl": b"", "in/dir/a+%20.jsonl": b'{"id": 1}'}
    for key, content in files.items():
        s3_server.client().put_object(Bucket=bucket, Key=key, Body=content)
    extra = {"endpoint_url": s3_server.endpoint, "region_name": s3_server.region}
    connection = Connection("s3", "aws", login=s3_server.key, password=s3_server.secret, extra=extra)

    assert list(ObjectStore(f"s3://{bucket}/in", connection).names("")) == ["dir/a+%20.jsonl", "dir/empty.jsonl"]
    assert read(f"s3://{bucket}/in/", connection=connection, columns=["id"]) == [(1,)]


def test_an_empty_marker_of_a_folder_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "in" / "marker", b"")
    put(tmp_path / "in" / "z.jsonl", jsonl(RECORDS[:1]))

    assert len(read(tmp_path / "in")) == 1


def test_a_store_that_is_down_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageUnavailable):
        read(tmp_path / "file" / "*.jsonl")


# --- time -------------------------------------------------------------------------------------------------------

TIMES = ["2026-11-20T23:59:59.999999Z", "2026-11-21T00:00:00Z", "2026-11-22T00:59:59+01:00", "2026-11-22T00:00:00Z"]


def timed(rows: list[dict[str, Any]], kind: str) -> tuple[str, bytes]:
    if kind == "jsonl":
        return "a.jsonl", jsonl(rows)
    if kind == "csv":
        return "a.csv", as_csv(rows)
    for row in rows:
        row["at"] = datetime.fromisoformat(row["at"])
    schema = pa.schema([("id", pa.int64()), ("at", pa.timestamp(kind, "UTC"))])
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, row_group_size=1)
    return "a.parquet", file.getvalue()


@pytest.mark.parametrize("kind", ["jsonl", "csv", "us", "ns", "ms"])
@pytest.mark.parametrize("columns", [["id"], ["at", "id"], None])
def test_only_records_of_the_window_are_given(tmp_path: Path, kind: str, columns: list[str] | None) -> None:
    times = TIMES if kind != "ms" else [TIMES[0].replace("999999", "999"), *TIMES[1:]]
    name, content = timed([{"id": number, "at": at} for number, at in enumerate(times)], kind)
    chunks = list(FileSource(str(put(tmp_path / name, content)), columns=columns, time_column="at").read(DAY))

    assert {chunk.columns for chunk in chunks} == {tuple(columns or ["id", "at"])}
    ids = [int(dict(zip(chunk.columns, row, strict=True))["id"]) for chunk in chunks for row in chunk.rows]
    assert ids == [1, 2]


def test_row_groups_outside_the_window_are_not_even_read(tmp_path: Path) -> None:
    rows = [{"id": day, "at": (MIDNIGHT + timedelta(days=day)).isoformat()} for day in range(-3, 4)]
    name, content = timed(rows, "us")
    spoiled = bytearray(content)
    spoiled[4:20] = b"\xff" * 16  # the first row group
    put(tmp_path / name, bytes(spoiled))

    assert read(tmp_path / name, columns=["id"], time_column="at") == [(0,)]
    with pytest.raises(BadSource, match="row group 1 of 7 cannot be read"):
        read(tmp_path / name, columns=["id"])


def test_a_time_without_a_zone_needs_a_declared_one(tmp_path: Path) -> None:
    file = put(tmp_path / "a.csv", b"id,at\n1,2026-11-21 00:30\n2,2026-11-21 01:00\n3,2026-11-22\n")

    assert read(file, columns=["id"], time_column="at", timezone="Europe/Berlin") == [("2",), ("3",)]
    with pytest.raises(BadSource, match=r"lines 2 to 4: column at holds a time without a zone.*timezone"):
        read(file, time_column="at")


def test_a_time_column_that_no_record_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="not one record has a field at"):
        read(put(tmp_path / "a.jsonl", b'{"id": 1}'), columns=["id"], time_column="at")


# --- complaints -------------------------------------------------------------------------------------------------

GOOD_PARQUET = parquet(RECORDS, row_group_size=400, compression="none")


def spoiled_parquet() -> bytes:
    meta = pq.ParquetFile(io.BytesIO(GOOD_PARQUET)).metadata.row_group(1).column(0)
    start = meta.dictionary_page_offset or meta.data_page_offset
    return GOOD_PARQUET[:start] + b"\xff" * 40 + GOOD_PARQUET[start + 40 :]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", GOOD_PARQUET[:-20], "its footer cannot be read"),
        ("a.parquet", b"", "its footer cannot be read"),
        ("a.parquet", jsonl(RECORDS), "its footer cannot be read"),
        ("a.parquet", spoiled_parquet(), "row group 2 of 4 cannot be read"),
        ("a.parquet", parquet([{"id": 1}]), "not one record has a field text; there are id"),
        ("a.jsonl", jsonl(RECORDS)[:-10], "line 1201 cannot be read"),
        ("a.jsonl", b"[1]\n" + jsonl(RECORDS[:3]), "line 1 cannot be read"),
        ("a.jsonl", as_csv(RECORDS[:3]), "line 1 cannot be read"),
        ("a.jsonl", b'{"id": "1"}\n', "not one record has a field text"),
        ("a.jsonl.gz", gzip.compress(jsonl(RECORDS))[:-100], "line .* cannot be read: Truncated"),
        ("a.jsonl.zst", zstd(jsonl(RECORDS))[:-10], "line .* cannot be read: Truncated"),
        ("a.jsonl.gz", jsonl(RECORDS), "its name says gzip, and its content is not"),
        ("a.csv", b"", "it is empty"),
        ("a.csv", b"id\n1\n", "not one record has a field text; there are id"),
        ("a.csv", b"R\xaa\xd2\x92,\x00\x8f\n\xff,\xfe\n", "its first line is not UTF-8 text, so it is no CSV file"),
        ("a.csv", "id,größe\n1,2\n".encode("cp1252"), "its first line is not UTF-8 text"),
        ("a.csv", b"id,text,text\n1,2,3\n", "it has the column 'text' more than once"),
        (
            "a.csv",
            b'id,text\n1,"2\n3,4\n',
            "line 3 cannot be read: unexpected end of data.*or a quote was never closed",
        ),
        ("a.csv", b'id,text\n1,"2\n3,"4\n5,6\n', "line 3 cannot be read: ',' expected after '\"'"),
        ("a.csv", b'id,text\n1,"2\n3","4"\n5,6\n', "line 3 cannot be read: it has 3 fields"),
        ("a.csv.gz", gzip.compress(as_csv(RECORDS))[:-100], "line .* cannot be read: Truncated"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    file = put(tmp_path / name, content)

    with pytest.raises(BadSource, match=problem) as caught:
        read(file, columns=["id", "text"])

    assert str(file) in str(caught.value)


def read_both(address: Path, **options: Any) -> tuple[Rows, list[tuple[str, str]]]:
    """Give the records, and where and why others could not be read."""
    chunks = list(FileSource(str(address), **options).read(DAY))
    bad = [bad for chunk in chunks for bad in chunk.unreadable]
    return [row for chunk in chunks for row in chunk.rows], [(bad.place, bad.problem) for bad in bad]


BAD_LINES = [
    ("a.jsonl", b'{"id": 1, "text": "x"}\n[1]\n{"id": 3, "text": "z"}\n', 2, "no JSON object can be read: "),
    ("a.jsonl", b'{"id": 1, "text": "x"}\n{"id": 2,\n{"id": 3, "text": "z"}\n', 2, "no JSON object can be read: "),
    ("a.jsonl", b'{"id": 1, "text": "x"}\n{"text": "\xff"}\n{"id": 3, "text": "z"}\n', 2, "no JSON object can be "),
    ("a.csv", b"id,text\n1,x\n2\n3,z\n", 3, "it has 1 fields, and the header has 2"),
    ("a.csv", b"id,text\n1,x\n2,y,z\n3,z\n", 3, "it has 3 fields, and the header has 2"),
    ("a.csv", b'id,text\n1,x\n2,"y"y\n3,z\n', 3, "',' expected after"),
    ("a.csv", "id,text\n1,x\n2,é\n3,z\n".encode("latin-1"), 3, "it is not UTF-8"),
]


@pytest.mark.parametrize("chunk_rows", [1, 2, 500])
@pytest.mark.parametrize(("name", "content", "line", "problem"), BAD_LINES)
def test_a_bad_line_is_told_with_its_place_and_the_others_are_read(
    tmp_path: Path, name: str, content: bytes, line: int, problem: str, chunk_rows: int
) -> None:
    file = put(tmp_path / name, content)

    rows, [(place, told)] = read_both(file, columns=["id", "text"], chunk_rows=chunk_rows)

    assert [(str(key), text) for key, text in rows] == [("1", "x"), ("3", "z")]
    assert (place, told.startswith(problem)) == (f"{file.as_uri()} line {line}", True), told


def test_the_records_of_a_file_without_a_column_are_told_and_those_of_the_others_are_read(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", parquet([{"id": "1", "text": "x"}]))
    put(tmp_path / "b.parquet", parquet([{"id": "2"}, {"id": "3"}]))
    put(tmp_path / "c.csv", b"id\n4\n")

    rows, bad = read_both(tmp_path, columns=["id", "text"])

    assert rows == [("1", "x")]
    assert [(Path(place).name, problem) for place, problem in bad] == [
        ("b.parquet row 1", "the file has no column text"),
        ("b.parquet row 2", "the file has no column text"),
        ("c.csv line 2", "the file has no column text"),
    ]


def test_a_record_whose_time_is_none_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    lines = [{"id": 1, "at": None}, {"id": 2, "at": "yesterday"}, {"id": 3, "at": 17}, {"id": 4, "at": str(MIDNIGHT)}]
    file = put(tmp_path / "a.jsonl", jsonl(lines))

    rows, bad = read_both(file, columns=["id"], time_column="at")

    assert rows == [(4,)]
    assert [problem for _, problem in bad] == [
        "column at holds no value, so the record belongs to no window",
        "column at holds a text that is no ISO 8601 time",
        "column at holds a value of type int, so the record belongs to no window",
    ]


def test_an_absent_field_is_null_where_another_record_has_it(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", b'{"id": 1}\n')
    put(tmp_path / "b.jsonl", b'{"id": 2, "text": "x"}\n')

    assert read(tmp_path, columns=["id", "text"]) == [(1, None), (2, "x")]


def test_a_line_without_end_is_told_and_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightbatch.adapters.sources.formats_text.MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(BadSource, match="line 1 cannot be read: a line is longer"):
        read(put(tmp_path / "a.jsonl", b"x" * (4 << 20)))


# --- memory -----------------------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from datetime import UTC, datetime
from nightbatch.adapters.sources.files import FileSource
from nightbatch.core.window import Window
window = Window(datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))
def rss_mb():  # the peak of this process; getrusage would also count that of its parent before the exec
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
def count(uri): return sum(len(c.rows) for c in FileSource(uri, columns=["id", "text"], time_column=None).read(window))
count(sys.argv[1])
before = rss_mb()
rows = count(sys.argv[2])
print(rows, rss_mb() - before, "pandas" in sys.modules)
"""


def big(kind: str, rows: int) -> Iterator[bytes]:
    text = "x" * 10_000
    if kind == "csv":
        yield b"id,text\n"
    for number in range(rows):
        line = f'{{"id": {number}, "text": "{text}"}}\n' if kind == "jsonl" else f"{number},{text}\n"
        yield line.encode()


def big_parquet(path: Path, rows: int) -> None:
    schema = pa.schema([("id", pa.int64()), ("text", pa.string())])
    texts = ["x" * 9_900 + f"{number:0100}" for number in range(rows)]
    table = pa.Table.from_pydict({"id": range(rows), "text": texts}, schema=schema)
    pq.write_table(table, path, row_group_size=rows, compression="none", use_dictionary=False)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_large_file_takes_little_memory(tmp_path: Path, kind: str) -> None:
    """200 MB, in Parquet in a single row group."""
    make: Callable[[Path, int], object] = big_parquet
    if kind != "parquet":

        def make(path: Path, rows: int) -> object:
            with path.open("wb") as file:
                return file.writelines(big(kind, rows))

    make(tmp_path / f"small.{kind}", 100)
    make(tmp_path / f"large.{kind}", 20_000)
    assert (tmp_path / f"large.{kind}").stat().st_size > 190_000_000

    command = [sys.executable, "-c", MEASURE, str(tmp_path / f"small.{kind}"), str(tmp_path / f"large.{kind}")]
    rows, extra_mb, has_pandas = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert int(rows) == 20_000
    assert float(extra_mb) < 100
    assert has_pandas == "False"

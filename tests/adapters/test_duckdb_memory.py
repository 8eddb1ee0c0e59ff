"""DuckDB takes the memory that it is given, spills apart from other processes, and takes more only where it must."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.adapters.sinks.answers import about, answers

from nightbatch.adapters import duckdb_connection
from nightbatch.adapters.duckdb_connection import connected
from nightbatch.adapters.sinks.duckdb import DuckDBSink
from nightbatch.adapters.sources.duckdb import DuckDBSource
from nightbatch.core.window import Window
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, MergeCounts

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
DAY = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
RECORDS, LETTERS = 400_000, 1_024
SORTED = "SELECT id, text FROM reviews ORDER BY id"
GREEDY = "SELECT length(string_agg(text, '' ORDER BY id)) AS id, 'x' AS text FROM reviews"
"""Makes one text of all, which no disk helps with."""

READ = """
import sys
from nightbatch.adapters.sinks.duckdb import DuckDBSink
from nightbatch.adapters.sources.duckdb import DuckDBSource
from nightbatch.core.window import Window
from nightbatch.ports import Connection
from datetime import UTC, datetime, timedelta

def held_kb(name):
    return int(open("/proc/self/status").read().split(name)[1].split()[0])

source = DuckDBSource(Connection("w", "duckdb", host=sys.argv[1]), sys.argv[2], whole_table=True)
chunks = source.read(Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)))
before = held_kb("VmRSS:")
ids = [row[0] for chunk in chunks for row in chunk.rows]
assert ids == sorted(ids)
print(len(ids), held_kb("VmHWM:") - before)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hundred thousand records of 1 KB, in no order."""
    file = tmp_path_factory.mktemp("duckdb") / "warehouse.duckdb"
    with duckdb.connect(str(file)) as database:
        database.execute(
            f"CREATE TABLE reviews AS SELECT (i * 7919) % {RECORDS} AS id, "
            f"(SELECT string_agg(md5((i * 200 + j)::VARCHAR), '') FROM range({LETTERS // 32}) AS words(j)) AS text "
            f"FROM range({RECORDS}) AS records(i)"
        )
    return file


def source_of(file: Path, sql: str, **extra: Any) -> DuckDBSource:
    return DuckDBSource(Connection("warehouse", "duckdb", host=str(file), extra=extra), sql, whole_table=True)


def rows_of(source: DuckDBSource) -> list[tuple[Any, ...]]:
    return [row for chunk in source.read(DAY) for row in chunk.rows]


def setting(connection: Connection, name: str) -> Any:
    with connected(connection, read_only=True) as database:
        return database.execute(f"SELECT current_setting('{name}')").fetchall()[0][0]


def test_a_sort_of_more_than_the_limit_is_done_on_disk(file: Path) -> None:
    """As a worker does it, in a process of its own; without a limit it takes 800 MB."""
    done = subprocess.run([sys.executable, "-c", READ, str(file), SORTED], capture_output=True, text=True, check=True)

    rows, kb = map(int, done.stdout.split())
    assert rows == RECORDS
    assert kb < 650_000
    assert "asked again" not in done.stderr


def test_a_query_that_cannot_do_with_it_is_given_more(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, little in (("MEMORY", "100MB"), ("MORE_MEMORY", "110MB")):
        monkeypatch.setattr(duckdb_connection, name, little)

    assert rows_of(source_of(file, GREEDY)) == [(RECORDS * LETTERS, "x")]

    assert "cannot do with 100MB of memory, and is asked again with 110MB." in caplog.text
    assert "cannot do with 110MB of memory, and is asked again with what DuckDB takes." in caplog.text
    assert "Say `memory_limit` in the extra of connection warehouse" in caplog.text


def test_answers_that_need_more_memory_are_loaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given up would be paid answers that never arrive, however often it is tried."""
    for name, little in (("MEMORY", "16MB"), ("MORE_MEMORY", "17MB")):
        monkeypatch.setattr(duckdb_connection, name, little)
    connection = Connection("warehouse", "duckdb", host=str(tmp_path / "sink.duckdb"))
    sink = DuckDBSink(connection, "answers", key_column="id", answer_schema=None)
    sink.prepare(about())
    part = [answers({f"{batch}-{row}": f"{batch} {row} " * 500 for row in range(500)}) for batch in range(40)]

    merged = [sink.merge(about(), "part", part) for _ in range(2)]

    assert merged == [MergeCounts(offered=20_000, merged=20_000, newer_kept=0)] * 2
    assert sum(map(len, sink.known())) == 20_000
    assert "16MB of memory are too little" in caplog.text


def test_answers_that_are_only_read_take_little_and_more_where_they_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection = Connection("warehouse", "duckdb", host=str(tmp_path / "sink.duckdb"))
    sink = DuckDBSink(connection, "answers", key_column="id", answer_schema=None)
    sink.prepare(about())
    sink.merge(about(), "part", [answers({f"{number}": f"{number} " * 1_000 for number in range(5_000)})])

    assert sum(map(len, sink.known())) == 5_000
    assert not caplog.text

    monkeypatch.setattr(duckdb_connection, "SCAN_MEMORY", "64kB")
    assert sum(map(len, sink.known())) == 5_000
    assert "cannot do with 64kB of memory, and is asked again with 512MB" in caplog.text


def test_long_answers_behind_short_ones_are_read_to_the_end(tmp_path: Path) -> None:
    """Too little memory shows only when they come, and by then it is too late to ask again with more."""
    connection = Connection("warehouse", "duckdb", host=str(tmp_path / "sink.duckdb"))
    sink = DuckDBSink(connection, "answers", key_column="id", answer_schema=None)
    sink.prepare(about())
    sink.merge(about(), "part", [answers({"first": "short"})])
    columns = (
        "answers.* EXCLUDE (id, answer), id || '-' || n AS id, repeat('long ', if(n < 130_000, 1, 8_000)) AS answer"
    )
    with duckdb.connect(str(tmp_path / "sink.duckdb")) as database:
        database.execute(f"INSERT INTO answers BY NAME SELECT {columns} FROM answers, range(136_000) AS numbers(n)")

    assert sum(map(len, sink.given("answer"))) == 136_001
    assert sum(map(len, sink.known())) == sum(map(len, sink.held(about()))) == 136_001


def test_what_somebody_decided_is_a_limit(file: Path) -> None:
    with pytest.raises(StorageUnavailable, match="say more as `memory_limit` in the connection's extra"):
        rows_of(source_of(file, GREEDY, memory_limit="100MB"))


def test_the_extra_decides(file: Path) -> None:
    given = Connection("warehouse", "duckdb", host=str(file), extra={"memory_limit": "1GiB", "threads": 2})

    assert setting(given, "memory_limit") == "1.0 GiB"
    assert setting(given, "threads") == 2


@pytest.mark.parametrize("extra", [{"memory_limit": "much"}, {"threads": "many"}, {"threads": 0}])
def test_an_extra_that_duckdb_does_not_know_is_told(file: Path, extra: dict[str, Any]) -> None:
    with pytest.raises(ConnectionInvalid, match=f"Correct `{next(iter(extra))}` in its extra"):
        rows_of(source_of(file, SORTED, **extra))


def test_two_processes_that_read_one_file_spill_apart(file: Path) -> None:
    """DuckDB numbers its spilled files from 0, and a folder beside the database would be the same for both."""
    connection = Connection("warehouse", "duckdb", host=str(file))
    ask = "import sys, tests.adapters.test_duckdb_memory as t; print(t.folder_of(sys.argv[1]))"
    theirs = subprocess.run([sys.executable, "-c", ask, str(file)], capture_output=True, text=True, check=True)

    mine = setting(connection, "temp_directory")
    other = theirs.stdout.strip()

    assert mine != other
    assert file.parent not in (Path(mine), Path(mine).parent)
    assert not any(map(os.path.exists, (mine, other))), "a folder goes with the last session"


def test_two_sessions_of_a_process_share_what_they_spill_into(file: Path) -> None:
    """They are one database for DuckDB, which refuses to move a folder in use."""
    first, second = source_of(file, SORTED).read(DAY), source_of(file, SORTED, memory_limit="1GB").read(DAY)

    assert next(first).rows[0][0] == next(second).rows[0][0] == 0
    assert sum(len(chunk.rows) for chunk in first) > 0, "one ends before the other"
    assert [row[0] for chunk in second for row in chunk.rows][-1] == RECORDS - 1


def folder_of(file: str) -> str:
    """Give where this process spills to."""
    return str(setting(Connection("warehouse", "duckdb", host=file), "temp_directory"))

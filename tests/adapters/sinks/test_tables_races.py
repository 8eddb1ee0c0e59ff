"""Merges may come in any order, twice, and at once; and what only one warehouse has: rights, locks, row versions."""

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.sinks.answers import about, answers, dead_letters
from tests.adapters.warehouses import Warehouse, connection_to, open_warehouse
from tests.servers import PostgresForTests, postgres_server  # noqa: F401 -- a fixture

from nightbatch.adapters.sinks.postgres_tables import RIGHTS
from nightbatch.errors import BadSink, ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, MergeCounts

_tables = itertools.count(1)


@pytest.fixture(scope="module", params=["postgres", "duckdb"])
def warehouse(
    request: pytest.FixtureRequest, postgres_server: Any, tmp_path_factory: pytest.TempPathFactory  # noqa: F811
) -> Iterator[Warehouse]:  # fmt: skip
    with open_warehouse(request.param, postgres_server, tmp_path_factory.mktemp("warehouse")) as empty:
        yield empty


@pytest.fixture
def postgres(postgres_server: PostgresForTests) -> Warehouse:  # noqa: F811
    return Warehouse("postgres", connection_to(postgres_server.new_database()))


parts = st.tuples(
    st.integers(-1, 1), st.integers(1, 2), st.dictionaries(st.sampled_from("abcd"), st.none(), min_size=1).map(sorted)
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(parts, max_size=5), st.data())
def test_parts_in_any_order_and_any_number_leave_the_newest_answers(
    warehouse: Warehouse, offered: list[tuple[int, int, list[str]]], data: st.DataObject
) -> None:
    offered = [*offered, *data.draw(st.permutations(offered)), *data.draw(st.permutations(offered))[:2]]
    sink = warehouse.sink(f"shop.t{next(_tables)}")
    sink.prepare(about())
    expected: dict[str, tuple[int, int]] = {}

    for day, generation, keys in offered:
        counts = sink.merge(
            about(day=day, generation=generation), "s", [answers(dict.fromkeys(keys, f"{day} {generation}"))]
        )

        newer = sum(expected.get(key, (-9, 0)) > (day, generation) for key in keys)
        assert counts == MergeCounts(offered=len(keys), merged=len(keys) - newer, newer_kept=newer)
        for key in keys:
            expected[key] = max(expected.get(key, (-9, 0)), (day, generation))
    kept = dict(warehouse.run(f"SELECT id, answer FROM {sink.identity.rsplit('/', 1)[1]}"))
    assert kept == {key: f"{day} {generation}" for key, (day, generation) in expected.items()}


def test_a_merge_that_is_done_again_writes_nothing(postgres: Warehouse) -> None:
    sink = postgres.sink()
    sink.prepare(about())
    sink.merge(about(), "s", [answers({"a": "x"})])
    before = postgres.run("SELECT xmin, ctid, t.* FROM shop.answers t")

    sink.merge(about(), "s", [answers({"a": "x"})])

    assert postgres.run("SELECT xmin, ctid, t.* FROM shop.answers t") == before


def held_up(batch: pa.RecordBatch, barrier: threading.Barrier) -> Iterator[pa.RecordBatch]:
    """Give a batch, and go on only when everybody has given theirs: all transactions are open by then."""
    yield batch
    barrier.wait(30)


def test_merges_that_share_keys_never_wait_in_a_circle(postgres: Warehouse) -> None:
    """Each of four merges offers the same keys in another order, while a fifth task buries them."""
    sink = postgres.sink()
    sink.prepare(about())
    keys = [f"k{number:03d}" for number in range(400)]
    sink.bury(about(), "s", [dead_letters(dict.fromkeys(keys, "refused"))])
    orders = [keys, keys[::-1], keys[200:] + keys[:200], keys[::2] + keys[1::2]]

    for round_ in range(5):
        barrier = threading.Barrier(5)

        def merge(number: int, round_: int = round_, barrier: threading.Barrier = barrier) -> MergeCounts:
            batch = answers(dict.fromkeys(orders[number], f"{round_} {number}"))
            return sink.merge(about(day=number), "s", held_up(batch, barrier))

        def bury(round_: int = round_, barrier: threading.Barrier = barrier) -> int:
            return sink.bury(about(), "s", held_up(dead_letters(dict.fromkeys(keys, str(round_))), barrier))

        with ThreadPoolExecutor(5) as pool:
            buried = pool.submit(bury)
            counts = list(pool.map(merge, range(4)))
        assert buried.result() == 400
        assert all(count.offered == count.merged + count.newer_kept == 400 for count in counts)
        assert counts[3].merged == 400
        assert postgres.run("SELECT DISTINCT answer FROM shop.answers") == [(f"{round_} 3",)]


def test_counts_of_racing_merges_are_those_of_one_order(postgres: Warehouse) -> None:
    sink = postgres.sink()
    sink.prepare(about())
    barrier = threading.Barrier(2)

    def merge(day: int) -> MergeCounts:
        return sink.merge(about(day=day), "s", held_up(answers({"a": str(day)}), barrier))

    with ThreadPoolExecutor(2) as pool:
        older, newer = pool.map(merge, [0, 1])

    assert newer == MergeCounts(offered=1, merged=1, newer_kept=0)
    assert older in (MergeCounts(offered=1, merged=1, newer_kept=0), MergeCounts(offered=1, merged=0, newer_kept=1))
    assert postgres.run("SELECT answer FROM shop.answers") == [("1",)]


def test_a_new_column_may_be_added_while_a_merge_runs(postgres: Warehouse) -> None:
    postgres.sink().prepare(about())
    wider = postgres.sink(answer_schema={"type": "object", "properties": {"mood": {"type": "string"}}})
    copied, may_end = threading.Event(), threading.Event()

    def slow() -> Iterator[pa.RecordBatch]:
        yield answers({"a": "x"})
        copied.set()
        may_end.wait(30)

    with ThreadPoolExecutor(2) as pool:
        merging = pool.submit(postgres.sink().merge, about(), "s", slow())
        copied.wait(30)
        widening = pool.submit(wider.prepare, about())
        may_end.set()
        assert merging.result().merged == 1
        widening.result()
    assert postgres.run("SELECT answer, mood FROM shop.answers") == [("x", None)]


def test_rows_of_one_key_in_a_part_leave_the_later_round(warehouse: Warehouse) -> None:
    table = f"shop.t{next(_tables)}"
    sink = warehouse.sink(table)
    sink.prepare(about())
    first, second = answers({"a": "first"}), answers({"a": "second"})
    rounds = [pa.array([number], pa.int32()) for number in (1, 0)]
    index = first.schema.get_field_index("round")
    batches = [batch.set_column(index, "round", number) for batch, number in zip((first, second), rounds, strict=True)]

    assert sink.merge(about(), "s", batches).offered == 2
    assert warehouse.run(f"SELECT answer FROM {table}") == [("first",)]


def guest_of(owner: Warehouse) -> Warehouse:
    """Make a role that may only connect."""
    name = f"guest{next(_tables)}"
    owner.run(f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    to = owner.connection
    return Warehouse(
        "postgres", Connection("guest", "postgres", to.host, to.port, login=name, password=name, schema=to.schema)
    )


def test_missing_rights_are_told_before_money_is_spent(postgres: Warehouse) -> None:
    guest = guest_of(postgres)
    with pytest.raises(BadSink, match=r"permission denied.*Grant the connection's role"):
        guest.sink().prepare(about())

    postgres.sink().prepare(about())
    postgres.run(f"GRANT USAGE ON SCHEMA shop TO {guest.connection.login}")
    postgres.run(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA shop TO {guest.connection.login}")
    with pytest.raises(BadSink, match=r"may not UPDATE on shop.answers\. GRANT"):
        guest.sink().prepare(about())


def test_tables_made_by_somebody_else_are_used_with_rights_alone(postgres: Warehouse) -> None:
    """Those that docs/security.md names, and not one less."""
    guest = guest_of(postgres)
    role = guest.connection.login
    postgres.sink().prepare(about())
    postgres.run(f"GRANT USAGE ON SCHEMA shop TO {role}")
    postgres.run(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA shop TO {role}")
    postgres.run(f"GRANT DELETE ON shop.answers_dead_letters TO {role}")

    guest.sink().prepare(about())
    guest.sink().bury(about(), "s", [dead_letters({"a": "refused", "b": "refused"})])
    guest.sink().merge(about(), "s", [answers({"a": "x"})])

    assert postgres.run("SELECT answer FROM shop.answers") == [("x",)]
    assert postgres.run("SELECT id FROM shop.answers_dead_letters") == [("b",)]
    for table, right in [(name, right) for name in ("answers", "answers_dead_letters") for right in RIGHTS] + [
        ("answers_dead_letters", "DELETE")
    ]:
        postgres.run(f"REVOKE {right} ON shop.{table} FROM {role}")
        with pytest.raises(BadSink, match=f"may not {right} on shop.{table}"):
            guest.sink().prepare(about())
        postgres.run(f"GRANT {right} ON shop.{table} TO {role}")


def test_a_column_of_the_users_own_may_be_there_unless_it_must_be_filled(postgres: Warehouse) -> None:
    postgres.sink().prepare(about())
    postgres.run("ALTER TABLE shop.answers ADD COLUMN noted text DEFAULT 'new'")
    postgres.sink().merge(about(), "s", [answers({"a": "x"})])
    assert postgres.run("SELECT id, noted FROM shop.answers") == [("a", "new")]

    postgres.run("ALTER TABLE shop.answers ADD COLUMN owner text NOT NULL DEFAULT ''")
    postgres.run("ALTER TABLE shop.answers ALTER COLUMN owner DROP DEFAULT")
    with pytest.raises(BadSink, match=r"NotNullViolation \(owner\)\. Give the column a default") as told:
        postgres.sink().merge(about(), "s", [answers({"b": "secret answer"})])
    assert "secret" not in str(told.value)


def test_a_server_that_is_gone_is_tried_again(postgres: Warehouse) -> None:
    to = postgres.connection
    gone = Warehouse("postgres", Connection("x", "postgres", to.host, 1, login=to.login, schema=to.schema))

    for attempt in (
        lambda: gone.sink().prepare(about()),
        lambda: gone.sink().merge(about(), "s", []),
        lambda: list(gone.sink().known()),
    ):
        with pytest.raises(StorageUnavailable):
            attempt()


MERGE = """
import sys
from tests.adapters.sinks.answers import about, answers
from tests.adapters.warehouses import Warehouse
from nightbatch.ports import Connection
sink = Warehouse("duckdb", Connection("w", "duckdb", host=sys.argv[1])).sink()
for number in range(5):
    print(sink.merge(about(), "s", [answers({f"{sys.argv[2]}-{number}": "x"})]).merged)
"""


def test_processes_that_write_one_duckdb_file_wait_for_each_other(tmp_path: Path) -> None:
    file = str(tmp_path / "new folder" / "warehouse.duckdb")
    here = Warehouse("duckdb", Connection("w", "duckdb", host=file))
    here.sink().prepare(about())
    root = Path(__file__).parents[3]

    processes = [
        subprocess.Popen([sys.executable, "-c", MERGE, file, name], cwd=root, stdout=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    assert [process.communicate(timeout=60)[0].split() for process in processes] == [["1"] * 5] * 2

    assert here.run("SELECT count(*) FROM shop.answers") == [(10,)]


def test_threads_that_write_one_duckdb_file_wait_for_each_other(tmp_path: Path) -> None:
    here = Warehouse("duckdb", Connection("w", "duckdb", host=str(tmp_path / "w.duckdb")))
    here.sink().prepare(about())

    with ThreadPoolExecutor(4) as pool:
        counts = list(
            pool.map(lambda day: here.sink().merge(about(day=day), "s", [answers({"a": str(day)})]), range(4))
        )

    assert all(count.offered == 1 for count in counts)
    assert here.run("SELECT answer FROM shop.answers") == [("3",)]


def test_a_duckdb_file_that_is_being_read_here_is_tried_again(tmp_path: Path) -> None:
    here = Warehouse("duckdb", Connection("w", "duckdb", host=str(tmp_path / "w.duckdb")))
    here.sink().prepare(about())
    here.sink().merge(about(), "s", [answers({"a": "x"})])

    reading = here.sink().known()
    next(reading)
    with pytest.raises(StorageUnavailable):
        here.sink().merge(about(), "s", [answers({"b": "x"})])
    reading.close()  # type: ignore[attr-defined] -- it is a generator

    assert here.sink().merge(about(), "s", [answers({"b": "x"})]).merged == 1


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "w.duckdb").write_text("no database at all" * 1000)

    with pytest.raises(ConnectionInvalid, match="not a valid DuckDB database"):
        Warehouse("duckdb", Connection("w", "duckdb", host=str(tmp_path / "w.duckdb"))).sink().prepare(about())

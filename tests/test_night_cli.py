"""Whole nights from the command line, on real servers: what a person types, killed and typed again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nightbatch.adapters.sinks.files import read_latest
from nightbatch.emulator import EmulatorSettings, Faults, running
from nightbatch.ports import Connection

pytest_plugins = ["tests.servers"]

JOBS = Path(__file__).parent / "jobs"
DAY = datetime(2026, 3, 10, tzinfo=UTC)
RECORDS = [
    (f"s{number:02d}", f"Sentence {number}: the {thing} is {how}.")
    for number, (thing, how) in enumerate(
        (thing, how)
        for thing in ("picture", "sound", "battery", "price", "lens", "remote", "manual", "case")
        for how in ("great", "awful", "fine", "too loud", "cheap", "broken", "lovely")
    )
]
FAULTS = Faults.parse(
    "transient=0.1, expired=0.05, truncated=0.1, off_schema=0.15, permanent=0.05, missing=0.1, duplicate=0.1, shuffle=1"
)
BATCHES_WITH_A_RETRY = 4
"""Three shards hold the records; the fourth batch is of those that are sent again."""
WAITS = {
    # A lost process is given up after seconds, not minutes.
    "NIGHTBATCH_POLL_FROM_S": "0.3",
    "NIGHTBATCH_POLL_TO_S": "1",
    "NIGHTBATCH_SEND_DEADLINE_S": "5",
    "NIGHTBATCH_REQUEST_TIMEOUT_S": "5",
    "NIGHTBATCH_LISTING_LAG_S": "1",
}


@dataclass
class Desk:
    """A folder in which somebody types commands, and the vendor whom they reach."""

    folder: Path
    vendor: str
    environ: dict[str, str] = field(default_factory=dict)
    sink: Callable[[], list[dict[str, Any]]] = list
    """Gives all rows of the sink, sorted, without what differs between two ledgers."""

    def type(self, *words: str) -> subprocess.Popen[str]:
        """Begin a command."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("NIGHTBATCH", "AIRFLOW"))}
        return subprocess.Popen(
            [sys.executable, "-m", "nightbatch.cli", *words],
            cwd=self.folder,
            env={**environ, **WAITS, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *words: str) -> dict[str, Any]:
        """Carry a command out and read its answer."""
        process = self.type(*words, "--json")
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
        answer: dict[str, Any] = json.loads(out)
        return answer

    def state(self) -> dict[str, Any]:
        """Ask the vendor what it did and billed."""
        reply = httpx.get(f"{self.vendor}/emulator/state", headers={"Authorization": "Bearer sk-emulator"}, timeout=10)
        answer: dict[str, Any] = reply.raise_for_status().json()
        return answer

    @property
    def batches(self) -> int:
        """Count the batches that were ever made."""
        return sum(self.state()["creations"].values())

    def shards(self) -> list[dict[str, Any]]:
        """List all shards of the latest run."""
        shards: list[dict[str, Any]] = self.json("status", "--last", "1")["runs"][0]["shards"]
        return shards

    def kill_when(self, is_time: Callable[[], bool], *words: str) -> None:
        """Begin a command, and kill it without warning at a moment that is seen from outside."""
        process = self.type(*words)
        try:
            while not is_time():
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL


@contextmanager
def desk(folder: Path, *jobs: str, **vendor: Any) -> Iterator[Desk]:
    """Put a desk up with these job files and a vendor."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        shutil.copy(JOBS / f"{job}.yaml", folder)
    key = {"password": "sk-emulator"}
    with running(EmulatorSettings(seed=7, **{"batch_seconds": 0.5, **vendor})) as url:
        yield Desk(
            folder,
            url,
            {
                "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps({"conn_type": "openai", "host": f"{url}/v1", **key}),
                "AIRFLOW_CONN_ANTHROPIC_DEFAULT": json.dumps({"conn_type": "anthropic", "host": url, **key}),
            },
        )


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows, without the custom_id: it names the ledger."""
    kept = [{name: value for name, value in row.items() if name != "nb_custom_id"} for row in rows]
    return sorted(kept, key=lambda row: next(iter(row.values())))


def window() -> tuple[str, ...]:
    """Name the window of the records."""
    return ("--from", DAY.isoformat(), "--to", (DAY + timedelta(days=1)).isoformat())


def write_records(folder: Path, records: list[tuple[str, str]]) -> None:
    """Put records into a local file."""
    lines = [json.dumps({"id": key, "text": text}) for key, text in records]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")


@contextmanager
def warehouse_night(folder: Path, postgres: Any, **vendor: Any) -> Iterator[Desk]:
    """Warehouse, ledger and staging: PostgreSQL, PostgreSQL, a folder; the vendor is OpenAI."""
    url, ledger = postgres.new_database(), postgres.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table reviews (sentence_id text primary key, text text, reviewed_at timestamptz)")
        rows = [(key, text, DAY + timedelta(minutes=number)) for number, (key, text) in enumerate(RECORDS)]
        connection.cursor().executemany("insert into reviews values (%s, %s, %s)", rows)

    def sink() -> list[dict[str, Any]]:
        with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
            tables = ("night_sentiment", "night_sentiment_dead_letters")
            return [row for name in tables for row in plain(connection.execute(f"select * from {name}").fetchall())]

    with desk(folder, "night_sentiment", faults=FAULTS, **vendor) as put_up:
        put_up.environ |= {"AIRFLOW_CONN_WAREHOUSE": url, "NIGHTBATCH_LEDGER_URL": ledger}
        put_up.sink = sink
        yield put_up


@contextmanager
def bucket_night(folder: Path, s3: Any, postgres: Any, **vendor: Any) -> Iterator[Desk]:
    """Source, sink and staging are in S3, the ledger in PostgreSQL; the vendor is Anthropic."""
    bucket = s3.new_bucket()
    extra = {"endpoint_url": s3.endpoint, "region_name": s3.region}
    aws = {"conn_type": "aws", "login": s3.key, "password": s3.secret, "extra": extra}
    times = [DAY + timedelta(minutes=number) for number in range(len(RECORDS))]
    table = pa.table(
        {"sentence_id": [key for key, _ in RECORDS], "text": [text for _, text in RECORDS], "reviewed_at": times}
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    s3.client().put_object(Bucket=bucket, Key="incoming/day.parquet", Body=buffer.getvalue().to_pybytes())

    def sink() -> list[dict[str, Any]]:
        connection = Connection("aws_default", "aws", login=s3.key, password=s3.secret, extra=extra)
        return plain(read_latest(f"s3://{bucket}/topics/", connection).to_pylist())

    with desk(folder, "night_topics", faults=FAULTS, **vendor) as put_up:
        file = put_up.folder / "night_topics.yaml"
        file.write_text(file.read_text().replace("s3://bucket/", f"s3://{bucket}/"))
        put_up.environ |= {
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "NIGHTBATCH_LEDGER_URL": postgres.new_database(),
            "NIGHTBATCH_STAGING_URI": f"s3://{bucket}/staging",
            "NIGHTBATCH_STAGING_CONNECTION": "aws_default",
        }
        put_up.sink = sink
        yield put_up


Night = Callable[..., Any]


@pytest.fixture(scope="module")
def night(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Put up the desk of a job, with servers of its own."""
    postgres, s3 = request.getfixturevalue("postgres_server"), request.getfixturevalue("s3_server")

    def put_up(job: str, **vendor: Any) -> Any:
        folder = tmp_path_factory.mktemp(job)
        if job == "night_sentiment":
            return warehouse_night(folder, postgres, **vendor)
        return bucket_night(folder, s3, postgres, **vendor)

    return put_up


def check_one_batch_a_shard(put_up: Desk) -> None:
    """Nobody was asked twice: each shard has its own batch, and the vendor knows of no other."""
    ids = [shard["batch_id"] for shard in put_up.shards()]
    assert len(set(ids)) == len(ids) == put_up.batches


@pytest.mark.parametrize("job", ["night_sentiment", "night_topics"])
def test_a_night_of_faults_ends_with_every_record_in_its_place_and_typed_again_costs_nothing(
    night: Night, job: str
) -> None:
    with night(job) as put_up:
        books = put_up.json("run", f"{job}.yaml", *window())
        rows, state = put_up.sink(), put_up.state()

        assert (books["state"], books["pulled"], books["pending"]) == ("complete", len(RECORDS), {})
        assert books["merged"] + sum(books["dead"].values()) == len(RECORDS)
        assert set(books["sent_again"]) >= {"transient_error", "truncated", "off_schema", "missing"}
        assert set(books["dead"]) == {"invalid_request"}
        assert books["odd"]["repeated rows"] > 0
        answered = [row for row in rows if "nb_reason" not in row]
        assert len(answered) == len({row["sentence_id"] for row in answered}) == books["merged"]
        check_one_batch_a_shard(put_up)

        again = put_up.json("run", f"{job}.yaml", *window())

        closed = again.pop("closed_before")
        assert (closed["state"], closed["job_changed"], books.pop("closed_before")) == ("complete", [], None)
        assert {**again, "seconds": 0} == {**books, "seconds": 0}
        assert put_up.sink() == rows
        assert put_up.state()["rows"] == state["rows"]
        assert put_up.state()["creations"] == state["creations"]


def test_a_run_between_buckets_killed_in_a_retry_round_and_typed_again_ends_the_same_and_pays_once(
    night: Night,
) -> None:
    """Between tables, the cells of `tests/faults` die at every point."""
    with night("night_topics") as calm:
        calm.json("run", "night_topics.yaml", *window())
        undisturbed = calm.sink()
    with night("night_topics", batch_seconds=1.5) as put_up:
        put_up.kill_when(lambda: put_up.batches >= BATCHES_WITH_A_RETRY, "run", "night_topics.yaml", *window())

        books = put_up.json("run", "night_topics.yaml", *window())

        assert books["state"] == "complete"
        assert put_up.sink() == undisturbed
        check_one_batch_a_shard(put_up)
        assert good_twice(put_up) == 0


def good_twice(put_up: Desk) -> int:
    """Count the rows whose good answer was paid for twice, without those that the vendor itself lost."""
    state = put_up.state()
    lost = sum(batch["rows_by_ending"].get("missing", 0) for batch in state["batches"])
    return max(0, int(state["rows"]["good_twice"]) - lost)


def test_a_newcomer_needs_no_server_no_schema_and_no_setting(tmp_path: Path) -> None:
    write_records(tmp_path, RECORDS[:5])
    with desk(tmp_path, "first_steps") as put_up:
        check = put_up.json("check", "first_steps.yaml")
        plan = put_up.json("plan", "first_steps.yaml")
        tried = put_up.json("try", "first_steps.yaml", "-n", "1")
        books = put_up.json("run", "first_steps.yaml")

    assert check["valid"]
    assert (plan["counts"]["requests"], plan["shards"]) == (5, 1)
    assert tried["trials"][0]["answer"] == RECORDS[0][1]
    assert (books["state"], books["merged"]) == ("complete", 5)
    (file,) = (tmp_path / "answers").rglob("*.jsonl")
    answers = {row["id"]: row["answer"] for row in map(json.loads, file.read_text().splitlines())}
    assert answers == dict(RECORDS[:5])
    assert sorted(path.name for path in (tmp_path / ".nightbatch").iterdir()) == ["ledger.sqlite", "staging"]


def test_texts_become_vectors_in_a_duckdb_table(tmp_path: Path) -> None:
    write_records(tmp_path, RECORDS[:5])
    with desk(tmp_path, "vectors") as put_up:
        put_up.environ["AIRFLOW_CONN_DUCK"] = json.dumps({"conn_type": "duckdb", "host": str(tmp_path / "v.duckdb")})
        books = put_up.json("run", "vectors.yaml")

    assert (books["state"], books["merged"], books["output_tokens"]) == ("complete", 5, 0)
    with duckdb.connect(str(tmp_path / "v.duckdb"), read_only=True) as connection:
        rows = connection.execute("select id, answer from vectors order by id").fetchall()
    vectors = {key: json.loads(answer) for key, answer in rows}
    assert set(vectors) == {key for key, _ in RECORDS[:5]}
    assert {len(vector) for vector in vectors.values()} == {1536}


def test_what_the_first_model_refuses_is_asked_of_the_second(tmp_path: Path) -> None:
    write_records(tmp_path, RECORDS[:20])
    with desk(tmp_path, "second_opinion", faults=Faults.parse("refusal=0.3, only_vendor=openai")) as put_up:
        books = put_up.json("run", "second_opinion.yaml")
        rows = read_latest(str(tmp_path / "answers"), None).to_pylist()
        creations = put_up.state()["creations"]

    assert (books["state"], books["merged"], books["dead"]) == ("complete", 20, {})
    refused = books["sent_again"]["refused"]
    assert refused > 0
    assert [row["nb_provider"] for row in rows].count("anthropic") == refused
    assert creations == {"openai": 1, "anthropic": 1}
    assert {row["id"]: row["answer"] for row in rows} == dict(RECORDS[:20])

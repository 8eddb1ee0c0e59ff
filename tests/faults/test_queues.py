"""
A vendor's queue, shared by jobs in processes of their own: nothing is refused, nobody starves, priority decides.

The vendor is the emulator, which really counts the tokens that wait, and refuses a batch over its limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.core.ids import ShardRef
from nightbatch.core.shard import ShardPlan
from nightbatch.core.window import Window
from nightbatch.emulator import EmulatorSettings, running
from nightbatch.ports import Attempt, Intent, QueuedShard, RoundPlan, Shard

pytestmark = pytest.mark.timeout(900)  # a minute each where the machine has nothing else to do

DAY = Window(datetime(2026, 3, 10, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))
ACCOUNT = "org-emulator/default"
MODEL = "gpt-5-mini"
WORDS = "This sentence is long enough to count for something in a queue of tokens. " * 10
ROWS, ROWS_A_SHARD = 40, 2
SHARD_TOKENS = 700
"""About what a shard holds, as estimated; the emulator counts two thirds of it."""
WAITS = {
    "NIGHTBATCH_POLL_FROM_S": "1",
    "NIGHTBATCH_POLL_TO_S": "5",
    "NIGHTBATCH_QUEUE_WAIT_S": "1",
    "NIGHTBATCH_SEND_DEADLINE_S": "60",
    "NIGHTBATCH_LISTING_LAG_S": "1",
}
PATIENCE_S = 500
"""How long a test waits for anything; a busy machine is slow."""


def until(is_so: Callable[[], Any], what: str) -> Any:
    """Look again and again until something is so."""
    give_up = time.monotonic() + PATIENCE_S
    while not (found := is_so()):
        assert time.monotonic() < give_up, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.1)
    return found


@dataclass
class Floor:
    """Where the jobs run: a folder each, one ledger, one account at one vendor."""

    folder: Path
    vendor: str
    ledger_url: str
    ledger: SqlLedger
    tokens: int
    """What the connection says may wait for the model."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, job: str, *, priority: int = 0, rows: int = ROWS) -> subprocess.Popen[str]:
        """Begin `nightbatch run` of a job, with the records of its own."""
        folder = self.folder / job
        if not folder.exists():
            self._write(folder, job, priority, rows)
        extra = {"queue": {"tokens": {MODEL: self.tokens}}}
        connection = {"conn_type": "openai", "host": f"{self.vendor}/v1", "password": "sk-emulator", "extra": extra}
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("NIGHTBATCH", "AIRFLOW"))}
        environ |= WAITS | {"NIGHTBATCH_LEDGER_URL": self.ledger_url, "NIGHTBATCH_STAGING_URI": str(folder / "staging")}
        times = ("--from", DAY.start.isoformat(), "--to", DAY.end.isoformat())
        with (folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "nightbatch.cli", "run", f"{job}.yaml", *times, "--json"],
                cwd=folder,
                env=environ | {"AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps(connection)},
                stdout=log,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        return process

    def _write(self, folder: Path, job: str, priority: int, rows: int) -> None:
        folder.mkdir()
        records = ({"id": f"{job}{number}", "text": f"{job} {number}: {WORDS}"} for number in range(rows))
        (folder / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
        (folder / f"{job}.yaml").write_text(
            f"""
name: {job}
priority: {priority}
source: {{files: records.jsonl, key: id}}
prompt: {{user: "{{{{ text }}}}"}}
models: [{{provider: openai, model: {MODEL}, connection: openai_default, max_output_tokens: 300}}]
sink: {{files: answers/, format: jsonl}}
shard: {{max_rows: {ROWS_A_SHARD}}}
rounds: 0
max_dead_share: 1.0
"""
        )

    def state(self) -> dict[str, Any]:
        """Ask the vendor what it made, refused and billed."""
        reply = httpx.get(f"{self.vendor}/emulator/state", headers={"Authorization": "Bearer sk-emulator"}, timeout=60)
        answer: dict[str, Any] = reply.raise_for_status().json()
        return answer

    def shards(self, job: str) -> list[Shard]:
        """List the shards of a job."""
        runs = self.ledger.runs(job=job)
        return self.ledger.shards(runs[0].run) if runs else []

    def waiting(self) -> list[QueuedShard]:
        """List who waits in line."""
        return self.ledger.queue()

    def under_way(self, job: str) -> int:
        """Count the batches of a job that are at the vendor, as the ledger knows."""
        return sum(shard.current is not None and shard.current.state == "open" for shard in self.shards(job))

    def begun(self) -> list[str]:
        """Name the job of every attempt of all jobs, in the order in which they were begun."""
        shards = [shard for run in self.ledger.runs() for shard in self.ledger.shards(run.run)]
        attempts = sorted((shard.current for shard in shards if shard.current), key=lambda one: one.attempt_id)
        return [attempt.ref.run.split("/")[0] for attempt in attempts]

    def finished(self, *processes: subprocess.Popen[str]) -> None:
        """Wait until processes have ended well."""
        for process in processes:
            until(lambda process=process: process.poll() is not None, "the jobs have ended")
        logs = {log.parent.name: log.read_text()[-2000:] for log in sorted(self.folder.glob("*/log"))}
        assert [process.returncode for process in processes] == [0] * len(processes), logs

    def loaded(self) -> int:
        """Count the answers in all sinks."""
        files = self.folder.glob("*/answers/**/*.jsonl")
        keys = [json.loads(line)["id"] for file in files if "dead" not in str(file) for line in file.open()]
        assert len(keys) == len(set(keys))
        return len(keys)

    def fill(self) -> Attempt:
        """Take the whole queue, as an attempt whose create reply was lost: nobody may send before it is cleared up."""
        run = self.ledger.open_run("holder", DAY, now=datetime.now(UTC)).run
        ref = ShardRef(run, 0, 0)
        plan = ShardPlan(
            ref, 0, 1, 1, "0" * 64, "r", "i", 1, 1, Decimal(0), Decimal(0), MODEL, "openai", queue_tokens=self.tokens
        )
        self.ledger.seal(RoundPlan(run, 0, (plan,), {}), now=datetime.now(UTC))
        minute = timedelta(minutes=1)
        intent = Intent(
            ref,
            0,
            "openai",
            ACCOUNT,
            Decimal(0),
            send_for=minute,
            certain_after=minute,
            distinct_rows=False,
            day=DAY.end.date(),
        )
        attempt = self.ledger.begin(intent, now=datetime.now(UTC))
        self.ledger.note_sending(attempt.attempt_id)
        return attempt

    def let_go(self, attempt: Attempt) -> None:
        """Prove that there is no such batch."""
        self.ledger.end_attempt(
            attempt.attempt_id, "absent", reason="a complete listing", retry_at=None, now=datetime.now(UTC)
        )


@pytest.fixture
def floor(tmp_path: Path, postgres_server: Any) -> Iterator[Callable[..., Any]]:
    """Put up a vendor with a limit, and a ledger."""
    url = postgres_server.new_database()
    ledger = SqlLedger.open_or_migrate(url)
    floors: list[Floor] = []

    @contextmanager
    def put_up(*, vendor_takes: int, we_think: int, **vendor: Any) -> Iterator[Floor]:
        settings = EmulatorSettings(seed=3, enqueued_token_limit=vendor_takes, **vendor)
        with running(settings) as address:
            floors.append(Floor(tmp_path, address, url, ledger, we_think))
            yield floors[-1]

    yield put_up
    for process in (one for put in floors for one in put.processes):
        process.kill()
        process.wait()
    ledger.close()


def test_five_jobs_of_twenty_shards_share_a_queue_without_one_refusal(floor: Any, cell: Any) -> None:
    """In separate processes: no refusal, the highest priority first, equal ones in turn, the lowest last."""
    limit = 12 * SHARD_TOKENS
    with floor(vendor_takes=limit, we_think=limit, batch_seconds=0.3) as at:
        holder = at.fill()
        jobs = {"low": -1, "one": 0, "two": 0, "three": 0, "high": 7}
        processes = [at.start(job, priority=priority) for job, priority in jobs.items()]
        until(lambda: len(at.waiting()) == 100, "all hundred shards wait in line")
        assert at.begun() == ["holder"]
        reasons = {waiter.reason for waiter in at.waiting()}
        assert all(f"{limit:,} of {limit:,} tokens wait there" in reason for reason in reasons), reasons

        at.let_go(holder)
        at.finished(*processes)

        state = at.state()
        failed = [batch for batch in state["batches"] if batch["status"] != "completed"]
        cell.record(
            expected=5 * ROWS,
            loaded=at.loaded(),
            batches=state["creations"]["openai"],
            billed=sum(batch["billed_rows"] for batch in state["batches"]),
        )
        assert (cell.loaded, cell.batches, cell.billed) == (5 * ROWS, 100, 5 * ROWS)
        assert failed == []
        assert {shard.attempts for job in jobs for shard in at.shards(job)} == {1}  # a refusal would be a second one
        order = at.begun()
        # Where there is room for a shard and for all that go before it, it may be the first to notice: so an order is
        # kept but for one filling of the queue.
        assert order[:12] == ["high"] * 12, order
        assert order[:33].count("high") == 20, order
        assert "low" not in order[:67], order
        assert all(order[:60].count(job) >= 5 for job in ("one", "two", "three")), order
        assert at.waiting() == []


def test_refusals_teach_the_ledger_a_limit_that_nobody_configured(floor: Any, cell: Any) -> None:
    """The vendor takes four shards at a time, and we think a hundred: a refusal or two, then none; no round is lost."""
    with floor(vendor_takes=1_600, we_think=100 * SHARD_TOKENS, over_limit_at="create", batch_seconds=6) as at:
        jobs = ("one", "two")
        at.finished(*[at.start(job, rows=20) for job in jobs])

        state = at.state()
        shards = [shard for job in jobs for shard in at.shards(job)]
        refusals = sum(shard.attempts - 1 for shard in shards)
        cell.record(
            expected=40,
            loaded=at.loaded(),
            batches=state["creations"]["openai"],
            billed=sum(batch["billed_rows"] for batch in state["batches"]),
        )
        assert (cell.loaded, cell.batches, cell.billed) == (40, 20, 40)
        # One teaches; the other process may have been sending as well, before each of the two knew.
        assert 1 <= refusals <= 4
        assert {shard.plan.ref.round for shard in shards} == {0}  # nothing was sent again for it
        assert {shard.state.value for shard in shards} == {"loaded"}


def test_a_killed_process_keeps_its_places_until_its_batches_are_seen_to_end(floor: Any, cell: Any) -> None:
    """kill -9 frees nothing: only the vendor's word does, and that is heard when the job is run again."""
    limit = 4 * SHARD_TOKENS
    with floor(vendor_takes=limit, we_think=limit, batch_seconds=12) as at:
        first = at.start("first", rows=8)
        until(lambda: at.under_way("first") == 4, "four batches fill the queue")
        first.kill()
        first.wait()
        second = at.start("second", rows=8)
        until(lambda: len(at.waiting()) == 4, "the other job's shards wait")
        until(lambda: all(batch["status"] == "completed" for batch in at.state()["batches"]), "the vendor is done")
        looked = {waiter.ref: waiter.seen_utc for waiter in at.waiting()}
        until(
            lambda: all(waiter.seen_utc > looked[waiter.ref] for waiter in at.waiting()),
            "the other job has looked again",
        )
        assert at.begun() == ["first"] * 4

        at.finished(second, at.start("first"))

        state = at.state()
        cell.record(
            expected=16,
            loaded=at.loaded(),
            batches=state["creations"]["openai"],
            billed=sum(batch["billed_rows"] for batch in state["batches"]),
        )
        assert (cell.loaded, cell.batches, cell.billed) == (16, 8, 16)
        assert all(batch["status"] == "completed" for batch in state["batches"])

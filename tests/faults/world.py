"""A desk for the cells in which the world misbehaves: one job, one vendor, the real command line and ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from nightbatch.emulator import Account, EmulatorSettings, Faults, running
from tests.faults.commands import Command, begin
from tests.faults.conftest import Cell
from tests.servers import PostgresForTests

VENDORS = ("openai", "anthropic")
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5"}
KEY, ROTATED_KEY, OTHER_KEY = "sk-emulator", "sk-rotated", "sk-of-another-account"
"""The second key belongs to the account of the first, the third does not."""
ACCOUNTS = (Account(KEY), Account(ROTATED_KEY), Account(OTHER_KEY, "org-other", "elsewhere"))
DAY = datetime(2026, 3, 10, tzinfo=UTC)
WAITS = {
    # Everything that takes minutes at a real vendor takes about a second here.
    "NIGHTBATCH_POLL_FROM_S": "0.2",
    "NIGHTBATCH_POLL_TO_S": "0.5",
    "NIGHTBATCH_SEND_DEADLINE_S": "3",
    "NIGHTBATCH_REQUEST_TIMEOUT_S": "2",
    "NIGHTBATCH_LISTING_LAG_S": "0.3",
    "NIGHTBATCH_QUEUE_WAIT_S": "0.5",
}


@dataclass
class Ending:
    """How a command ended."""

    code: int
    answer: dict[str, Any]
    """The JSON object that it printed."""
    said: str
    """What it wrote on stderr."""

    @property
    def books(self) -> dict[str, Any]:
        """The run's books, whether it is complete or not."""
        found: dict[str, Any] = self.answer.get("books") or self.answer
        return found


@dataclass
class World:
    """A folder in which somebody types commands, and the vendor whom they reach."""

    folder: Path
    url: str
    vendor: str
    ledger: str
    records: dict[str, str]
    """Key -> text; the vendor answers with the text."""
    environ: dict[str, str] = field(default_factory=dict)

    def use_key(self, key: str) -> None:
        """Put a key into the connection."""
        host = f"{self.url}/v1" if self.vendor == "openai" else self.url
        connection = {"conn_type": self.vendor, "host": host, "password": key}
        self.environ["AIRFLOW_CONN_VENDOR"] = json.dumps(connection)

    def begin(self, *words: str, largest_file_bytes: int | None = None) -> Command:
        """Begin a command."""
        environ = {**WAITS, "NIGHTBATCH_LEDGER_URL": self.ledger, **self.environ}
        return begin(words, folder=self.folder, environ=environ, largest_file_bytes=largest_file_bytes)

    def begin_run(self, *words: str, **more: Any) -> Command:
        """Begin to run the job's window."""
        return self.begin("run", "world.yaml", "--from", DAY.isoformat(), "--json", *words, **more)

    def run(self, *words: str) -> Ending:
        """Run the job's window, and wait for its end."""
        return self.ended(self.begin_run(*words))

    def ended(self, command: Command) -> Ending:
        """Wait for a command's end."""
        code, out = command.wait(), command.out.read_text().strip()
        assert out, f"it said nothing, and ended with {code}:\n{command.said()}"
        return Ending(code, json.loads(out.splitlines()[-1]), command.said())

    def faults(self, faults: str = "") -> None:
        """Put these faults, and no others, in force."""
        self._admin("PUT", "faults", json=Faults.parse(faults).as_dict())

    def state(self) -> dict[str, Any]:
        """Ask the vendor what it did and billed."""
        found: dict[str, Any] = self._admin("GET", "state").json()
        return found

    def _admin(self, method: str, name: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        reply = httpx.request(method, f"{self.url}/emulator/{name}", headers=headers, timeout=30, **more)
        return reply.raise_for_status()

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch as a person does in the vendor's console."""
        path = f"/v1/batches/{batch_id}" if self.vendor == "openai" else f"/v1/messages/batches/{batch_id}"
        headers = {"Authorization": f"Bearer {KEY}", "x-api-key": KEY}
        httpx.post(f"{self.url}{path}/cancel", headers=headers, timeout=30).raise_for_status()

    @property
    def batches(self) -> list[dict[str, Any]]:
        """Give every batch at the vendor, oldest first."""
        found: list[dict[str, Any]] = self.state()["batches"]
        return found

    def answers(self) -> dict[str, str]:
        """Give what is in the sink: key -> answer."""
        rows: dict[str, str] = {}
        for file in (self.folder / "answers").rglob("*.jsonl"):
            for row in map(json.loads, file.read_text().splitlines()):
                if "answer" in row:
                    assert row["id"] not in rows, f"{row['id']} is in the sink twice"
                    rows[row["id"]] = row["answer"]
        return rows

    def ask_ledger(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the ledger; nothing comes while its tables are not there."""
        with psycopg.connect(self.ledger, autocommit=True) as connection:
            try:
                return connection.execute(query).fetchall()
            except psycopg.errors.UndefinedTable:
                return []

    @property
    def requests(self) -> dict[str, int]:
        """Count the requests that the vendor got, by operation."""
        named = self.state()["requests"].items()
        return {name.split(" ")[1]: count for name, count in named if name.startswith(self.vendor)}

    def wait_until(self, is_so: Callable[[], Any], *commands: Command) -> None:
        """Wait for something that is seen from outside, as long as the commands live."""
        ends = time.monotonic() + 120
        while not is_so():
            for command in commands:
                assert command.code is None, (command.code, command.out.read_text(), command.said())
            assert time.monotonic() < ends, [command.said() for command in commands]
            time.sleep(0.05)

    def record(self, cell: Cell, *, expected: int | None = None) -> None:
        """Fill the cell's row of the table."""
        state = self.state()
        cell.record(
            expected=len(self.records) if expected is None else expected,
            loaded=len(self.answers()),
            batches=len(state["batches"]),
            billed=sum(batch["billed_rows"] for batch in state["batches"]),
        )

    def check_whole(self, cell: Cell, ending: Ending, *, batches: int | None = None) -> None:
        """Every record was answered, each row was billed once, and (with `batches`) by so many batches."""
        self.record(cell)
        assert (ending.code, ending.books["state"]) == (0, "complete"), ending
        assert self.answers() == self.records
        assert cell.billed == len(self.records)
        assert batches is None or cell.batches == batches


def questions(count: int, *, padding: int = 0) -> dict[str, str]:
    """Give records: key -> text."""
    return {f"r{number:02d}": f"question {number}{'.' * padding}" for number in range(count)}


@contextmanager
def world(
    folder: Path,
    ledger: str,
    vendor: str,
    faults: str = "",
    *,
    rows: int = 4,
    shard_rows: int = 4,
    job: str = "",
    model: str = "",
    padding: int = 0,
    **settings: Any,
) -> Iterator[World]:
    """Put up a vendor with faults, and a desk with a job of so many records; `job` is more lines of its file."""
    records = questions(rows, padding=padding)
    lines = [json.dumps({"id": key, "text": text}) for key, text in records.items()]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "world.yaml").write_text(
        f"""
name: world
source: {{files: records.jsonl, key: id}}
prompt: {{user: "{{{{ text }}}}"}}
models: [{{provider: {vendor}, model: {model or MODELS[vendor]}, connection: vendor, max_output_tokens: 2000}}]
sink: {{files: answers/, format: jsonl}}
shard: {{max_rows: {shard_rows}}}
max_dead_share: 1.0
{job}
"""
    )
    chosen = EmulatorSettings(faults=Faults.parse(faults), accounts=ACCOUNTS, executor="echo", **settings)
    with running(chosen) as url:
        put_up = World(folder, url, vendor, ledger, records)
        put_up.use_key(KEY)
        yield put_up


PutUp = Callable[..., AbstractContextManager[World]]

both_vendors = pytest.mark.parametrize("vendor", VENDORS)


@pytest.fixture
def put_up(postgres_server: PostgresForTests, tmp_path: Path) -> PutUp:
    """Put up a world of this test's own, with faults and settings."""

    def put(vendor: str, faults: str = "", **more: Any) -> AbstractContextManager[World]:
        return world(tmp_path, postgres_server.new_database(), vendor, faults, **more)

    return put

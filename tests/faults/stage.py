"""The stage of a cell: a job on real servers, a workspace of its own at the vendor, and people who are told."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg

from nightbatch.demo.services.mail import MailSink
from nightbatch.demo.services.slack import SlackSink
from tests.faults import forked
from tests.faults.cell import Cell

JOB = Path(__file__).parent / "night_crash.yaml"
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-haiku-4-5"}
DAY = datetime(2026, 3, 10, tzinfo=UTC)
WINDOW = ("--from", DAY.isoformat(), "--to", (DAY + timedelta(days=1)).isoformat())
RECORDS = [
    *((f"s{number:02d}", f"Sentence {number}: the picture is {how}.") for number, how in enumerate("abcdefghij")),
    ("twin", "Sentence 0: the picture is a."),
]
ROW_FAULTS = {"openai": "transient=0.3, permanent=0.25", "anthropic": "transient=0.3, permanent=0.15"}
"""Some rows are sent again and some never succeed; a row that failed so was not billed."""
WORKSPACES = 400
WAITS = {
    # A lost process is given up after seconds, not minutes.
    "NIGHTBATCH_POLL_FROM_S": "0.2",
    "NIGHTBATCH_POLL_TO_S": "0.5",
    "NIGHTBATCH_SEND_DEADLINE_S": "2",
    "NIGHTBATCH_REQUEST_TIMEOUT_S": "2",
    "NIGHTBATCH_LISTING_LAG_S": "0.5",
    "NIGHTBATCH_TELL_AGAIN_S": "1",
}
LONGEST_S = 240


class Vendor:
    """An emulator in a process of its own, which nobody kills; each cell takes a workspace of its own."""

    def __init__(self, folder: Path) -> None:
        self._numbers = count()
        keys = [word for number in range(WORKSPACES) for word in ("--key", f"sk-{number}=org-{number}/main")]
        serve = ["emulator", "serve", "--port", "0", "--batch-seconds", "0.3", "--seed", "7", "--exit-with-parent"]
        self._log = (folder / "emulator.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nightbatch.cli", *serve, *keys, "--key", "sk-admin"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        found = re.search(r"http://[\d.:]+", line)
        assert found, f"the emulator did not start: {line}"
        self.url = found[0]

    def workspace(self) -> int:
        """Give the number of a workspace that nobody has used."""
        return next(self._numbers)

    def state(self) -> dict[str, Any]:
        """Say what happened so far, in all workspaces."""
        reply = httpx.get(f"{self.url}/emulator/state", headers={"Authorization": "Bearer sk-admin"}, timeout=30)
        answer: dict[str, Any] = reply.raise_for_status().json()
        return answer

    def stop(self) -> None:
        """End it, at the end of the session."""
        self._process.terminate()
        self._process.wait(timeout=20)
        self._log.close()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def books(self) -> dict[str, Any]:
        """Read the answer of a command that went well."""
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        answer: dict[str, Any] = json.loads(self.out)
        return answer


class Running:
    """A command under way, in a process of its own."""

    def __init__(self, words: Sequence[str], *, at: str, folder: Path, environ: dict[str, str], number: int) -> None:
        self._folder, self._number = folder, number
        self.process = forked.begin(list(words), at=at, folder=folder, environ=environ, number=number)

    def end(self) -> Ended:
        """Wait for it."""
        self.process.join(LONGEST_S)
        code = self.process.exitcode
        out, err = ((self._folder / f"{self._number}.{name}").read_text() for name in ("out", "err"))
        assert code is not None, f"it is still under way\n{out}\n{err}"
        return Ended(code, out, err)

    def wait_until_frozen(self) -> None:
        """Wait until it has stopped itself at its point."""
        ends = time.monotonic() + LONGEST_S
        while self.state != "T":
            assert self.process.is_alive(), f"it ended and never came to its point: {self.end()}"
            assert time.monotonic() < ends, "it never came to its point"
            time.sleep(0.02)

    def wake(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.process.pid or 0, signal.SIGCONT)

    @property
    def state(self) -> str:
        """Read what the kernel says: `T` is stopped."""
        with suppress(FileNotFoundError, ProcessLookupError):
            return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return "gone"

    def put_away(self) -> None:
        """Leave no process behind when a test breaks off."""
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@dataclass
class Stage:
    """One cell's job: its folder, databases, bucket and workspace."""

    folder: Path
    vendor: str
    server: Vendor
    workspace: int
    warehouse: str
    ledger: str
    mail: MailSink
    slack: SlackSink
    environ: dict[str, str] = field(default_factory=dict)
    begun: list[Running] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The key of the workspace."""
        return f"sk-{self.workspace}"

    def connect(self, conn_id: str = "vendor", *, faults: str | None = None) -> None:
        """Define the connection to the vendor; `faults` go wrong with every batch that is made through it."""
        faults = ROW_FAULTS[self.vendor] if faults is None else faults
        host = f"{self.server.url}/v1" if self.vendor == "openai" else self.server.url
        extra = {"default_headers": {"X-Emulator-Faults": faults}}
        connection = {"conn_type": self.vendor, "host": host, "password": self.key, "extra": extra}
        self.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(connection)

    @property
    def variables(self) -> dict[str, str]:
        """Give the environment of the stage's commands."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("NIGHTBATCH", "AIRFLOW"))}
        return {**inherited, **WAITS, **self.environ}

    def start(self, *words: str, at: str = "") -> Running:
        """Begin a command; `at` is where it dies or freezes (see `victim.py`)."""
        running = Running(words, at=at, folder=self.folder, environ=self.variables, number=len(self.begun))
        self.begun.append(running)
        return running

    def type(self, *words: str) -> Ended:
        """Carry a command out as a person does, from a shell."""
        argv = [sys.executable, "-m", "nightbatch.cli", *words]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def begin_night(self, *, at: str = "", window: Sequence[str] = WINDOW) -> Running:
        """Begin the job."""
        return self.start("run", "night_crash.yaml", *window, "--json", at=at)

    def freeze(self, at: str) -> Running:
        """Begin the job in a process that stops at a point, and wait until it has."""
        running = self.begin_night(at=f"freeze {at}")
        running.wait_until_frozen()
        return running

    def night(self) -> dict[str, Any]:
        """Do the job to its end, and give its books."""
        return self.begin_night().end().books

    def die(self, at: str) -> None:
        """Begin the job in a process that must die at a point."""
        ended = self.begin_night(at=at).end()
        assert ended.code == -signal.SIGKILL, f"it never came to {at!r}: {ended}"

    # what there is afterwards
    def rows(self) -> list[tuple[Any, ...]]:
        """Give all rows of the sink, answers and dead letters, without the custom_id, which names the ledger."""
        with psycopg.connect(self.warehouse) as connection:
            cursor = connection.cursor()
            found: list[tuple[Any, ...]] = []
            for table in ("night_crash", "night_crash_dead_letters"):
                cursor.execute(f"select * from {table}")
                names = [column.name for column in cursor.description or ()]
                kept = [at for at, name in enumerate(names) if name != "nb_custom_id"]
                found += sorted(tuple(map(str, (table, *(row[at] for at in kept)))) for row in cursor.fetchall())
        return found

    def digest(self) -> str:
        """Hash the sink."""
        return hashlib.sha256(json.dumps(self.rows()).encode()).hexdigest()

    def batches(self) -> list[dict[str, Any]]:
        """List what was ever made in this workspace."""
        return [one for one in self.server.state()["batches"] if one["account"] == f"org-{self.workspace}/main"]

    def files_left(self) -> set[str]:
        """List request files at the vendor that no batch was made of (OpenAI)."""
        if self.vendor != "openai":
            return set()
        headers = {"Authorization": f"Bearer {self.key}"}
        reply = httpx.get(f"{self.server.url}/v1/files?purpose=batch", headers=headers, timeout=30).raise_for_status()
        return {file["id"] for file in reply.json()["data"]} - {one["input_file_id"] for one in self.batches()}

    def told(self) -> dict[str, Counter[str]]:
        """Count the messages that people got, by channel and event."""
        slack = [json.dumps(message.payload) for message in self.slack.messages()]
        mail = [one.text for one in self.mail.mails()]
        return {"mail": _events(mail), "slack": _events(slack)}

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the ledger."""
        with psycopg.connect(self.ledger) as connection:
            return connection.execute(query.encode()).fetchall()

    def money(self) -> tuple[Decimal, Decimal]:
        """Give what is still reserved, and what was booked."""
        sums = dict(self.ask("select kind, sum(usd) from nb_money group by kind"))
        return sums.get("reserve", Decimal(0)) + sums.get("release", Decimal(0)), sums.get("actual", Decimal(0))


def _events(texts: list[str]) -> Counter[str]:
    return Counter(found[0].rstrip(".") for text in texts if (found := re.search(r"(?<=Event )\S+", text)))


@dataclass(frozen=True)
class Calm:
    """What an undisturbed night of a vendor comes to."""

    digest: str
    batches: int
    billed: int
    cost: Decimal
    events: frozenset[str]
    books: dict[str, Any]


def calm(stage: Stage) -> Calm:
    """Live through an undisturbed night, and look at it."""
    books, batches = stage.type("run", "night_crash.yaml", *WINDOW, "--json").books, stage.batches()
    assert books["state"] == "complete"
    assert books["sent_again"], "no row is sent again, so round 1 would not be tried"
    assert books["dead"], "no row is a dead letter, so burying would not be tried"
    told = stage.told()
    assert told["mail"] == told["slack"]
    return Calm(
        digest=stage.digest(),
        batches=len(batches),
        billed=sum(one["billed_rows"] for one in batches),
        cost=stage.money()[1],
        events=frozenset(told["mail"]),
        books=books,
    )


def steady(books: dict[str, Any]) -> dict[str, Any]:
    """Give books without what a crash may change: how long it took, and whether the dead process had closed the run."""
    return {name: value for name, value in books.items() if name not in ("seconds", "closed_before")}


def check(stage: Stage, twin: Calm, books: dict[str, Any], cell: Cell, *, forgotten: bool = False) -> None:
    """
    Hold a night that was disturbed against its calm twin: the whole promise.

    `forgotten`: a request file may be left at the vendor, whose id nobody ever knew.
    """
    batches = stage.batches()
    rows = len(stage.rows())
    cell.record(
        expected=len(RECORDS), loaded=rows, batches=len(batches), billed=sum(one["billed_rows"] for one in batches)
    )
    assert steady(books) == steady(twin.books)
    assert stage.digest() == twin.digest
    ids = [batch_id for (batch_id,) in stage.ask("select batch_id from nb_attempts where batch_id is not null")]
    assert sorted(ids) == sorted(one["id"] for one in batches)
    assert len(ids) == twin.batches
    assert cell.billed == twin.billed
    assert stage.money() == (0, twin.cost)
    assert stage.ask("select state from nb_runs") == [("complete",)]
    assert stage.ask("select run from nb_pending where taken_by_run is null") == []
    assert stage.ask("select state from nb_attempts where state in ('intent', 'sending', 'open')") == []
    assert len(stage.files_left()) == forgotten
    for channel, events in stage.told().items():
        assert set(events) == twin.events, channel
        assert max(events.values()) <= 2, channel


class Stages:
    """Puts up stages, and calm twins once for each vendor."""

    def __init__(self, folder: Path, server: Vendor, postgres: Any, s3: Any) -> None:
        self._folder, self._server, self._postgres, self._s3 = folder, server, postgres, s3
        self._numbers, self._twins = count(), dict[str, Calm]()

    @contextmanager
    def put_up(self, vendor: str, *, workspace: int | None = None) -> Iterator[Stage]:
        """Put up the stage of a cell; with `workspace`, in one that another stage uses too."""
        folder = self._folder / f"{next(self._numbers)}"
        folder.mkdir()
        text = JOB.read_text().replace("VENDOR", vendor).replace("MODEL", MODELS[vendor])
        (folder / "night_crash.yaml").write_text(text)
        mail, slack = MailSink.start(folder / "mail"), SlackSink.start(folder / "slack")
        stage = Stage(
            folder,
            vendor,
            self._server,
            self._server.workspace() if workspace is None else workspace,
            self._warehouse(),
            self._postgres.new_database(),
            mail,
            slack,
        )
        self._connect(stage)
        try:
            yield stage
        finally:
            for running in stage.begun:
                running.put_away()
            mail.stop()
            slack.stop()

    def twin(self, vendor: str) -> Calm:
        """Give the calm twin."""
        if vendor not in self._twins:
            with self.put_up(vendor) as stage:
                self._twins[vendor] = calm(stage)
        return self._twins[vendor]

    def _warehouse(self) -> str:
        url: str = self._postgres.new_database()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table reviews (sentence_id text, text text, reviewed_at timestamptz)")
            rows = [(key, text, DAY + timedelta(minutes=number)) for number, (key, text) in enumerate(RECORDS)]
            connection.cursor().executemany("insert into reviews values (%s, %s, %s)", rows)
        return url

    def _connect(self, stage: Stage) -> None:
        s3 = self._s3
        aws_extra = {"endpoint_url": s3.endpoint, "region_name": s3.region}
        aws = {"conn_type": "aws", "login": s3.key, "password": s3.secret, "extra": aws_extra}
        stage.environ |= {
            "NIGHTBATCH_LEDGER_URL": stage.ledger,
            "NIGHTBATCH_STAGING_URI": s3.new_folder(),
            "NIGHTBATCH_STAGING_CONNECTION": "aws_default",
            "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
            "AIRFLOW_CONN_WAREHOUSE": stage.warehouse,
            "AIRFLOW_CONN_ANSWERS": stage.warehouse,
            "AIRFLOW_CONN_POST": stage.mail.airflow_connection(),
            "AIRFLOW_CONN_CHAT": stage.slack.airflow_connection(),
        }
        stage.connect()

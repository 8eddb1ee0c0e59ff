"""A stranger's desk: files of their own, a job file, the command line, and a vendor that answers with the question."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from nightbatch.adapters.sinks.files import read_dead_letters
from nightbatch.cli import app
from nightbatch.emulator import EmulatorSettings, running

JOB = """
name: tickets
source: {{files: {files}, key: id}}
prompt: {{user: "{prompt}"}}
models: [{{provider: openai, model: gpt-5-mini, connection: openai_default, max_output_tokens: 2000}}]
sink: {{files: answers/, format: jsonl}}
rounds: 0
max_dead_share: 1.0
{more}
"""


SILENCE, FLOOD = "say nothing", "say too much"
SPOKEN = {SILENCE: "", FLOOD: json.dumps({"mood": "x" * 10_000_000, "score": 1})}
"""What it answers to words that do not stand for themselves."""


class _Parrot(BaseHTTPRequestHandler):
    """A model that says what it was told, whatever schema it was asked for."""

    def do_POST(self) -> None:
        """Answer with the last message."""
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = body["messages"][-1]["content"]
        message = {"role": "assistant", "content": SPOKEN.get(said, said)}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        reply = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        content = orjson.dumps({**reply, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def parrot() -> Iterator[str]:
    """A vendor whose model says what it was told."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Parrot) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        upstream = f"http://127.0.0.1:{server.server_port}/v1"
        with running(EmulatorSettings(executor="upstream", upstream_url=upstream)) as url:
            yield url
        server.shutdown()


KEY = {"Authorization": "Bearer sk-emulator"}


def spent(parrot: str) -> int:
    """Count the batches that were ever made at the vendor."""
    reply = httpx.get(f"{parrot}/emulator/state", headers=KEY, timeout=10)
    return sum(reply.raise_for_status().json()["creations"].values())


def at_vendor(url: str) -> str:
    """Give a connection to a vendor."""
    return json.dumps({"conn_type": "openai", "host": f"{url}/v1", "password": "sk-emulator"})


@contextmanager
def faulty(parrot: str, **faults: Any) -> Iterator[None]:
    """Let the vendor misbehave for a while."""
    httpx.put(f"{parrot}/emulator/faults", json=faults, headers=KEY, timeout=10).raise_for_status()
    yield
    httpx.delete(f"{parrot}/emulator/faults", headers=KEY, timeout=10).raise_for_status()


@dataclass
class Ended:
    """How a command ended."""

    code: int
    answer: dict[str, Any]
    said: str

    @property
    def books(self) -> dict[str, Any]:
        """The run's books, whether it is complete or not."""
        found: dict[str, Any] = self.answer.get("books") or self.answer
        return found


@dataclass
class Desk:
    """A folder in which a stranger types commands."""

    folder: Path

    def job(self, *, files: str = "records.jsonl", prompt: str = "{{ text }}", more: str = "") -> None:
        """Write the job file; `more` is further lines of it."""
        (self.folder / "tickets.yaml").write_text(JOB.format(files=files, prompt=prompt, more=more))

    def put(self, name: str, content: bytes | str) -> None:
        """Write a file."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def records(self, *texts: str) -> None:
        """Write records k0, k1, … with these texts."""
        lines = [json.dumps({"id": f"k{number}", "text": text}) for number, text in enumerate(texts)]
        self.put("records.jsonl", "\n".join(lines) + "\n")

    def type(self, *words: str) -> Ended:
        """Carry a command out; whatever happens, there is one object, a sentence, and no traceback."""
        ended = CliRunner().invoke(app, [*words, "--json"])
        assert "Traceback" not in ended.output, ended.output
        return Ended(ended.exit_code, json.loads(ended.stdout), ended.stderr)

    def run(self) -> Ended:
        """Run the job."""
        return self.type("run", "tickets.yaml")

    def loaded(self) -> dict[str, dict[str, Any]]:
        """Give key -> row of the sink."""
        files = sorted((self.folder / "answers" / "answers").rglob("*.jsonl"))
        lines = [line for file in files for line in file.read_text().split("\n") if line]
        return {row["id"]: row for row in map(json.loads, lines)}

    def answers(self) -> dict[str, str]:
        """Give key -> answer, of a job that takes free text."""
        return {key: row["answer"] for key, row in self.loaded().items()}

    def reasons(self) -> dict[str, str]:
        """Give key -> reason of every dead letter."""
        rows = read_dead_letters(str(self.folder / "answers")).to_pylist()
        return {row["id"]: row["nb_reason"] for row in rows}

    def dead(self) -> list[tuple[str, str]]:
        """Give reason and detail of every dead letter, in order."""
        rows = read_dead_letters(str(self.folder / "answers")).to_pylist()
        return [(row["nb_reason"], row["nb_detail"]) for row in rows]


@pytest.fixture
def desk(tmp_path: Path, parrot: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Sit down at an empty desk that reaches the vendor."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW_CONN", "NIGHTBATCH", "OPENAI", "ANTHROPIC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", at_vendor(parrot))
    for name in ("FROM", "TO"):
        monkeypatch.setenv(f"NIGHTBATCH_POLL_{name}_S", "0.1")
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path)
    desk.job()
    return desk

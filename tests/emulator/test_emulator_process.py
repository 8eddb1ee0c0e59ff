"""The emulator as a process: its command line, its end, and its memory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import openai
import psutil
import pytest
from anthropic.types.messages import MessageBatch

COMMAND = [sys.executable, "-c", "from nightbatch.emulator.command import app; app()", "serve", "--port", "0"]
ROWS = 50_000
PADDING = "many words " * 60


@contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Start the command; yield its process, its URL and the line it printed."""
    process = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"http://\S+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        yield process, found[0], line
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_serve_prints_where_it_is_and_stops_on_a_signal(tmp_path):
    options = ["--key", "sk-a=org-a/night", "--faults", "http_429=1", "--data-dir", str(tmp_path)]
    with served(*options, "--batch-seconds", "0") as (process, url, _):
        client = openai.OpenAI(api_key="sk-a", base_url=f"{url}/v1", max_retries=0)
        with pytest.raises(openai.RateLimitError):
            client.batches.list()
        assert client.batches.with_raw_response.list().headers["openai-project"] == "night"
        client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
        assert [path.name for path in tmp_path.glob("*/file-*")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("options", [["--faults", "typo=1"], ["--executor", "typo"], ["--over-limit-at", "typo"]])
def test_serve_refuses_what_it_does_not_know_and_says_so(options):
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert "typo" in done.stderr


def test_a_temporary_folder_is_gone_afterwards():
    with served() as (_, url, line):
        folder = Path(line.split("data in ")[1].strip())
        assert folder.is_dir()
        openai.OpenAI(api_key="sk-emulator", base_url=f"{url}/v1").files.create(file=b"{}", purpose="batch")

    assert not folder.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
def test_exit_with_parent_ends_soon_after_the_parent():
    script = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen({[*COMMAND, '--exit-with-parent']!r}, stdout=subprocess.PIPE, text=True)\n"
        "print(child.pid, child.stdout.readline(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    child = int(told.stdout.split()[0])

    if psutil.pid_exists(child):
        psutil.wait_procs([psutil.Process(child)], timeout=8)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


class Memory:
    """The most memory that a process was seen to hold beyond what it held at first."""

    def __init__(self, pid: int) -> None:
        self._process, self.grown_bytes = psutil.Process(pid), 0
        self._first = self._now()

    def _now(self) -> int:
        seen = self._process.memory_info()
        return seen.rss - getattr(seen, "shared", 0)  # pages of files on disk are not memory that a batch fills

    def look(self) -> None:
        """Look once more."""
        self.grown_bytes = max(self.grown_bytes, self._now() - self._first)


def test_an_openai_batch_of_50_000_rows_does_not_fill_memory(tmp_path):
    path = tmp_path / "input.jsonl"
    with path.open("w") as file:
        for row in range(ROWS):
            body = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": f"{row} {PADDING}"}]}
            line = {"custom_id": f"r{row}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    with served("--batch-seconds", "0") as (process, url, _):
        client, memory = openai.OpenAI(api_key="sk-emulator", base_url=f"{url}/v1"), Memory(process.pid)
        uploaded = client.files.create(file=path, purpose="batch")
        batch = client.batches.create(
            input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status != "completed":
            batch = client.batches.retrieve(batch.id)
            memory.look()
        with client.files.with_streaming_response.content(batch.output_file_id or "") as reply:
            size = sum(len(chunk) for chunk in reply.iter_bytes())
            memory.look()

    assert size > path.stat().st_size > 40_000_000
    assert memory.grown_bytes < 40_000_000


def test_an_anthropic_batch_of_50_000_rows_does_not_fill_memory():
    def body() -> Iterator[bytes]:
        yield b'{"requests":['
        for row in range(ROWS):
            messages = [{"role": "user", "content": f"{row} {PADDING}"}]
            params = {"model": "claude-sonnet-4-6", "max_tokens": 500, "messages": messages}
            yield (b"," if row else b"") + json.dumps({"custom_id": f"r{row}", "params": params}).encode()
        yield b"]}"

    with served("--batch-seconds", "0") as (process, url, _):
        client, memory = anthropic.Anthropic(api_key="sk-emulator", base_url=url), Memory(process.pid)
        batch = client.post("/v1/messages/batches", content=body(), cast_to=MessageBatch)
        while batch.processing_status != "ended":
            batch = client.messages.batches.retrieve(batch.id)
            memory.look()
        rows = sum(1 for _ in client.messages.batches.results(batch.id))

    assert (rows, batch.request_counts.succeeded) == (ROWS, ROWS)
    assert memory.grown_bytes < 40_000_000

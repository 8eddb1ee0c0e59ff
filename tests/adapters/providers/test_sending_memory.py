"""A shard of 100 MB is sent in bounded memory, measured from outside in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

SIZE_MB = 100
ALLOWED_MB = 25
REPLIES = {
    "/v1/files": {"id": "file-1"},
    "/v1/messages/batches": {
        "id": "msgbatch_1",
        "processing_status": "in_progress",
        "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
        "created_at": "2026-11-22T00:00:00Z",
    },
}

SENDER = """
import resource, sys
from importlib import import_module
from nightbatch.core.ids import Label
from nightbatch.core.request import Endpoint
from nightbatch.ports import Connection

name, url, size_mb = sys.argv[1], sys.argv[2], int(sys.argv[3])
module = import_module(f"nightbatch.adapters.providers.{name}")
provider = {"openai": "OpenAIProvider", "anthropic": "AnthropicProvider"}[name]
provider = getattr(module, provider)(Connection("c", name, host=url, password="k"), request_timeout_s=60)
line = b'{"custom_id":"a","params":{"x":"' + b"y" * 9_965 + b'"}}\\n'

def send(rows):
    lines = (line for _ in range(rows))
    if name == "openai":
        return provider.upload(lines, size_bytes=rows * len(line), name="x.jsonl")
    label = Label("0" * 32, "0" * 12, 0, 0, 1, "")
    return provider.create(file_id=None, lines=lines, endpoint=Endpoint.MESSAGES, label=label).batch_id

send(10)  # imports and connections are not what is measured
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(send(size_mb * 100), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


class Sink(BaseHTTPRequestHandler):
    """Reads a request without keeping it, counts its bytes, and answers."""

    protocol_version = "HTTP/1.1"
    received: list[int]

    def do_POST(self) -> None:
        self.received.append(sum(self._pieces()))
        content = json.dumps(REPLIES[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _pieces(self) -> Iterator[int]:
        if "Content-Length" in self.headers:
            left = int(self.headers["Content-Length"])
            while left:
                read = len(self.rfile.read(min(left, 1 << 16)))
                left -= read
                yield read
            return
        while size := int(self.rfile.readline(), 16):
            yield len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_large_shard_is_sent_in_bounded_memory(name):
    received: list[int] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("CountingSink", (Sink,), {"received": received}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}" + ("/v1" if name == "openai" else "")
    try:
        sent = subprocess.run(
            [sys.executable, "-c", SENDER, name, url, str(SIZE_MB)],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.shutdown()
        server.server_close()

    assert sent.returncode == 0, sent.stderr
    _, grown_mb = sent.stdout.split()
    assert received[-1] >= SIZE_MB * 1_000_000
    assert int(grown_mb) < ALLOWED_MB

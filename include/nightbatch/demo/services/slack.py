"""An HTTP server that takes what is meant for a Slack webhook, and keeps it as files."""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from nightbatch.demo.services.ports import LOOPBACK

WEBHOOK_TOKEN = "T000/B000/nightbatch"  # noqa: S105 - what a webhook's address ends with, not a secret here
LARGEST_BYTES = 1_000_000


@dataclass(frozen=True)
class SlackMessage:
    """One message that arrived."""

    path: str
    payload: dict[str, Any]
    file: Path

    @property
    def text(self) -> str:
        """The plain text of the message."""
        return str(self.payload.get("text") or "")


class SlackSink:
    """A running webhook server, in threads of this process; stop it with `stop()`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.refuses, self.delay_s = 0, 0.0
        """The HTTP status that it gives in the place of taking a message, and how long it thinks before."""
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler_for(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="slack sink", daemon=True)

    @classmethod
    def start(cls, folder: Path) -> "SlackSink":
        """Start a server that stores messages in `folder`, next to those of earlier days."""
        sink = cls(folder)
        sink._thread.start()
        return sink

    def messages(self) -> list[SlackMessage]:
        """Read all messages, oldest first."""
        return [SlackMessage(file=file, **json.loads(file.read_text())) for file in sorted(self.folder.glob("*.json"))]

    def clear(self) -> None:
        """Forget all messages."""
        for file in self.folder.glob("*.json"):
            file.unlink()

    def airflow_connection(self) -> str:
        """Give the value of an `AIRFLOW_CONN_*` variable."""
        return json.dumps({"conn_type": "slackwebhook", "host": self.url, "password": WEBHOOK_TOKEN})

    def keep(self, path: str, payload: dict[str, Any]) -> None:
        """Store one message."""
        with self._lock:  # requests come in threads, and each needs a number of its own
            number = sum(1 for _ in self.folder.glob("*.json")) + 1
            part = self.folder / f"{number:06d}.part"
            part.write_text(json.dumps({"path": path, "payload": payload}, indent=2))
            part.replace(part.with_suffix(".json"))

    def stop(self) -> None:
        """Stop listening; the messages stay."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


def _handler_for(sink: SlackSink) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = min(int(self.headers.get("Content-Length", 0)), LARGEST_BYTES)
            try:
                payload = json.loads(self.rfile.read(length))
            except ValueError:
                self._answer(400, b"invalid_payload")
                return
            time.sleep(sink.delay_s)
            if sink.refuses:
                self._answer(sink.refuses, b"refused")
                return
            sink.keep(self.path, payload)
            self._answer(200, b"ok")

        def _answer(self, status: int, body: bytes) -> None:
            with suppress(ConnectionError):  # who sent it may not have waited
                self._reply(status, body)

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the messages are the log."""

    return Handler

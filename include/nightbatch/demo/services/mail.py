"""An SMTP server that keeps every mail as a file, and delivers none."""

import asyncio
import json
import threading
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from nightbatch.demo.services.ports import LOOPBACK

ENVELOPE = "X-Nightbatch-Envelope"
"""Header under which a stored mail tells its real sender and recipients."""


@dataclass(frozen=True)
class Mail:
    """One mail that arrived."""

    sender: str
    recipients: list[str]
    subject: str
    text: str
    html: str
    file: Path


class MailSink:
    """A running SMTP server, in a thread of this process; stop it with `stop()`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.host, self.port = folder, LOOPBACK, 0
        self.refuses, self.delay_s = "", 0.0
        """What it says in the place of taking a mail, as `451 try later`, and how long it thinks before."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mail sink", daemon=True)

    @classmethod
    def start(cls, folder: Path) -> "MailSink":
        """Start a server that stores mails in `folder`, next to those of earlier days."""
        sink = cls(folder)
        sink._thread.start()
        sink.port = asyncio.run_coroutine_threadsafe(sink._listen(), sink._loop).result(timeout=10)
        return sink

    def mails(self) -> list[Mail]:
        """Read all mails, oldest first."""
        return [_read(file) for file in sorted(self.folder.glob("*.eml"))]

    def clear(self) -> None:
        """Forget all mails."""
        for file in self.folder.glob("*.eml"):
            file.unlink()

    def airflow_connection(self, *, sender: str = "nightbatch@localhost") -> str:
        """Give the value of an `AIRFLOW_CONN_*` variable."""
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": sender}
        return json.dumps({"conn_type": "smtp", "host": self.host, "port": self.port, "extra": extra})

    def stop(self) -> None:
        """Stop listening; the mails stay."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Store one mail; called by the SMTP server."""
        del server, session
        await asyncio.sleep(self.delay_s)
        if self.refuses:
            return self.refuses
        content = envelope.content or b""
        body = content.encode() if isinstance(content, str) else content
        head = json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos})
        number = sum(1 for _ in self.folder.glob("*.eml")) + 1
        part = self.folder / f"{number:06d}.part"
        part.write_bytes(f"{ENVELOPE}: {head}\r\n".encode() + body)
        part.replace(part.with_suffix(".eml"))
        return "250 Message accepted for delivery"

    async def _listen(self) -> int:
        server = await self._loop.create_server(lambda: SMTP(self, hostname=LOOPBACK, loop=self._loop), LOOPBACK, 0)
        return int(server.sockets[0].getsockname()[1])


def _read(file: Path) -> Mail:
    message = message_from_bytes(file.read_bytes(), policy=policy.default)
    envelope = json.loads(str(message[ENVELOPE]))
    return Mail(
        sender=envelope["from"],
        recipients=envelope["to"],
        subject=str(message["Subject"] or "").strip(),  # a long one is folded, and may begin with the fold
        text=_body(message, "plain"),
        html=_body(message, "html"),
        file=file,
    )


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return "" if part is None else str(part.get_content()).replace("\r\n", "\n")

"""Tells people by mail: a text part and an HTML part that say the same."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from html import escape

from nightbatch.adapters.notifiers.wording import announced, one_line, safe_link
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, Message

TIMEOUT_S = 30.0
SSL_PORT, PLAIN_PORT = 465, 25
_TEXT_LIMIT = 2_000


class MailNotifier:
    """
    Sends over a connection of type `smtp`, read as Airflow's own hook reads it.

    Encrypted from the start, unless `extra.disable_ssl`; then by STARTTLS, unless `extra.disable_tls` too. The
    sender is `extra.from_email`, else the login.
    """

    channel = "mail"

    def __init__(self, connection: Connection, *, to: Sequence[str]) -> None:
        self._connection = connection
        self._to = [to] if isinstance(to, str) else list(to)
        self._sender = str(connection.extra.get("from_email") or "") or connection.login
        if "@" not in self._sender:
            raise ConnectionInvalid(
                connection.conn_id, problem="it names no sender", remedy="Set from_email in its extra"
            )

    def send(self, message: Message) -> None:
        """Deliver, or raise StorageUnavailable; what it says holds no address and no password."""
        mail = self._composed(message)
        try:
            with self._server() as server:
                if self._connection.login and self._connection.password:
                    server.login(self._connection.login, self._connection.password)
                server.send_message(mail)
        except (smtplib.SMTPException, OSError) as error:
            code = getattr(error, "smtp_code", "")
            raise StorageUnavailable("mail", cause=f"{type(error).__name__} {code}".strip()) from None

    def _server(self) -> smtplib.SMTP:
        connection, timeout_s = self._connection, float(self._connection.extra.get("timeout") or TIMEOUT_S)
        context = None if connection.extra.get("ssl_context") == "none" else ssl.create_default_context()
        if not _is_true(connection.extra.get("disable_ssl")):
            port = connection.port or SSL_PORT
            return smtplib.SMTP_SSL(connection.host, port, timeout=timeout_s, context=context)
        server = smtplib.SMTP(connection.host, connection.port or PLAIN_PORT, timeout=timeout_s)
        try:
            if not _is_true(connection.extra.get("disable_tls")):
                server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server

    def _composed(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = announced(message, 180)
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._to)
        # The same at every attempt, so that a mail client shows a repeat once, or next to the first.
        digest = hashlib.sha256(message.event_id.encode()).hexdigest()[:32]
        mail["Message-ID"] = f"<{digest}@nightbatch.invalid>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(_text(message))
        mail.add_alternative(_html(message), subtype="html")
        return mail


def _text(message: Message) -> str:
    facts = [f"  {one_line(label, 100)}: {one_line(value, _TEXT_LIMIT)}" for label, value in message.facts]
    link = safe_link(message.link)
    parts = [
        announced(message, 300),
        "\n".join(facts),
        f"What happens next: {one_line(message.happens_next, _TEXT_LIMIT)}",
        f"What to do: {one_line(message.to_do, _TEXT_LIMIT)}",
        f"Look here: {link}" if link else "",
        f"Event {one_line(message.event_id, 200)}. A message with the same event is a repeat.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _html(message: Message) -> str:
    rows = "".join(
        f'<tr><td style="padding:2px 12px 2px 0;color:#666">{_safe(label, 100)}</td><td>{_safe(value)}</td></tr>'
        for label, value in message.facts
    )
    link = safe_link(message.link)
    button = f'<p><a href="{escape(link)}">Look here</a></p>' if link else ""
    return (
        '<html><body style="font-family:sans-serif;font-size:14px">'
        f"<h2>{escape(announced(message, 300))}</h2><table>{rows}</table>"
        f"<p><b>What happens next:</b> {_safe(message.happens_next)}</p>"
        f"<p><b>What to do:</b> {_safe(message.to_do)}</p>{button}"
        f'<p style="color:#999">Event {_safe(message.event_id, 200)}. A message with the same event is a repeat.</p>'
        "</body></html>\n"
    )


def _safe(text: str, limit: int = _TEXT_LIMIT) -> str:
    return escape(one_line(text, limit))


def _is_true(value: object) -> bool:
    """Read a switch of a connection; URIs carry it as text."""
    return value.strip().lower() in {"1", "true", "yes", "on"} if isinstance(value, str) else bool(value)

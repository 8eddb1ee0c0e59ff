"""Tells people by mail: a text part and an HTML part that say the same."""

from __future__ import annotations

import hashlib
import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from nightbatch.adapters.connections import check_type
from nightbatch.adapters.notifiers.plot import DEAD, GOOD, plot_lines, plots
from nightbatch.adapters.notifiers.wording import (
    COMMANDS,
    FACTS,
    IF_NOBODY,
    KINDS,
    LEGEND,
    LIMIT,
    REPEAT,
    URGENCY,
    Urgency,
    announced,
    answers,
    one_line,
    safe_link,
)
from nightbatch.errors import ConnectionInvalid, NightbatchError, StorageUnavailable
from nightbatch.ports import Connection, Message

TIMEOUT_S = 30.0
SSL_PORT, PLAIN_PORT = 465, 25
LOOKS: dict[Urgency, tuple[str, str]] = {
    "act": (DEAD, "Please act"),
    "look": ("#b26a00", "Please look"),
    "good": (GOOD, "All is well"),
}
"""Colour and call by urgency; white letters can be read on each."""


class MailNotifier:
    """
    Sends over a connection of type `smtp`, read as Airflow's own hook reads it.

    Encrypted from the start, unless `extra.disable_ssl`; then by STARTTLS, unless `extra.disable_tls` too. The
    sender is `extra.from_email`, else the login.
    """

    channel = "mail"

    def __init__(self, connection: Connection, *, to: Sequence[str]) -> None:
        check_type(connection, "smtp")
        self._connection = connection
        self._to = [to] if isinstance(to, str) else list(to)
        self._sender = str(connection.extra.get("from_email") or "") or connection.login
        if "@" not in self._sender:
            raise ConnectionInvalid(
                connection.conn_id, problem="it names no sender", remedy="Set from_email in its extra"
            )

    def send(self, message: Message) -> None:
        """Deliver, or raise StorageUnavailable or ConnectionInvalid; what it says holds no address and no password."""
        mail = self._composed(message)
        try:
            with self._server() as server:
                if self._connection.login and self._connection.password:
                    server.login(self._connection.login, self._connection.password)
                server.send_message(mail)
        except (smtplib.SMTPException, OSError) as error:
            raise _failure(self._connection.conn_id, error) from None

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
        mail["Message-ID"] = _message_id(message.event_id)
        if message.thread:
            mail["References"] = mail["In-Reply-To"] = _message_id(message.thread)
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text_of(message))
        mail.add_alternative(html_of(message), subtype="html")
        return mail


def _failure(conn_id: str, error: Exception) -> NightbatchError:
    """Say whether trying again may help; a server that refuses a login is not asked twice, or it locks the account."""
    code = getattr(error, "smtp_code", 0)
    said = f"{type(error).__name__} {code or ''}".strip()
    if isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPNotSupportedError) or 500 <= int(code) < 600:
        return ConnectionInvalid(
            conn_id, problem=f"the mail server refuses ({said})", remedy="Mend its login and `from_email`"
        )
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return ConnectionInvalid(
            conn_id, problem="the mail server takes none of the addresses", remedy="Mend `notify.mail` in the job"
        )
    return StorageUnavailable("mail", cause=said)


def _message_id(event_id: str) -> str:
    return f"<{hashlib.sha256(event_id.encode()).hexdigest()[:32]}@nightbatch.invalid>"


def text_of(message: Message) -> str:
    """Compose the text part: all that the HTML part says."""
    said = [f"{label}: {one_line(text, LIMIT)}" for label, text in answers(message)]
    commands = [f"    {one_line(command, LIMIT)}" for command in message.commands[:COMMANDS]]
    link = safe_link(message.link)
    parts = [
        announced(message, 300),
        "\n".join(said[:-2]),
        *said[-2:],
        "\n".join(commands),
        f"{IF_NOBODY}: {one_line(message.if_nobody, LIMIT)}",
        f"Open in Airflow: {link}" if link else "",
        "\n".join(plot_lines(message.history)),
        "\n".join(f"  {one_line(label, 100)}: {one_line(text, LIMIT)}" for label, text in message.facts[:FACTS]),
        f"Event {one_line(message.event_id, 200)}. {REPEAT}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def html_of(message: Message) -> str:
    """Compose the HTML part; whatever stands in the template is made one safe line and escaped."""
    colour, call = LOOKS[URGENCY.get(message.kind, "act")]
    return _template().render(
        colour=colour,
        call=call,
        announced=KINDS[message.kind],
        title=message.title,
        known=answers(message)[1:4],
        commands=message.commands[:COMMANDS],
        link=Markup(safe_link(message.link).replace("&", "&amp;")),  # noqa: S704 - holds no quote and no bracket
        if_nobody_label=IF_NOBODY,
        plots=plots(message.history),
        runs=len(message.history),
        first_day=message.history[0].day if message.history else "",
        last_day=message.history[-1].day if message.history else "",
        legend=LEGEND,
        facts=message.facts[:FACTS],
        repeat=REPEAT,
        **{name: getattr(message, name) for name in ("happened", "happens_next", "to_do", "if_nobody", "event_id")},
    )


@cache
def _template() -> Template:
    source = files(__package__).joinpath("mail.html").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_safe,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(source)


def _safe(value: object) -> object:
    """Make every text that the template shows harmless, so that none can be forgotten."""
    return one_line(value, LIMIT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _is_true(value: object) -> bool:
    """Read a switch of a connection; URIs carry it as text."""
    return value.strip().lower() in {"1", "true", "yes", "on"} if isinstance(value, str) else bool(value)

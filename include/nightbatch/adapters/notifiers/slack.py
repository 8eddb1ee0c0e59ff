"""Tells people in Slack, through an incoming webhook."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import orjson

from nightbatch.adapters.connections import check_type
from nightbatch.adapters.notifiers.plot import plot_lines
from nightbatch.adapters.notifiers.wording import (
    COMMANDS,
    IF_NOBODY,
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

TIMEOUT_S = 10.0
_FACTS = 25
"""Slack hides what is long, and refuses what is very long; the mail has them all."""
HOST = "https://hooks.slack.com/services"
MARKS: dict[Urgency, str] = {"act": "🔴", "look": "🟠", "good": "🟢"}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A webhook's address is a secret and is followed nowhere."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""


class SlackNotifier:
    """
    Posts over a connection of type `slackwebhook`, read as Airflow's own hook reads it.

    The password is the whole webhook address, or its last part with the rest in the host.
    """

    channel = "slack"

    def __init__(self, connection: Connection) -> None:
        check_type(connection, "slackwebhook")
        self._conn_id = connection.conn_id
        token, host = connection.password.strip(), connection.host
        if not token:
            raise ConnectionInvalid(
                connection.conn_id, problem="it has no password", remedy="Put the webhook's address into it"
            )
        if "://" not in host:
            host = f"{connection.schema or 'https'}://{host}" if host else HOST
        port = f":{connection.port}" if connection.port else ""
        self._url = token if "://" in token else f"{host.rstrip('/')}{port}/{token.lstrip('/')}"
        self._timeout_s = float(connection.extra.get("timeout") or TIMEOUT_S)
        if not self._url.startswith(("https://", "http://")):
            raise ConnectionInvalid(
                connection.conn_id, problem="it does not make a web address", remedy="Use https://hooks.slack.com/…"
            )

    def send(self, message: Message) -> None:
        """Deliver, or raise StorageUnavailable or ConnectionInvalid; neither holds the webhook's address."""
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
            self._url, data=orjson.dumps(payload(message)), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self._timeout_s) as reply:
                reply.read(1_000)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(self._conn_id, error.code) from None
        except (OSError, http.client.HTTPException) as error:
            root = getattr(error, "reason", error)
            # Not chained: the address, which is the secret, travels with the exception.
            raise StorageUnavailable("slack", cause=type(root).__name__) from None


def _refusal(conn_id: str, status: int) -> NightbatchError:
    """Say whether trying again may help: too much at once and a server's own errors pass, all else stays."""
    if status in (408, 429) or status >= 500:
        return StorageUnavailable("slack", cause=f"HTTP {status}")
    remedy = "Make a new webhook and put its address into it"
    return ConnectionInvalid(conn_id, problem=f"the webhook is refused (HTTP {status})", remedy=remedy)


def payload(message: Message) -> dict[str, Any]:
    """
    Compose a message. Untrusted words stand in plain and rich text only, where Slack reads no mentions, links, formats.

    The one `mrkdwn` link is our own; `text` is what notifications show, and is escaped.
    """
    mark = MARKS[URGENCY.get(message.kind, "act")]
    said = [_said(label, text) for label, text in answers(message)]
    commands = [one_line(command, 300) for command in message.commands[:COMMANDS]]
    acts = [said[5], _preformatted(commands), said[4], _said(IF_NOBODY, message.if_nobody)]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain(f"{mark} {announced(message, 140)}")},
        _rich(*said[:4]),
        _rich(*(part for part in acts if part["elements"])),
    ]
    if link := safe_link(message.link):
        opened = {"type": "mrkdwn", "text": f"<{_escaped(link)}|Open in Airflow>", "verbatim": True}
        blocks.append({"type": "section", "text": opened})
    if lines := plot_lines(message.history):
        blocks.append(_rich(_preformatted(lines)))
    if message.facts:
        blocks += [{"type": "divider"}, _rich(*(_said(label, text) for label, text in message.facts[:_FACTS]))]
    event = f"Event {one_line(message.event_id, 200)}. {REPEAT}"
    blocks.append({"type": "context", "elements": [_plain(event)]})
    return {
        "text": _escaped(announced(message, 300)),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _rich(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "rich_text", "elements": list(parts)}


def _said(label: str, text: str) -> dict[str, Any]:
    bold = {"type": "text", "text": f"{_literal(one_line(label, 100))}: ", "style": {"bold": True}}
    words = {"type": "text", "text": f"{_literal(one_line(text, 1_000)) or '–'}\n"}
    return {"type": "rich_text_section", "elements": [bold, words]}


def _preformatted(lines: Sequence[str]) -> dict[str, Any]:
    elements = [{"type": "text", "text": _literal("\n".join(lines))}] if lines else []
    return {"type": "rich_text_preformatted", "elements": elements}


def _literal(text: str) -> str:
    """Rich text is shown as it is, so nothing is escaped; brackets become others all the same, and open nothing."""
    return text.replace("<", "‹").replace(">", "›")


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": _escaped(text), "emoji": False}


def _escaped(text: str) -> str:
    """Escape the three characters of Slack's markup. Source: docs.slack.dev, formatting text for messages."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Tells people in Slack, through an incoming webhook."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

import orjson

from nightbatch.adapters.notifiers.wording import announced, one_line, safe_link
from nightbatch.errors import ConnectionInvalid, StorageUnavailable
from nightbatch.ports import Connection, Message

TIMEOUT_S = 10.0
HOST = "https://hooks.slack.com/services"
FACTS_IN_BLOCK = 5
"""A section holds ten fields, two for each fact. Source: docs.slack.dev, block kit reference (section block)."""
_FACTS_SHOWN = 40


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
        """Deliver, or raise StorageUnavailable; what it says never holds the webhook's address."""
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked above
            self._url, data=orjson.dumps(payload(message)), headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self._timeout_s) as reply:
                reply.read(1_000)
        except urllib.error.HTTPError as error:
            error.close()
            raise StorageUnavailable("slack", cause=f"HTTP {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            root = getattr(error, "reason", error)
            # Not chained: the address, which is the secret, travels with the exception.
            raise StorageUnavailable("slack", cause=type(root).__name__) from None


def payload(message: Message) -> dict[str, Any]:
    """
    Compose a message. Untrusted words stand only in plain text, where Slack reads no mentions, links or formats.

    The one `mrkdwn` link is our own; `text` is what notifications show, and is escaped.
    """
    facts = list(message.facts)[:_FACTS_SHOWN]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": _plain(announced(message, 150))}]
    for start in range(0, len(facts), FACTS_IN_BLOCK):
        pairs = facts[start : start + FACTS_IN_BLOCK]
        fields = [_plain(one_line(text, 1_000) or "–") for pair in pairs for text in pair]
        blocks.append({"type": "section", "fields": fields})
    for label, text in (("What happens next", message.happens_next), ("What to do", message.to_do)):
        blocks.append({"type": "section", "text": _plain(f"{label}: {one_line(text, 2_000)}")})
    if link := safe_link(message.link):
        opened = {"type": "mrkdwn", "text": f"<{_escaped(link)}|Look here>", "verbatim": True}
        blocks.append({"type": "section", "text": opened})
    event = f"Event {one_line(message.event_id, 200)}. A message with the same event is a repeat."
    blocks.append({"type": "context", "elements": [_plain(event)]})
    return {
        "text": _escaped(announced(message, 300)),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": _escaped(text), "emoji": False}


def _escaped(text: str) -> str:
    """Escape the three characters of Slack's markup. Source: docs.slack.dev, formatting text for messages."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Which words of connections and settings Airflow is told to hide in logs, besides those that it hides by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from nightbatch.ports import Connection, Settings

Words = dict[str, Any]
"""By the name that Airflow judges them by: it hides the values of names like `password`, `secret` or `api_key`."""


def words_of_connection(connection: Connection) -> Words:
    """
    Give what a connection holds besides its password.

    Airflow hides the password and the extra as a whole. A library that logs one key of the extra would still show it.
    """
    return {**connection.extra, **_words_of_url(connection.host)}


def words_of_settings(settings: Settings) -> Words:
    """Give what the ledger's URL holds, which Airflow does not know at all."""
    return _words_of_url(settings.ledger_url)


def _words_of_url(url: str) -> Words:
    """Give the password and the parameters of a URL, the password as it stands there and as it is meant."""
    if "://" not in url:
        return {}
    parts = urlsplit(url)
    password = parts.password or ""
    return {**dict(parse_qsl(parts.query)), "password": [password, unquote(password)]}

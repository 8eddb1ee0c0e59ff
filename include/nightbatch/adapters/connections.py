"""Reads connections from environment variables, in the words Airflow uses, without Airflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection, Connections

PREFIX = "AIRFLOW_CONN_"

_BARE_KEYS = {
    "openai_default": ("openai", "OPENAI_API_KEY"),
    "anthropic_default": ("anthropic", "ANTHROPIC_API_KEY"),
}
"""The variables that vendors' own tools read, for people who have only a key."""

_FIELDS = frozenset({"conn_type", "host", "port", "login", "password", "schema", "extra", "description"})


def from_environment(environ: Mapping[str, str]) -> Connections:
    """
    Give a lookup over `AIRFLOW_CONN_<ID>`, as JSON or as URI.

    `openai_default` and `anthropic_default` may also be just a key, in `OPENAI_API_KEY` and `ANTHROPIC_API_KEY`.
    """

    def lookup(conn_id: str) -> Connection:
        variable = PREFIX + conn_id.upper()
        if text := environ.get(variable, "").strip():
            return parse_connection(conn_id, text, variable=variable)
        conn_type, key_variable = _BARE_KEYS.get(conn_id, ("", ""))
        if key := environ.get(key_variable, "").strip():
            return Connection(conn_id, conn_type, password=key)
        or_key = f", or {key_variable} to your key" if key_variable else ""
        raise ConnectionInvalid(
            conn_id,
            problem=f"there is none: {variable} is not set",
            remedy=f"Set {variable} to a connection as JSON or URI{or_key} (docs/providers.md shows each)",
        )

    return lookup


def parse_connection(conn_id: str, text: str, *, variable: str) -> Connection:
    """Read a connection from its JSON or URI form. Raises ConnectionInvalid, which never quotes the text."""
    try:
        return _from_json(conn_id, text) if text.startswith("{") else _from_uri(conn_id, text)
    except ValueError as error:
        # Not chained: what the parsers say quotes their input, and that holds a password.
        problem = str(error) if type(error) is ValueError else "its value can be read neither as JSON nor as URI"
        remedy = (
            f'Mend {variable}: {{"conn_type": "…", "host": "…", "password": "…"}} or type://login:password@host:1/x'
        )
        raise ConnectionInvalid(conn_id, problem=problem, remedy=remedy) from None


def check_type(connection: Connection, expected: str) -> None:
    """
    Raise ConnectionInvalid for a connection of another type.

    It was made for somebody else, and its password must not be sent to whom the job speaks with.
    """
    if connection.conn_type != expected:
        raise ConnectionInvalid(
            connection.conn_id,
            problem=f"it is of type {connection.conn_type or 'nothing'}, and {expected} is needed",
            remedy="Name a connection of that type in the job, or correct its type (docs/providers.md shows each)",
        )


def _from_json(conn_id: str, text: str) -> Connection:
    fields = json.loads(text)
    unknown = sorted(fields.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"it has no field {', '.join(unknown)}")
    return Connection(
        conn_id=conn_id,
        conn_type=_conn_type(str(fields.get("conn_type") or "")),
        host=str(fields.get("host") or ""),
        port=_port(fields.get("port")),
        login=str(fields.get("login") or ""),
        password=str(fields.get("password") or ""),
        schema=str(fields.get("schema") or ""),
        extra=_extra(fields.get("extra")),
    )


def _from_uri(conn_id: str, uri: str) -> Connection:
    """Read `type://login:password@host:port/schema?extra`; a second `://` gives the host a protocol of its own."""
    conn_type, separator, rest = uri.partition("://")
    if not separator or rest.count("://") > 1:
        raise ValueError("its value is no URI")
    protocol, has_protocol, address = rest.partition("://")
    if not has_protocol or "/" in protocol or "?" in protocol:
        # No second `://`, or one inside the path or the extra. An escaped one (https%3A%2F%2F…) is in the host.
        protocol, address = "", rest
    elif "@" in protocol or ":" in protocol:
        raise ValueError(
            "its login stands before the second '://' and belongs after it: type://http://login:password@…"
        )
    parts = urlsplit(f"//{address}")
    host = _host(parts)
    return Connection(
        conn_id=conn_id,
        conn_type=_conn_type(conn_type),
        host=f"{protocol}://{host}" if protocol and host else host,
        port=_port(parts.port),
        login=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        schema=unquote(parts.path[1:]),
        extra=_query_extra(parts.query),
    )


def _host(parts: SplitResult) -> str:
    """Unquote the host, keeping upper case where it is really a path or an address with a path."""
    host = unquote(parts.hostname or "")
    if "/" not in host:
        return host
    return unquote(parts.netloc.rpartition("@")[2].split(":", 1)[0])


def _query_extra(query: str) -> Mapping[str, Any]:
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    if "__extra__" in pairs:
        return _extra(pairs["__extra__"])
    return {name: _json_or_text(value) for name, value in pairs.items()}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value) if value else value
    except json.JSONDecodeError:
        return value


def _extra(value: object) -> Mapping[str, Any]:
    extra = json.loads(value) if isinstance(value, str) and value.strip() else value or {}
    if not isinstance(extra, dict):
        raise ValueError("its extra is no JSON object")
    return extra


def _port(value: object) -> int | None:
    if value in (None, "", 0):
        return None
    text = str(value)
    if not text.isdecimal():
        raise ValueError("its port is no whole number")
    return int(text)


def _conn_type(word: str) -> str:
    return "postgres" if word == "postgresql" else word.replace("-", "_")

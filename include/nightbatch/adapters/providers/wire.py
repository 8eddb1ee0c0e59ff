"""What the wires of several vendors have in common: JSON strings, base URLs, error texts cut short."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection

CHUNK_BYTES = 1 << 18
"""How much of a request body is handed to the network at once."""

Headers = tuple[tuple[str, str], ...]
"""HTTP headers as pairs, so that they can be compared."""

_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SECRET = re.compile(r"\b(?:sk|key|pat|xox[a-z])-[^\s\"']+", re.IGNORECASE)
_ABOUT_A_ROW = re.compile(r"\b(?:requests|messages|input)[.\[]+\d|\bline \d", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def json_members(members: dict[str, Any]) -> bytes:
    """Encode the members of an object without its braces, in the order given."""
    return orjson.dumps(members)[1:-1]


def chunked(pieces: Iterable[bytes], size_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Gather many small pieces into few chunks, so that a write is not paid for every row."""
    waiting: list[bytes] = []
    held = 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= size_bytes:
            yield b"".join(waiting)
            waiting.clear()
            held = 0
    if waiting:
        yield b"".join(waiting)


def origin_of(url: str) -> str:
    """Give scheme, host and port of an address, for people: no credentials, path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def short_code(code: object, default: str) -> str:
    """Give a vendor's code if it looks like one, so that no row content passes for a code."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else default


def short_text(message: object, limit: int = 200) -> str:
    """
    Cut a vendor's message down to one printable line of at most `limit` characters, without keys.

    One that is about a single request of a batch is left out: vendors quote there what they did not like.
    """
    if not isinstance(message, str):
        return ""
    if _ABOUT_A_ROW.search(message):
        return "(what it says is about one request, and is left out because it may quote it)"
    line = _UNPRINTABLE.sub(" ", _SECRET.sub("[key]", message)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def declared(connection: Connection, *, client_kwargs: str) -> dict[str, Any]:
    """Give the extra of a connection, with what stands where Airflow's own hooks look (`extra.<client_kwargs>`)."""
    nested = connection.extra.get(client_kwargs)
    return {**(nested if isinstance(nested, dict) else {}), **connection.extra}


def headers_of(extra: Mapping[str, Any]) -> Headers:
    """Give the headers that a connection adds to every request."""
    return tuple(sorted((str(name), str(value)) for name, value in (extra.get("default_headers") or {}).items()))


def base_url(connection: Connection, *, client_kwargs: str, default: str) -> str:
    """
    Find where a connection points to; `default` where it says nothing.

    The extra's `base_url` wins, then the host with port and path. A bare host is reached by https, on loopback by
    http.
    """
    explicit = declared(connection, client_kwargs=client_kwargs).get("base_url")
    if explicit:
        return str(explicit).rstrip("/")
    if not connection.host:
        return default
    host, schema = connection.host.rstrip("/"), connection.schema
    if "://" not in host:
        bare = host.split("/", 1)[0].split(":", 1)[0]
        scheme = schema if schema in {"http", "https"} else "http" if bare in _LOOPBACK else "https"
        host = f"{scheme}://{host}"
    port = f":{connection.port}" if connection.port else ""
    path = f"/{schema.strip('/')}" if schema and schema not in {"http", "https"} else ""
    return f"{host}{port}{path}"


def api_key(connection: Connection, *, client_kwargs: str, variable: str) -> str:
    """Find the key of a connection: where Airflow's own hooks look first, else its password."""
    key = declared(connection, client_kwargs=client_kwargs).get("api_key") or connection.password
    if not key:
        raise ConnectionInvalid(
            connection.conn_id,
            problem="it has no API key",
            remedy=f"Put the key into its password field, or set {variable}",
        )
    return str(key)


def check_params(params: Mapping[str, Any], reserved: frozenset[str]) -> None:
    """Raise ValueError where a job's own parameters would overrule what nightbatch itself sets."""
    taken = sorted(reserved & params.keys())
    if taken:
        raise ValueError(f"params sets {', '.join(taken)}, which nightbatch sets itself; remove it from params")


def mended_json(line: bytes) -> bytes:
    """
    Write a line again without what JSON allows and UTF-8 does not: escaped lone surrogates become "?".

    A row with one was answered and paid for. Raises ValueError for a line that is no JSON at all.
    """
    try:
        return json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError) as error:
        raise ValueError("the line is not JSON") from error

"""Which files a source is: its address with the window filled in, and the names that match it."""

from __future__ import annotations

import re
from datetime import datetime

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.adapters.object_store_connect import identity_of
from nightbatch.core.window import Window
from nightbatch.errors import BadSource
from nightbatch.ports import Connection

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_WILD = re.compile(r"[*?]")
_PARTS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_SUFFIXES = (".parquet", ".pq", ".jsonl", ".ndjson", ".csv", ".gz", ".gzip", ".zst", ".zstd")


def render_uri(uri: str, window: Window) -> str:
    """
    Fill the window into an address: `{{ ds }}`, `{{ window_start.strftime('%Y/%m/%d') }}`, `{{ window_end | … }}`.

    All three are in UTC; `ds` is the day on which the window starts. Raises BadSource for a template that fails.
    """
    if not _TEMPLATE.search(uri):
        return uri
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    environment.filters["strftime"] = _strftime
    facts = {"window_start": window.start, "window_end": window.end, "ds": f"{window.start:%Y-%m-%d}"}
    try:
        return environment.from_string(uri).render(facts).strip()
    except (TemplateError, TypeError, ValueError, AttributeError) as error:
        raise BadSource(
            uri,
            problem=f"the template in its address fails: {error}",
            remedy="Use {{ ds }}, or window_start and window_end with strftime",
        ) from error


def find_files(uri: str, connection: Connection | None) -> tuple[ObjectStore, list[str]]:
    """
    Open the store of a rendered address, and list the matching names, sorted.

    A file, a folder (all below it), or a glob: `*` and `?` within one part, `**` over any number. Names that begin
    with `_` or `.`, and folders of that kind, are left out of folders and globs. Raises BadSource where the address
    is that of one file, and it is not there.
    """
    wild = _WILD.search(uri)
    if wild:
        folder, pattern = _split(uri, wild.start())
        store = _open(folder, connection)
        matches = _pattern(pattern).fullmatch
        return store, [name for name in store.names("") if matches(name) and not _is_hidden(name)]
    folder, name = _split(uri.rstrip("/"), len(uri))
    if name and not uri.endswith("/"):
        store = _open(folder, connection)
        if store.exists(name):
            return store, [name]
        if name.lower().endswith(_SUFFIXES):
            raise BadSource(
                uri,
                problem="there is no such file",
                remedy="Correct the address; where the file may rightly be absent, write a `*` into its name",
            )
    store = _open(uri, connection)
    return store, [name for name in store.names("") if not _is_hidden(name)]


def fixed_identity(uri: str, connection: Connection | None) -> str:
    """Name the part of an address that is the same for every window: a file, or the folder of a glob or template."""
    marks = [mark.start() for mark in (_TEMPLATE.search(uri), _WILD.search(uri)) if mark]
    fixed = _split(uri, min(marks))[0] if marks else uri
    return identity_of(fixed, connection)


def _open(uri: str, connection: Connection | None) -> ObjectStore:
    try:
        return ObjectStore(uri, connection)
    except ValueError as error:
        raise BadSource(uri, problem=str(error), remedy="Correct the source's address") from error


def _split(uri: str, before: int) -> tuple[str, str]:
    """Cut at the last slash in front of a position; the first half is a folder that can be opened."""
    at = uri.rfind("/", 0, before)
    if at < 0:
        return ".", uri
    return uri[:at] or "/", uri[at + 1 :]


def _pattern(glob: str) -> re.Pattern[str]:
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(_PARTS.get(token) or re.escape(token) for token in tokens), re.DOTALL)


def _is_hidden(name: str) -> bool:
    """Say whether a name is bookkeeping (`_SUCCESS`, `.tmp`); `_year=2026` is a partition, and is read."""
    *folders, file = name.split("/")
    return file.startswith(("_", ".")) or any(part.startswith(("_", ".")) and "=" not in part for part in folders)


def _strftime(value: datetime, pattern: str) -> str:
    return value.strftime(pattern)

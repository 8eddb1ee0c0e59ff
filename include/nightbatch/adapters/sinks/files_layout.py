"""Where a file sink keeps what: names of parts and their order, and the marker that says whose folder it is."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from nightbatch.adapters.object_store import ObjectStore
from nightbatch.core.window import Window
from nightbatch.errors import BadSink
from nightbatch.ports import SinkContext

MARKER = "_nightbatch.json"
_VERSION = 1

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME = re.compile(r"[a-z_]+/window=(?P<window>\w+-\w+)/g(?P<generation>\d+)-(?P<part>[^/]+)\.(?:parquet|jsonl)")

Rank = tuple[datetime, int, str]

_STAYS_SO = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EEXIST", "EINVAL", "ELOOP", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS")
)
"""Why a folder cannot be made today, nor tomorrow; a full or failing disk may have passed by then."""


class Marker(msgspec.Struct, frozen=True):
    """What a folder says of itself: its job, the key's column, and the kind of every answer column so far."""

    job: str
    key_column: str
    columns: Mapping[str, str]
    version: int = _VERSION

    def encoded(self) -> bytes:
        """Write the marker, readable."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def make_folder(store: ObjectStore) -> None:
    """Make the folder of a local sink. Raises BadSink where that can never be; a bucket has no folders to make."""
    if store.location.scheme != "file":
        return
    try:
        Path(store.location.prefix).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _STAYS_SO:
            raise BadSink(
                store.identity,
                problem=f"the folder {store.location.prefix}/ cannot be made: {error.strerror}",
                remedy="Choose a folder that this user may write to.",
            ) from error
        # Whatever else is wrong is told by the first write, and tried again.


def read_marker(store: ObjectStore) -> Marker | None:
    """Read whose folder this is; None where it is nobody's yet. Raises BadSink for a marker of another kind."""
    try:
        found = msgspec.json.decode(store.read(MARKER), type=Marker)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise _unreadable(store, str(error)) from error
    if found.version != _VERSION:
        raise _unreadable(store, f"it is of version {found.version}, and this library writes {_VERSION}")
    return found


def part_name(folder: str, context: SinkContext, part: str, format_: str) -> str:
    """Name the file of a part; the same part of the same run has always the same name."""
    if not _PART.fullmatch(part):
        raise ValueError(f"{part!r} is no name of a part: letters, digits, dot, dash and underscore")
    return f"{folder}/window={context.window.key}/g{context.generation:04d}-{part}.{format_}"


def parts_of(store: ObjectStore, folder: str) -> list[str]:
    """List the files of all parts, oldest first: by window end, then generation, then name."""
    return sorted((name for name in store.names(folder) if _NAME.fullmatch(name)), key=rank_of)


def rank_of(name: str) -> Rank:
    """Give the order of a part's file: of two rows with one key, that of the higher rank wins."""
    found: Any = _NAME.fullmatch(name)
    return Window.from_key(found["window"]).end, int(found["generation"]), name


def _unreadable(store: ObjectStore, problem: str) -> BadSink:
    return BadSink(
        store.identity, problem=f"{MARKER} cannot be read: {problem}", remedy="Restore it, or give the job a new folder"
    )

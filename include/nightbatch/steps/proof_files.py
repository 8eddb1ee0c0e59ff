"""Reads the files of a run for its proof: each once, whole, in bounded memory."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile, TemporaryDirectory
from typing import BinaryIO, TypeVar, cast

import pyarrow as pa

from nightbatch.core.ids import row_of
from nightbatch.core.proof import Link, same, unknown
from nightbatch.core.proof_rows import Heard
from nightbatch.core.result import Result
from nightbatch.ports import Store

from .parquet import Readable, read_rows

T = TypeVar("T")

PIECE_BYTES = 1 << 20
_NOT_THEN = "the hash was not recorded then"
_UNREAD = "a file could not be read"


class LocalCopy:
    """Reads a store through a local copy of the last file, so that what is hashed and then read is fetched once."""

    MEMORY_BYTES = 16 << 20
    """What a copy holds in memory; the rest of it is in the temporary folder."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._name = ""
        self._copy = SpooledTemporaryFile(self.MEMORY_BYTES)  # noqa: SIM115 - closed by `close`

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Stream a file out, as `Store.reader` does. Raises FileNotFoundError."""
        if name != self._name:
            self.close()
            self._copy = SpooledTemporaryFile(self.MEMORY_BYTES)  # noqa: SIM115 - closed by `close`
            with self._store.reader(name) as file:
                shutil.copyfileobj(file, self._copy, PIECE_BYTES)
            self._name = name
        self._copy.seek(0)
        yield cast(BinaryIO, self._copy)

    def close(self) -> None:
        """Forget the copy."""
        self._name = ""
        self._copy.close()


@dataclass(frozen=True)
class Digest:
    """What a file is, byte for byte."""

    sha256: str
    lines: int


def digest(store: Readable, name: str) -> Digest:
    """Hash a file, and count its newlines. Raises FileNotFoundError."""
    sha, lines = hashlib.sha256(), 0
    with store.reader(name) as file:
        while piece := file.read(PIECE_BYTES):
            sha.update(piece)
            lines += piece.count(b"\n")
    return Digest(sha.hexdigest(), lines)


def hear(store: Readable, name: str, heard: Heard, *, prefix: str, parse: Callable[[bytes], Result]) -> str:
    """Take in every line of a raw file that is about a row of the shard with this prefix; gives the file's SHA-256."""
    sha = hashlib.sha256()
    with store.reader(name) as file:
        rest = b""
        while piece := file.read(PIECE_BYTES):
            sha.update(piece)
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                _take(line, heard, prefix, parse)
        _take(rest, heard, prefix, parse)
    return sha.hexdigest()


def _take(line: bytes, heard: Heard, prefix: str, parse: Callable[[bytes], Result]) -> None:
    if not line.strip():
        return
    try:
        result = parse(line)
    except ValueError:
        return
    row = row_of(result.custom_id, prefix)
    if row is not None and row < len(heard.times):
        heard.add(row, result.outcome, result.usage)


@contextmanager
def copies(store: Readable, name: str) -> Iterator[Callable[[str], int]]:
    """
    Count the duplicates of each question on disk: gives a function from fingerprint to their number.

    Raises what reading the file of duplicates raises.
    """
    with TemporaryDirectory(prefix="nightbatch-proof-") as folder:
        database = sqlite3.connect(Path(folder) / "copies.sqlite", isolation_level=None)
        try:
            database.executescript(
                """
                PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;
                CREATE TABLE copies (fingerprint TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID;
                BEGIN
                """
            )
            database.executemany(
                "INSERT INTO copies VALUES (?, 1) ON CONFLICT (fingerprint) DO UPDATE SET count = count + 1",
                read_rows(store, name, ("fingerprint",)),
            )
            yield lambda fingerprint: _count(database, fingerprint)
        finally:
            database.close()


def _count(database: sqlite3.Connection, fingerprint: str) -> int:
    row = database.execute("SELECT count FROM copies WHERE fingerprint = ?", (fingerprint,)).fetchone()
    return int(row[0]) if row else 0


class Findings:
    """The links of a proof so far, and whether every file could be read."""

    def __init__(self, store: Store) -> None:
        self.store = store
        """Large files are read from here once, small ones by way of `copy`."""
        self.copy = LocalCopy(store)
        self._links: dict[tuple[str, str], Link] = {}
        self._is_whole = True

    def links(self) -> list[Link]:
        """Give all links in the order in which they were looked at."""
        return list(self._links.values())

    def add(self, *links: Link) -> None:
        """Keep links; of two about one place the one that does not hold."""
        for link in links:
            before = self._links.get((link.name, link.place))
            if before is None or before.holds is not False:
                self._links[link.name, link.place] = link

    def read(self, name: str, reading: Callable[[], T]) -> T | None:
        """Read a file; where it is not there, or not what it was, that is a link which does not hold."""
        try:
            return reading() if name else None
        except FileNotFoundError:
            found = "no such file"
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            found = f"what cannot be read ({type(error).__name__})"
        self._is_whole = False
        self.add(Link("file", name, "the file that was written", found, False))
        return None

    def same_file(self, name: str, sha256: str) -> int:
        """Compare a file with its hash; gives its lines, -1 where it cannot be read."""
        found = self.read(name, lambda: digest(self.copy if name.endswith(".parquet") else self.store, name))
        if found is not None and sha256:
            self.add(same("file", name, sha256, found.sha256))
        elif found is not None:
            self.add(unknown("file", name, f"{_NOT_THEN}; it is {found.sha256}"))
        return -1 if found is None else found.lines

    def rows_in(self, name: str) -> int:
        """Count the rows of a Parquet file by reading them."""
        return sum(1 for _ in read_rows(self.copy, name, ("key",)))

    def add_sum(self, link: Link) -> None:
        """Keep a sum over several files, unless one of them could not be read, which is told already."""
        self.add(link if self._is_whole else unknown(link.name, link.place, _UNREAD))

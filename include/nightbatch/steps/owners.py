"""Who came first with a text: exact, in memory that is taken once and does not grow."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from nightbatch.errors import StorageUnavailable

SLOTS = 1_500_000
"""Of 8 bytes each."""
_FULL = 0.8
_TAG, _PLACE = 0xFFFF_FFFF_0000_0000, 0xFFFF_FFFF
_END = b"\xff"
"""Ends a text or a value in the file: a byte that UTF-8 does not have."""
_ALIGNED = 16
"""Bytes; so a place of 32 bits reaches 64 GB into the file."""


Hashed = Callable[[str], int]


class Owners:
    """
    Texts, each with the value that it first came with.

    A hash table whose slots hold half a hash and a place in a file, where the text itself is compared: two hashes that
    are alike decide nothing. What comes when the table is full goes to a B-tree, five times as slow, in an SQLite
    database. Of some 1,200,000 texts on, that is; a source that is read in parts sorts instead.
    """

    def __init__(self, folder: Path, name: str, database: sqlite3.Connection, *, slots: int, hashed: Hashed) -> None:
        self._hashed = hashed
        self._slots = array("Q", [0]) * slots
        self._free = int(slots * _FULL)
        self._name = str(folder / name)
        with self._translated():
            self._file = FileIO(self._name, "x+")
        self._size_bytes = 0
        self._db, table = database, f"{name}_late"
        self._add = f"INSERT OR IGNORE INTO {table} VALUES (?, ?)"  # noqa: S608 - a name of our own
        self._find = f"SELECT value FROM {table} WHERE text = ?"  # noqa: S608 - a name of our own
        database.execute(f"CREATE TABLE {table} (text TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def claim(self, texts: Sequence[str], values: Sequence[str]) -> list[str | None]:
        """Give, for each text in order, the value that it came with first; None where it comes first now."""
        hashed, slots, count, at_byte = self._hashed, self._slots, len(self._slots), self._size_bytes
        found: list[str | None] = []
        fresh: dict[int, bytes] = {}
        for text, value in zip(texts, values, strict=True):
            number = hashed(text)
            at, tag = number % count, number & _TAG
            while slot := slots[at]:
                if slot & _TAG == tag:
                    owner = self._value(((slot & _PLACE) - 1) * _ALIGNED, text, fresh)
                    if owner is not None:
                        found.append(owner)
                        break
                at = at + 1 if at + 1 < count else 0
            else:
                if not self._free:
                    found.append(self._claim_late(text, value))
                    continue
                self._free -= 1
                slots[at] = tag | (at_byte // _ALIGNED + 1)
                record = b"%b\xff%b\xff" % (text.encode(), value.encode())
                fresh[at_byte] = record = record.ljust(-(-len(record) // _ALIGNED) * _ALIGNED, b"\0")
                at_byte += len(record)
                found.append(None)
        if fresh:
            self._append(b"".join(fresh.values()))
        return found

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _append(self, records: bytes) -> None:
        left = memoryview(records)
        with self._translated():
            self._file.seek(self._size_bytes)
            while left:
                left = left[self._file.write(left) :]
        self._size_bytes += len(records)

    def _read(self, at_byte: int, size_bytes: int) -> bytes:
        with self._translated():
            return os.pread(self._file.fileno(), size_bytes, at_byte)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageUnavailable(self._name, cause=error.strerror or type(error).__name__) from error

    def _value(self, at_byte: int, text: str, fresh: dict[int, bytes]) -> str | None:
        """Give the value of the record at a place; None where it is another text's."""
        wanted, size_bytes = text.encode() + _END, 256
        record = fresh.get(at_byte) or self._read(at_byte, size_bytes)
        while record.count(_END) < 2:
            size_bytes *= 4
            record = self._read(at_byte, size_bytes)
        if not record.startswith(wanted):
            return None
        return record[len(wanted) : record.index(_END, len(wanted))].decode()

    def _claim_late(self, text: str, value: str) -> str | None:
        if self._db.execute(self._add, (text, value)).rowcount == 1:
            return None
        return str(self._db.execute(self._find, (text,)).fetchone()[0])

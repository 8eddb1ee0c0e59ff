"""What was seen before, on disk: known answers and this run's keys and fingerprints, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from nightbatch.errors import StorageUnavailable


class Seen:
    """
    Sets too large for memory: the sink's answers, dead letters of an overlap, keys and fingerprints of this run.

    An SQLite file of its own, thrown away after the run; its cache is bounded at 32 MB.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db, self._has_known, self._has_dead = database, False, False
        self._db.executescript(
            """
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768;
            CREATE TABLE known (key TEXT PRIMARY KEY, fingerprint TEXT, window_end REAL) WITHOUT ROWID;
            CREATE TABLE dead (key TEXT, fingerprint TEXT, PRIMARY KEY (key, fingerprint)) WITHOUT ROWID;
            CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE prints (fingerprint TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID;
            """
        )
        # Only now, since a script ends what was begun: without it each row would be a transaction of its own.
        self._db.execute("BEGIN")

    def learn(self, rows: Sequence[tuple[str, str, datetime]], *, asks_anew: bool = False) -> None:
        """
        Take in (key, fingerprint, window end) of good answers that the sink already holds.

        With `asks_anew` no question counts as unchanged; how old the answers are is still known.
        """
        self._has_known = self._has_known or bool(rows)
        self._db.executemany(
            "INSERT OR REPLACE INTO known VALUES (?, ?, ?)",
            ((key, None if asks_anew else print_, end.timestamp()) for key, print_, end in rows),
        )

    def learn_dead(self, letters: Iterable[tuple[str, str]]) -> None:
        """Take in (key, fingerprint) of questions that other runs asked, and whose dead letters stand."""
        self._has_dead = self._db.executemany("INSERT OR IGNORE INTO dead VALUES (?, ?)", letters).rowcount > 0

    def is_unchanged(self, key: str, fingerprint: str) -> bool:
        """Say whether the sink already holds the answer to exactly this question, or its dead letter stands."""
        if self._has_known:
            row = self._db.execute("SELECT fingerprint FROM known WHERE key = ?", (key,)).fetchone()
            if row is not None and row[0] == fingerprint:
                return True
        letter = "SELECT 1 FROM dead WHERE key = ? AND fingerprint = ?"
        return self._has_dead and self._db.execute(letter, (key, fingerprint)).fetchone() is not None

    def is_answered_later(self, key: str, window_end: datetime) -> bool:
        """Say whether the sink's answer for a key is of a window that ends later than this."""
        row = self._db.execute("SELECT window_end FROM known WHERE key = ?", (key,)).fetchone()
        return row is not None and bool(row[0] > window_end.timestamp())

    def is_new_key(self, key: str) -> bool:
        """Remember a key; False where this run has seen it before."""
        return self._db.execute("INSERT OR IGNORE INTO keys VALUES (?)", (key,)).rowcount == 1

    def twin_of(self, fingerprint: str, key: str) -> str | None:
        """Remember a fingerprint; give the key of its first owner where this run has seen it before."""
        if self._db.execute("INSERT OR IGNORE INTO prints VALUES (?, ?)", (fingerprint, key)).rowcount == 1:
            return None
        row = self._db.execute("SELECT key FROM prints WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return str(row[0])


@contextmanager
def seen() -> Iterator[Seen]:
    """Open the sets in a temporary folder. Raises StorageUnavailable where that is full."""
    with TemporaryDirectory(prefix="nightbatch-seen-") as folder:
        try:
            with closing(sqlite3.connect(Path(folder) / "seen.sqlite", isolation_level=None)) as database:
                yield Seen(database)
        except sqlite3.OperationalError as error:
            raise StorageUnavailable(f"the temporary folder {folder}", cause=str(error)) from error

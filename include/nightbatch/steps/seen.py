"""What was seen before, on disk: known answers and this run's keys and fingerprints, in bounded memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from nightbatch.errors import StorageUnavailable

from .owners import SLOTS, Hashed, Owners

_PRINTS = """SELECT (SELECT fingerprint FROM known WHERE key = asked.value ORDER BY nr DESC LIMIT 1)
    FROM json_each(?) AS asked ORDER BY asked.key"""
_END = "SELECT window_end FROM known WHERE key = ? ORDER BY nr DESC LIMIT 1"


class Seen:
    """
    Sets too large for memory: the sink's answers, dead letters of an overlap, keys and fingerprints of this run.

    Files of its own, thrown away after the run; 24 MB of memory for this run's, at most 16 MB for the others.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection, *, slots: int, hashed: Hashed) -> None:
        self._db, self._has_known, self._is_indexed, self._has_dead = database, False, False, False
        self._db.executescript(
            """
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384; PRAGMA temp_store=FILE;
            CREATE TABLE known (nr INTEGER PRIMARY KEY, key TEXT, fingerprint TEXT, window_end REAL);
            CREATE TABLE dead (key TEXT, fingerprint TEXT, PRIMARY KEY (key, fingerprint)) WITHOUT ROWID;
            """
        )
        # Only now, since a script ends what was begun: without it each row would be a transaction of its own.
        self._db.execute("BEGIN")
        self._keys = Owners(folder, "keys", database, slots=slots, hashed=hashed)
        self._prints = Owners(folder, "prints", database, slots=slots, hashed=hashed)

    def learn(self, rows: Sequence[tuple[str, str, datetime]], *, asks_anew: bool = False) -> None:
        """
        Take in (key, fingerprint, window end) of good answers that the sink already holds; before any question.

        With `asks_anew` no question counts as unchanged; how old the answers are is still known.
        """
        self._has_known = self._has_known or bool(rows)
        self._db.executemany(
            "INSERT INTO known (key, fingerprint, window_end) VALUES (?, ?, ?)",
            ((key, None if asks_anew else print_, end.timestamp()) for key, print_, end in rows),
        )

    def learn_dead(self, letters: Iterable[tuple[str, str]]) -> None:
        """Take in (key, fingerprint) of questions that other runs asked, and whose dead letters stand."""
        self._has_dead = self._db.executemany("INSERT OR IGNORE INTO dead VALUES (?, ?)", letters).rowcount > 0

    def unchanged(self, questions: Sequence[tuple[str, str]]) -> list[bool]:
        """Say of each (key, fingerprint) whether the sink holds the answer to exactly it, or its dead letter stands."""
        found = [False] * len(questions)
        if self._has_known:
            # Many at once, since a statement for each takes twice as long.
            asked = orjson.dumps([key for key, _ in questions]).decode()
            known = self._known(_PRINTS, asked)
            found = [held == print_ for (held,), (_, print_) in zip(known, questions, strict=True)]
        if self._has_dead:
            letter = "SELECT 1 FROM dead WHERE key = ? AND fingerprint = ?"
            found = [
                is_known or self._db.execute(letter, question).fetchone() is not None
                for is_known, question in zip(found, questions, strict=True)
            ]
        return found

    def is_answered_later(self, key: str, window_end: datetime) -> bool:
        """Say whether the sink's answer for a key is of a window that ends later than this."""
        row = self._known(_END, key).fetchone()
        return row is not None and bool(row[0] > window_end.timestamp())

    def new_keys(self, keys: Sequence[str]) -> list[bool]:
        """Remember keys; say of each whether this run has not seen it before."""
        return [owner is None for owner in self._keys.claim(keys, [""] * len(keys))]

    def twins(self, questions: Sequence[tuple[str, str]]) -> list[str | None]:
        """Remember each (key, fingerprint); give the key that its fingerprint came with first, None if that is now."""
        return self._prints.claim([print_ for _, print_ in questions], [key for key, _ in questions])

    def close(self) -> None:
        """Let go of the files."""
        self._keys.close()
        self._prints.close()

    def _known(self, statement: str, value: str) -> sqlite3.Cursor:
        if not self._is_indexed:
            # Sorted once, when all are there: each put in its place as it comes takes many times as long.
            self._db.execute("CREATE INDEX known_keys ON known (key)")
            self._is_indexed = True
        return self._db.execute(statement, (value,))


@contextmanager
def seen(*, slots: int = SLOTS, hashed: Hashed = hash) -> Iterator[Seen]:
    """Open the sets in a temporary folder. Raises StorageUnavailable where that is full."""
    with TemporaryDirectory(prefix="nightbatch-seen-") as folder:
        try:
            with (
                closing(sqlite3.connect(Path(folder) / "seen.sqlite", isolation_level=None)) as database,
                closing(Seen(Path(folder), database, slots=slots, hashed=hashed)) as memory,
            ):
                yield memory
        except sqlite3.OperationalError as error:
            raise StorageUnavailable(f"the temporary folder {folder}", cause=str(error)) from error

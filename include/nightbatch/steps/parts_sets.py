"""
What no part of a source can know alone, decided for all of them at once, by sorting on disk.

The rules are those of `pack.py`, in the order in which the parts stand: the first record of a run owns its key; what
the sink or a dead letter answers already is unchanged; of those that ask the same the first is asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nightbatch.errors import StorageUnavailable

_TABLES = """
PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768; PRAGMA temp_store=FILE;
PRAGMA locking_mode=EXCLUSIVE;
CREATE TABLE rows (at INTEGER PRIMARY KEY, key TEXT, print BLOB);
CREATE TABLE waits (at INTEGER PRIMARY KEY, ends REAL);
CREATE TABLE bad (at INTEGER PRIMARY KEY, key TEXT, reason TEXT, detail TEXT);
CREATE TABLE known (nr INTEGER PRIMARY KEY, key TEXT, print BLOB, ends REAL);
CREATE TABLE dead (key TEXT, print BLOB, PRIMARY KEY (key, print)) WITHOUT ROWID;
CREATE TABLE twice (key TEXT PRIMARY KEY, first INTEGER) WITHOUT ROWID;
CREATE TABLE again (at INTEGER PRIMARY KEY);
CREATE TABLE same (print BLOB PRIMARY KEY, first INTEGER) WITHOUT ROWID;
CREATE TABLE fates (at INTEGER PRIMARY KEY, fate TEXT, twin TEXT);
"""
"""
`at` is the order of all records. In `rows` are those that can be asked about, narrow, since every one is sorted twice;
in `waits` which of them earlier runs left pending.
"""

_KEYS = (
    # A bad key owns nothing; every other record, also one that cannot be asked about, owns its key if it is the first.
    """INSERT INTO twice SELECT key, min(at) FROM (
        SELECT key, at FROM rows UNION ALL SELECT key, at FROM bad WHERE reason <> 'bad_key'
    ) GROUP BY key HAVING count(*) > 1""",
    "INSERT INTO fates SELECT at, 'bad', NULL FROM bad",
)
_AGAIN = (
    """INSERT INTO again SELECT bad.at FROM bad JOIN twice USING (key)
        WHERE bad.at > twice.first AND reason <> 'bad_key'""",
    "INSERT INTO again SELECT rows.at FROM rows CROSS JOIN twice USING (key) WHERE rows.at > twice.first",
    """INSERT OR IGNORE INTO fates
        SELECT again.at, CASE WHEN waits.at IS NULL THEN 'duplicate_key' ELSE 'superseded' END, NULL
        FROM again LEFT JOIN waits USING (at)""",
)
_KNOWN = (
    "CREATE INDEX known_keys ON known (key)",
    """INSERT OR IGNORE INTO fates
        SELECT r.at, CASE WHEN w.ends < k.ends THEN 'superseded' ELSE 'unchanged' END, NULL
        FROM rows AS r CROSS JOIN known AS k ON k.nr = (SELECT max(nr) FROM known WHERE key = r.key)
        LEFT JOIN waits AS w ON w.at = r.at
        WHERE w.ends < k.ends OR r.print = k.print""",
    """INSERT OR IGNORE INTO fates
        SELECT r.at, 'unchanged', NULL FROM rows AS r CROSS JOIN dead AS d ON d.key = r.key AND d.print = r.print""",
)
_SAME = """INSERT INTO same SELECT print, min(at) FROM rows
    WHERE NOT EXISTS (SELECT 1 FROM fates WHERE fates.at = rows.at) GROUP BY print HAVING count(*) > 1"""
_TWINS = """INSERT INTO fates SELECT r.at, 'duplicate', owner.key
    FROM rows AS r CROSS JOIN same ON same.print = r.print CROSS JOIN rows AS owner ON owner.at = same.first
    WHERE r.at > same.first AND NOT EXISTS (SELECT 1 FROM fates WHERE fates.at = r.at)"""


class Bad(NamedTuple):
    """A record that cannot be asked about."""

    before: int
    """How many requests of all parts stand before it."""
    key: str
    reason: str
    detail: str


class Fallen(NamedTuple):
    """A record that is not asked."""

    fate: str
    """`bad`, `duplicate_key`, `superseded`, `unchanged` or `duplicate`."""
    twin: str | None
    """The key of the one that is asked in the place of a duplicate."""
    place: int | None
    key: str
    print: bytes | None
    ends: float | None
    reason: str
    detail: str
    owns_key: bool


class Sets:
    """The claims of all parts, and what is known of before: in one SQLite file, which is thrown away."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.executescript(_TABLES)
        # Only now, since a script ends what was begun: without it each row would be a transaction of its own.
        self._db.execute("BEGIN")

    def learn(self, rows: Sequence[tuple[str, str, datetime]], *, asks_anew: bool) -> None:
        """Take in (key, fingerprint, window end) of answers that the sink holds; see `Seen.learn`."""
        self._db.executemany(
            "INSERT INTO known (key, print, ends) VALUES (?, ?, ?)",
            ((key, None if asks_anew else bytes_of(print_), end.timestamp()) for key, print_, end in rows),
        )

    def learn_dead(self, letters: Iterable[tuple[str, str]]) -> None:
        """Take in (key, fingerprint) of questions whose dead letters stand."""
        self._db.executemany(
            "INSERT OR IGNORE INTO dead VALUES (?, ?)", ((key, bytes_of(print_)) for key, print_ in letters)
        )

    def ask(self, requests: Iterable[tuple[int, str, str]]) -> None:
        """Take in (place, key, fingerprint) of what can be asked, in the order of the parts."""
        rows = ((at_of(place), key, bytes_of(print_)) for place, key, print_ in requests)
        self._db.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)

    def wait(self, waits: Iterable[tuple[int, datetime | None]]) -> None:
        """Take in which requests earlier runs left pending, and the end of the window that held their record."""
        rows = ((at_of(place), end.timestamp() if end else None) for place, end in waits)
        self._db.executemany("INSERT INTO waits VALUES (?, ?)", rows)

    def bury(self, bad: Iterable[Bad]) -> None:
        """Take in what cannot be asked about, in order."""
        rows = ((at_of(one.before - 1) + 1 + nth, *one[1:]) for nth, one in enumerate(bad))
        self._db.executemany("INSERT INTO bad VALUES (?, ?, ?, ?)", rows)

    def keys(self) -> Iterator[str]:
        """Stream the keys of all that was learned and buried."""
        held = "SELECT key FROM known UNION ALL SELECT key FROM dead UNION ALL SELECT key FROM bad"
        return (key for (key,) in self._db.execute(held))

    def decide(self) -> None:
        """Give every record that is not asked its fate."""
        self._do(_KEYS)
        if self._has("twice"):
            self._do(_AGAIN)
        if self._has("known") or self._has("dead"):
            self._do(_KNOWN)
        self._do([_SAME])
        if self._has("same"):
            self._do([_TWINS])

    def _do(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._db.execute(statement)

    def _has(self, table: str) -> bool:
        return self._db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None  # noqa: S608 - our own names

    def fallen(self) -> Iterator[Fallen]:
        """Stream the records that are not asked, in order."""
        found = self._db.execute(
            """SELECT f.fate, f.twin, CASE WHEN r.at IS NULL THEN NULL ELSE (f.at >> 32) - 1 END,
                coalesce(r.key, bad.key), r.print, waits.ends, coalesce(bad.reason, ''), coalesce(bad.detail, ''),
                again.at IS NULL
            FROM fates AS f LEFT JOIN rows AS r ON r.at = f.at LEFT JOIN bad ON bad.at = f.at
            LEFT JOIN waits ON waits.at = f.at LEFT JOIN again ON again.at = f.at ORDER BY f.at"""
        )
        yield from map(Fallen._make, found)


def at_of(place: int) -> int:
    """Give where a request stands among all records; between two of them there is room for four billion bad ones."""
    return (place + 1) << 32


def bytes_of(print_: str) -> bytes:
    """Give a fingerprint in half the room; a text that is none, which an older sink may hold, as it is."""
    try:
        return bytes.fromhex(print_)
    except ValueError:
        return print_.encode()


@contextmanager
def sets() -> Iterator[Sets]:
    """Open the sets in a temporary folder. Raises StorageUnavailable where that is full."""
    with TemporaryDirectory(prefix="nightbatch-parts-") as folder:
        try:
            with closing(sqlite3.connect(Path(folder) / "sets.sqlite", isolation_level=None)) as database:
                yield Sets(database)
        except sqlite3.OperationalError as error:
            raise StorageUnavailable(f"the temporary folder {folder}", cause=str(error)) from error

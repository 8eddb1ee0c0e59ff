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
CREATE TABLE rows (at INTEGER PRIMARY KEY, place INTEGER, key TEXT, print BLOB, ends REAL, waited INTEGER,
    reason TEXT, detail TEXT);
CREATE TABLE known (nr INTEGER PRIMARY KEY, key TEXT, print BLOB, ends REAL);
CREATE TABLE dead (key TEXT, print BLOB, PRIMARY KEY (key, print)) WITHOUT ROWID;
CREATE TABLE again (at INTEGER PRIMARY KEY);
CREATE TABLE fates (at INTEGER PRIMARY KEY, fate TEXT, twin TEXT);
"""

_KEYS = (
    # A bad key owns nothing; every other record, also one that cannot be asked about, owns its key if it is the first.
    """INSERT INTO again SELECT at FROM (
        SELECT at, row_number() OVER (PARTITION BY key ORDER BY at) AS nth FROM rows WHERE reason <> 'bad_key'
    ) WHERE nth > 1""",
    "INSERT INTO fates SELECT at, 'bad', NULL FROM rows WHERE reason <> ''",
    """INSERT OR IGNORE INTO fates
        SELECT at, CASE WHEN waited THEN 'superseded' ELSE 'duplicate_key' END, NULL FROM again JOIN rows USING (at)""",
)
_KNOWN = (
    "CREATE INDEX known_keys ON known (key)",
    """INSERT OR IGNORE INTO fates
        SELECT r.at, CASE WHEN r.ends < k.ends THEN 'superseded' ELSE 'unchanged' END, NULL
        FROM rows AS r CROSS JOIN known AS k ON k.nr = (SELECT max(nr) FROM known WHERE key = r.key)
        WHERE r.ends < k.ends OR r.print = k.print""",
    """INSERT OR IGNORE INTO fates
        SELECT r.at, 'unchanged', NULL FROM rows AS r CROSS JOIN dead AS d ON d.key = r.key AND d.print = r.print""",
)
_TWINS = """INSERT INTO fates SELECT at, 'duplicate', twin FROM (
        SELECT at, row_number() OVER same AS nth, first_value(key) OVER same AS twin
        FROM rows WHERE NOT EXISTS (SELECT 1 FROM fates WHERE fates.at = rows.at)
        WINDOW same AS (PARTITION BY print ORDER BY at)
    ) WHERE nth > 1"""


class Claim(NamedTuple):
    """What one record of a part says of itself."""

    place: int | None
    """How many requests of all parts stand before it; None for a record that cannot be asked about."""
    key: str
    print: bytes | None
    ends: float | None
    """The end of the window that a pending row's record was pulled in, in seconds of 1970."""
    waited: bool
    """Whether an earlier run left it pending."""
    reason: str = ""
    detail: str = ""


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

    def add(self, claims: Iterable[Claim]) -> None:
        """Take in the claims of all parts, in order."""
        self._db.executemany(
            "INSERT INTO rows (place, key, print, ends, waited, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)", claims
        )

    def decide(self) -> None:
        """Give every record that is not asked its fate."""
        is_first = self._db.execute("SELECT 1 FROM known UNION ALL SELECT 1 FROM dead LIMIT 1").fetchone() is None
        for statement in (*_KEYS, *(() if is_first else _KNOWN), _TWINS):
            self._db.execute(statement)

    def fallen(self) -> Iterator[Fallen]:
        """Stream the records that are not asked, in order."""
        found = self._db.execute(
            """SELECT f.fate, f.twin, r.place, r.key, r.print, r.ends, r.reason, r.detail, again.at IS NULL
            FROM fates AS f CROSS JOIN rows AS r ON r.at = f.at LEFT JOIN again ON again.at = f.at ORDER BY f.at"""
        )
        yield from map(Fallen._make, found)


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

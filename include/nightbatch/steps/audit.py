"""Prove a run once more, and look into the sink, which settle does not: for `nightbatch audit`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nightbatch.core.proof import Link, same, unknown
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.errors import Terminal
from nightbatch.job import Job
from nightbatch.ports import HeldAnswer, Ports, Run, Shard

from .chain import rounds_of
from .load import context_of
from .parquet import read_rows
from .proof import prove
from .proof_ledger import JUDGED

_ABSENT, _THERE, _OTHER = 0, 1, 2
_TOLD = 3
"""How many rows of a shard are named."""


def audit(ports: Ports, job: Job, run: Run) -> list[Link]:
    """
    Check every link of a run: between files and ledger as settle does, and then between files and sink.

    Changes nothing. Memory is bounded; the rows are compared in a file of the temporary folder, about 200 bytes each.
    Of a run whose staging was removed it gives what its last settle recorded.
    """
    rounds, shards = rounds_of(ports, run.run), ports.ledger.shards(run.run)
    links = prove(ports, run)
    is_whole = not any(link.holds is False for link in links if link.name == "file")
    if not rounds or run.staging_removed_utc is not None or not is_whole:
        # What should be in the sink is in files that are not what they were.
        return links
    try:
        return [*links, *_sink_links(ports, job, run, shards, str(rounds[0].facts.get("duplicates_name", "")))]
    except Terminal as error:
        return [*links, unknown("sink", run.run, f"the sink could not be read: {error}")]


def _sink_links(ports: Ports, job: Job, run: Run, shards: Sequence[Shard], duplicates: str) -> list[Link]:
    judged = [shard for shard in shards if shard.state in JUDGED]
    with _compared() as rows:
        for number, shard in enumerate(judged):
            rows.expect(number, _good(ports, shard), is_loaded=shard.state is ShardState.LOADED)
        if duplicates:
            rows.expect_copies(read_rows(ports.store, duplicates, ("key", "fingerprint")))
        for answers in ports.sink(job).held(context_of(run)):
            rows.see([answer for answer in answers if answer.run == run.run])
            rows.replaced(answer.key for answer in answers if answer.run != run.run)
        links = [rows.link(number, shard.plan.ref.name) for number, shard in enumerate(judged)]
        return [*links, rows.strays(run.run)]


def _good(ports: Ports, shard: Shard) -> Iterator[tuple[Any, ...]]:
    columns = ("kind", "key", "custom_id", "fingerprint", "cost_usd")
    for kind, key, custom_id, print_, cost in read_rows(ports.store, shard.verdicts_name, columns):
        if kind == VerdictKind.GOOD:
            yield key, custom_id, print_, _nano(cost)


def _nano(usd: Decimal | None) -> int | None:
    return None if usd is None else int(usd.scaleb(9))


@contextmanager
def _compared() -> Iterator[_Rows]:
    with TemporaryDirectory(prefix="nightbatch-audit-") as folder:
        database = sqlite3.connect(Path(folder) / "rows.sqlite", isolation_level=None)
        try:
            yield _Rows(database)
        finally:
            database.close()


class _Rows:
    """Rows that should be in the sink, and what became of each; on disk, its cache bounded at 32 MB."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._strays = 0
        self._db.executescript(
            """
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768;
            CREATE TABLE good (
              key TEXT PRIMARY KEY, shard INTEGER, custom_id TEXT, fingerprint TEXT, nano INTEGER, is_copy INTEGER,
              found INTEGER
            ) WITHOUT ROWID;
            BEGIN
            """
        )

    def expect(self, shard: int, rows: Iterable[tuple[Any, ...]], *, is_loaded: bool) -> None:
        """Take in a shard's good rows; one that was not loaded yet may be in the sink or not."""
        found = _ABSENT if is_loaded else _THERE
        statement = f"INSERT OR IGNORE INTO good VALUES (?, {shard:d}, ?, ?, ?, 0, {found:d})"  # noqa: S608 - numbers
        self._db.executemany(statement, rows)

    def expect_copies(self, duplicates: Iterable[tuple[Any, ...]]) -> None:
        """Take in the duplicates whose twin is good: each has the twin's custom_id, and cost nothing."""
        self._db.execute("CREATE INDEX by_fingerprint ON good (fingerprint, is_copy)")
        self._db.executemany(
            "INSERT OR IGNORE INTO good SELECT ?, shard, custom_id, fingerprint, 0, 1, found FROM good "
            "WHERE fingerprint = ? AND is_copy = 0",
            duplicates,
        )

    def see(self, answers: Sequence[HeldAnswer]) -> None:
        """Compare answers of this very run."""
        rows = [(it.custom_id, it.fingerprint, _nano(it.cost_usd), it.key) for it in answers]
        changed = self._db.executemany(
            "UPDATE good SET found = CASE WHEN found = 1 OR (custom_id IS ? AND fingerprint IS ? AND nano IS ?) "
            "THEN 1 ELSE 2 END WHERE key = ?",
            rows,
        ).rowcount
        self._strays += len(rows) - max(changed, 0)

    def replaced(self, keys: Iterable[str]) -> None:
        """Take a newer answer for as good as this run's."""
        self._db.executemany(f"UPDATE good SET found = {_THERE:d} WHERE key = ?", ((key,) for key in keys))  # noqa: S608 - a number

    def link(self, shard: int, place: str) -> Link:
        """Say whether all rows of a shard are in the sink as they were booked."""
        counts = dict(self._db.execute("SELECT found, count(*) FROM good WHERE shard = ? GROUP BY found", (shard,)))
        total, there = sum(counts.values()), counts.get(_THERE, 0)
        found = f"{there:,} rows"
        for state, what in ((_ABSENT, "none"), (_OTHER, "another custom_id, fingerprint or cost")):
            if state in counts:
                found += f"; {what} for {self._named(shard, state, counts[state])}"
        return Link("sink", place, f"{total:,} rows", found, total == there)

    def _named(self, shard: int, state: int, count: int) -> str:
        query = "SELECT custom_id, is_copy FROM good WHERE shard = ? AND found = ? ORDER BY custom_id, is_copy LIMIT ?"
        rows = self._db.execute(query, (shard, state, _TOLD)).fetchall()
        names = [f"a copy of {custom_id}" if is_copy else custom_id for custom_id, is_copy in rows]
        return ", ".join(names) + (f" and {count - _TOLD:,} more" if count > _TOLD else "")

    def strays(self, run: str) -> Link:
        """Say whether the sink has rows of the run that no verdict stands for."""
        what = "{:,} rows of this run without a good verdict".format
        return same("sink", run, what(0), what(self._strays))

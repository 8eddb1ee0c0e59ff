"""Once all parts are read: which of their records are asked, which are not and why, and what must be packed anew."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa

from nightbatch.core.parts import cut
from nightbatch.core.shard import ShardPlan
from nightbatch.core.verdict import Reason
from nightbatch.errors import BadSource
from nightbatch.job import Job
from nightbatch.ports import DEAD_SCHEMA, Ports, Store

from .fill import DUPLICATE_SCHEMA
from .overlap import dead_before
from .parquet import RowWriter, read_batches, read_rows, row_writer
from .parts import Spread, once
from .parts_marks import Marks, marks
from .parts_read import PartRead, read
from .parts_sets import Bad, Fallen, Sets, sets
from .pull import Tally

DROPS_SCHEMA = pa.schema([("place", pa.int64())])
"""The requests that fall out, in order: each by the number of requests of all parts that stand before it."""


@dataclass(frozen=True)
class Sorted:
    """What became of the records of all parts."""

    counts: dict[str, int]
    dead_reasons: dict[str, int]
    duplicates_name: str
    duplicates_sha256: str
    dead_name: str
    dead_sha256: str
    drops_name: str
    standing: tuple[int, ...]
    """Positions, among the shards of all parts, of those that no request fell out of."""
    anew: tuple[tuple[int, ...], ...]
    """Positions of those that are packed anew; each group by one worker."""
    begins_with_canary: bool
    """Whether the first group makes the canary, since the one that the first part made is not whole any more."""


def sort(ports: Ports, spread: Spread) -> Sorted:
    """Decide about the records of all parts, once for all. Raises BadSource for a column that no record has."""
    return once(ports.store, f"{spread.folder}/sorted.json", Sorted, lambda: _sort(ports, spread))


def all_parts(ports: Ports, spread: Spread) -> list[PartRead]:
    """Give what was made of every part, and read those that nobody has read."""
    return [read(ports, spread, number) for number in range(len(spread.parts))]


def shards_of(parts: Sequence[PartRead]) -> list[ShardPlan]:
    """Give the shards of all parts, in order."""
    return [shard for part in parts for shard in part.shards]


def _sort(ports: Ports, spread: Spread) -> Sorted:
    parts, job = all_parts(ports, spread), spread.read_job()
    _check_columns(ports, parts)
    folder = f"{spread.folder}/sorted-{ports.clock.now():%H%M%S%f}"
    with ExitStack() as stack:
        memory, marked = stack.enter_context(sets()), stack.enter_context(marks())
        _learn(ports, job, spread, memory)
        memory.bury(_bad(ports.store, parts))
        memory.ask(_requests(ports.store, parts, _suspects(ports.store, parts, memory, marked)))
        memory.wait(_waits(ports.store, parts))
        memory.decide()
        names = [f"{folder}/{name}.parquet" for name in ("duplicates", "bad_records", "drops")]
        schemas = (DUPLICATE_SCHEMA, DEAD_SCHEMA, DROPS_SCHEMA)
        files = [stack.enter_context(row_writer(ports.store, *pair)) for pair in zip(names, schemas, strict=True)]
        duplicates, dead, drops = files
        fates = _Fates(duplicates, dead, drops, shards_of(parts))
        for fallen in memory.fallen():
            fates.add(fallen)
    standing, anew, begins_with_canary = _places(spread, fates.plans, fates.drops)
    return Sorted(
        _counts(parts, fates),
        dict(fates.dead_reasons),
        names[0] if duplicates.count else "",
        duplicates.sha256,
        names[1] if dead.count else "",
        dead.sha256,
        names[2],
        standing,
        anew,
        begins_with_canary,
    )


def _check_columns(ports: Ports, parts: Sequence[PartRead]) -> None:
    columns = dict.fromkeys(column for part in parts for column in part.seen)
    missing = [column for column in columns if not any(part.seen.get(column) for part in parts)]
    if missing:
        raise BadSource(
            ports.source().identity,
            problem=f"not one record has a field {', '.join(missing)}",
            remedy="Correct the column's name; where it may be absent, write it as null in at least one record",
        )


def _learn(ports: Ports, job: Job, spread: Spread, memory: Sets) -> None:
    for rows in ports.sink(job).known():
        memory.learn(rows, asks_anew=spread.refresh)
    if not spread.refresh:
        memory.learn_dead(dead_before(ports, job, ports.ledger.run(spread.run).window))


def _suspects(store: Store, parts: Sequence[PartRead], memory: Sets, marked: Marks) -> Sequence[int] | None:
    """Give the places of the records to look at, sorted; None for all of them."""
    if not all(part.marks_name for part in parts):
        return None
    marked.expect(memory.keys())
    marked.copy(store, (part.marks_name for part in parts))
    return marked.suspects()


def _requests(
    store: Store, parts: Sequence[PartRead], suspects: Sequence[int] | None
) -> Iterator[tuple[int, str, str]]:
    """Stream place, key and fingerprint of those that can be asked, in the order in which they were read."""
    place = 0
    for shard in shards_of(parts):
        if not _within(suspects, place, place + shard.rows):
            place += shard.rows
            continue
        for batch in read_batches(store, shard.index_name, ("key", "fingerprint")):
            if wanted := _within(suspects, place, place + batch.num_rows):
                rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                yield from ((at, key, print_) for at, (key, print_) in enumerate(rows, place) if at in wanted)
            place += batch.num_rows


def _within(suspects: Sequence[int] | None, start: int, end: int) -> Collection[int]:
    if suspects is None:
        return range(start, end)
    return set(suspects[bisect_left(suspects, start) : bisect_left(suspects, end)])


def _waits(store: Store, parts: Sequence[PartRead]) -> Iterator[tuple[int, datetime | None]]:
    """Stream which requests are pending rows of earlier runs."""
    place = 0
    for part in parts:
        begin = place + part.waited_from
        for shard in part.shards:
            if place + shard.rows > begin:
                ends = read_rows(store, shard.index_name, ("window_end",))
                yield from ((at, end) for at, (end,) in enumerate(ends, start=place) if at >= begin)
            place += shard.rows


def _bad(store: Store, parts: Sequence[PartRead]) -> Iterator[Bad]:
    place = 0
    for part in parts:
        if part.bad_name:
            for before, *what in read_rows(store, part.bad_name, ("before", "key", "reason", "detail")):
                yield Bad(place + before, *what)
        place += sum(shard.rows for shard in part.shards)


@dataclass
class _Fates:
    """Writes down what becomes of records that are not asked, and counts them."""

    duplicates: RowWriter
    dead: RowWriter
    dropped: RowWriter
    plans: list[ShardPlan]
    counts: Counter[str] = field(default_factory=Counter)
    dead_reasons: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.drops = [0] * len(self.plans)
        self._shard = 0
        self._end = self.plans[0].rows if self.plans else 0

    def add(self, one: Fallen) -> None:
        """Take in the next one, in order."""
        self.counts[one.fate] += 1
        if one.place is not None:
            self._drop(one.place)
        if one.fate == "duplicate":
            end = datetime.fromtimestamp(one.ends, UTC) if one.ends is not None else None
            self.duplicates.add((one.key, (one.print or b"").hex(), one.twin, end))
        elif one.fate in ("bad", "duplicate_key"):
            self._bury(one)

    def _drop(self, place: int) -> None:
        self.dropped.add((place,))
        while place >= self._end:
            self._shard += 1
            self._end += self.plans[self._shard].rows
        self.drops[self._shard] += 1

    def _bury(self, one: Fallen) -> None:
        reason = one.reason or Reason.DUPLICATE_KEY.value
        detail = one.detail if one.reason else "an earlier record of this run has the key"
        key = one.key
        if reason == Reason.BAD_KEY.value or not one.owns_key:
            # Dead letters are found by key, and this one has none of its own.
            key = f"{key or '(no key)'} (bad record {self.dead.count + 1})"
        self.dead_reasons[reason] += 1
        self.dead.add((key, "", reason, detail, None, None, 0, None, None, None))


def _counts(parts: Sequence[PartRead], fates: _Fates) -> dict[str, int]:
    asked = sum(plan.rows for plan in fates.plans) - sum(fates.drops)
    found = Tally(
        pulled=sum(part.pulled for part in parts),
        from_pending=sum(part.from_pending for part in parts),
        not_deferrable=sum(part.not_deferrable for part in parts),
        unchanged=fates.counts["unchanged"],
        duplicates=fates.counts["duplicate"],
        superseded=fates.counts["superseded"],
        unrenderable=fates.dead.count,
        requests=asked,
    )
    return {name: value for name, value in vars(found).items() if name != "dead_reasons"}


def _places(
    spread: Spread, plans: Sequence[ShardPlan], drops: Sequence[int]
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], bool]:
    """Say which shards stand as they are, and which are packed anew, in groups that fill a shard at least."""
    left = [plan.rows - dropped for plan, dropped in zip(plans, drops, strict=True)]
    anew = {at for at, dropped in enumerate(drops) if dropped}
    whole = [at for at, plan in enumerate(plans) if plan.ref.shard == 0 and not drops[at]]
    needs_canary = bool(spread.canary_rows and not whole)
    if needs_canary:
        rows = 0
        for at in range(len(plans)):
            if rows < spread.canary_rows:
                anew.add(at)
                rows += left[at]
    some = [at for at in sorted(anew) if left[at]]
    full = max((plan.rows for plan in plans), default=1)
    groups = cut([left[at] for at in some], most=len(spread.parts), least=full)
    standing = tuple(at for at in range(len(plans)) if at not in anew)
    return standing, tuple(tuple(some[at] for at in group) for group in groups), needs_canary

"""The last of the parts: shards from which requests fell out are packed anew, and all becomes one plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from nightbatch.core.ids import ShardRef, custom_id_prefix, run_code
from nightbatch.core.shard import ShardPlan
from nightbatch.ports import Ports

from .fill import Request, ShardFiller, filling, numbers
from .lanes import packing_lane
from .parquet import read_rows
from .parts import Crew, Errand, Spread, once, opened
from .parts_read import read
from .parts_sort import Sorted, all_parts, shards_of, sort
from .progress import Watch, nobody
from .validate import lines


@dataclass(frozen=True)
class Mended:
    """The shards that one group was packed into."""

    shards: tuple[ShardPlan, ...]


@dataclass(frozen=True)
class Gathered:
    """All that becomes the plan."""

    shards: tuple[ShardPlan, ...]
    sorted: Sorted


def do(ports: Ports, errand: Errand, watch: Watch = nobody) -> None:
    """Do one errand; does nothing where it was done."""
    spread = opened(ports.store, errand.spread)
    if errand.kind == "read":
        read(ports, spread, errand.number, watch)
    else:
        mend(ports, spread, errand.number)


def reading(spread: Spread) -> list[Errand]:
    """Name what can be done side by side at first."""
    return [Errand(spread.name, "read", number) for number in range(len(spread.parts))]


def mending(spread: Spread, found: Sorted) -> list[Errand]:
    """Name what can be done side by side once all is sorted."""
    return [Errand(spread.name, "mend", number) for number in range(len(found.anew))]


def gather(ports: Ports, spread: Spread, crew: Crew) -> Gathered:
    """Put all parts together, having done by the crew what was not done yet."""
    crew(reading(spread))
    found = sort(ports, spread)
    crew(mending(spread, found))
    plans = shards_of(all_parts(ports, spread))
    shards = [plans[at] for at in found.standing]
    for number in range(len(found.anew)):
        shards += mend(ports, spread, number).shards
    return Gathered(tuple(sorted(shards, key=lambda plan: plan.ref)), found)


def mend(ports: Ports, spread: Spread, number: int) -> Mended:
    """Pack one group anew, once for all."""
    name = f"{spread.folder}/mended-{number:03d}.json"
    return once(ports.store, name, Mended, lambda: _mend(ports, spread, number))


def _mend(ports: Ports, spread: Spread, number: int) -> Mended:
    found, plans = sort(ports, spread), shards_of(all_parts(ports, spread))
    makes_canary = found.begins_with_canary and number == 0
    filler = ShardFiller(
        ports.store,
        packing_lane(ports, spread.read_job(), 0),
        ledger=ports.ledger.ledger_id,
        folder=f"{spread.folder}/mended-{number:03d}-{ports.clock.now():%H%M%S%f}",
        numbers=_free_numbers(spread, found, plans, number),
        first_rows=spread.canary_rows if makes_canary else None,
    )
    drops = _Drops(ports, found.drops_name)
    starts = [0]
    for plan in plans:
        starts.append(starts[-1] + plan.rows)
    with filling([filler]):
        for at in found.anew[number]:
            _refill(ports, plans[at], filler, drops.within(starts[at], starts[at + 1]))
        return Mended(tuple(filler.close()))


def _free_numbers(spread: Spread, found: Sorted, plans: list[ShardPlan], number: int) -> Iterator[ShardRef]:
    """Give the numbers of the shards that are packed anew, then such as no shard and no other group has."""
    freed = {plans[at].ref for at in found.anew[number]}
    if found.begins_with_canary and number == 0:
        freed.add(ShardRef(spread.run, 0, 0))
    top = max(plan.ref.shard for plan in plans) + 1
    return chain(sorted(freed), numbers(spread.run, 0, first=top + number, step=len(found.anew)))


class _Drops:
    """The requests that fall out, read once from front to back."""

    def __init__(self, ports: Ports, name: str) -> None:
        self._places = (place for (place,) in read_rows(ports.store, name, ("place",)))
        self._next = next(self._places, None)

    def within(self, start: int, end: int) -> set[int]:
        """Give the rows of one shard that fall out; later calls are about later shards."""
        rows: set[int] = set()
        while self._next is not None and self._next < end:
            if self._next >= start:
                rows.add(self._next - start)
            self._next = next(self._places, None)
        return rows


def _refill(ports: Ports, plan: ShardPlan, filler: ShardFiller, drops: set[int]) -> None:
    prefix = custom_id_prefix(ports.ledger.ledger_id, run_code(plan.ref.run), plan.ref.round, plan.ref.shard)
    columns = ("key", "fingerprint", "window_end", "originals")
    requests = zip(
        lines(ports.store, plan.requests_name), read_rows(ports.store, plan.index_name, columns), strict=True
    )
    for row, (line, (key, print_, *carried)) in enumerate(requests):
        if row not in drops:
            body = filler.lane.encoder.envelope.body(f"{prefix}{row}", line + b"\n")
            filler.add([Request(filler.nothing_around, body, key, print_, 1, *carried)])

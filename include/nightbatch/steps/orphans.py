"""Batches that nobody owns: what a vendor lists, and no attempt of this ledger knows of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import islice

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import Origin, ShardRef, origin_of, run_code
from nightbatch.core.shard import ShardState
from nightbatch.ports import Attempt, Ledger, ListedBatch, Provider, Shard

from .resolve import first_custom_id

BATCHES_AT_A_TIME = 500

NOT_USED = (
    "Its rows were answered by another batch, and its own answers are not used. If it still runs, cancel it at the "
    "vendor; otherwise there is nothing to do. Expect it on the vendor's bill."
)
MAY_BE_NEEDED = (
    "Its rows have no answer yet. Running the window again sends them a second time; look at the batch first, and keep "
    "its results."
)
UNKNOWN = (
    "The ledger does not know its shard: it is older than this batch, as after a backup was restored. Do not run that "
    "window before you know what was sent."
)
GIVEN_UP = "A person gave it up as vanished, and its rows may have been sent again. Expect it on the vendor's bill."
CANNOT_TELL = (
    "It may be anybody's: this vendor keeps no labels, and only a custom_id in its results proves whose it is. Look "
    "again when it has ended."
)


@dataclass(frozen=True)
class Orphan:
    """A batch that should be looked at."""

    batch_id: str
    status: str
    rows: int | None
    created_utc: datetime | None
    kind: str
    """`orphan` (certainly of this ledger), `given up`, or `cannot tell`."""
    shard: str
    """The shard that it says it is, where that is known."""
    worst_usd: Decimal | None
    """The most that it can have cost; None where that is not known."""
    url: str
    to_do: str


@dataclass
class Account:
    """What one account's listing holds."""

    provider: str
    connection: str
    account: str
    counts: Counter[str] = field(default_factory=Counter)
    """Batches by whose they are: `owned`, `being looked for`, `orphan`, `given up`, `cannot tell`, `another ledger's`,
    `a stranger's`."""
    orphans: list[Orphan] = field(default_factory=list)


def orphans(
    ledger: Ledger, open_provider: Callable[[str, str], Provider], lanes: Iterable[tuple[str, str]], *, since: datetime
) -> Iterator[Account]:
    """
    Say of each account which of its batches nobody owns; nothing is changed, cancelled or deleted.

    Memory: a page of the listing, and the orphans. An account that two connections lead to is read once.
    """
    seen: set[tuple[str, str]] = set()
    for name, connection in lanes:
        provider = open_provider(name, connection)
        found = Account(name, connection, provider.account())
        if (name, found.account) not in seen:
            seen.add((name, found.account))
            _read(ledger, provider, found, since)
            yield found


def _read(ledger: Ledger, provider: Provider, found: Account, since: datetime) -> None:
    listing = provider.listing(since)
    while some := list(islice(listing, BATCHES_AT_A_TIME)):
        owners = ledger.owners(found.provider, [batch.state.batch_id for batch in some])
        for batch in some:
            _sort(ledger, provider, found, batch, owners.get(batch.state.batch_id))


def _sort(ledger: Ledger, provider: Provider, found: Account, batch: ListedBatch, owner: Attempt | None) -> None:
    state = batch.state
    if owner is not None:
        found.counts["given up" if owner.state == "lost" else "owned"] += 1
        if owner.state == "lost":
            found.orphans.append(_orphan(provider, state, "given up", ledger.shard(owner.ref), GIVEN_UP))
        return
    origin = _origin(provider, batch)
    if origin is None and provider.found_by == "count" and state.status is not BatchStatus.ENDED:
        found.counts["cannot tell"] += 1
        found.orphans.append(_orphan(provider, state, "cannot tell", None, CANNOT_TELL))
    elif origin is None:
        found.counts["a stranger's"] += 1
    elif origin.ledger != ledger.ledger_id[:8]:
        found.counts["another ledger's"] += 1
    else:
        _take(ledger, provider, found, state, origin)


def _origin(provider: Provider, batch: ListedBatch) -> Origin | None:
    """Say where a batch comes from: by its label, or by the first custom_id in its results."""
    if batch.label is not None:
        label = batch.label
        return Origin(label.ledger[:8], label.run, label.round, label.shard)
    if provider.found_by == "label" or batch.state.status is not BatchStatus.ENDED:
        return None
    return origin_of(first_custom_id(provider, batch.state))


def _take(ledger: Ledger, provider: Provider, found: Account, state: BatchState, origin: Origin) -> None:
    shard = _shard(ledger, origin)
    if shard is not None and shard.state is ShardState.SUBMITTING:
        # Its create reply was lost a moment ago, and whoever runs it is looking for it.
        found.counts["being looked for"] += 1
        return
    found.counts["orphan"] += 1
    found.orphans.append(_orphan(provider, state, "orphan", shard, _advice(shard)))


def _advice(shard: Shard | None) -> str:
    if shard is None:
        return UNKNOWN
    return NOT_USED if shard.current is not None else MAY_BE_NEEDED


def _shard(ledger: Ledger, origin: Origin) -> Shard | None:
    """Find the shard that a batch says it is; its run is named by a hash there, so all names are tried."""
    for run in ledger.run_names():
        if run_code(run) == origin.run:
            try:
                return ledger.shard(ShardRef(run, origin.round, origin.shard))
            except LookupError:
                return None
    return None


def _orphan(provider: Provider, state: BatchState, kind: str, shard: Shard | None, to_do: str) -> Orphan:
    return Orphan(
        batch_id=state.batch_id,
        status=state.vendor_status,
        rows=state.rows_total,
        created_utc=state.created_utc,
        kind=kind,
        shard=str(shard.plan.ref) if shard else "",
        worst_usd=shard.plan.worst_usd if shard else None,
        url=provider.batch_url(state.batch_id),
        to_do=to_do,
    )

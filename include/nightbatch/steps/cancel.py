"""What only a person may ask for: to cancel a run. Says first what that costs; answers that are paid are kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from nightbatch.core.shard import ShardState
from nightbatch.errors import ProviderBusy, RequestRefused
from nightbatch.logs import about, logger
from nightbatch.ports import Ports, Run, Shard

log = logger(__name__)


@dataclass(frozen=True)
class OpenBatch:
    """A batch that would be cancelled."""

    shard: str
    provider: str
    batch_id: str
    rows: int
    rows_done: int | None
    """As the vendor counts them now; they are billed whatever happens. None where it did not say."""
    reserved_usd: Decimal


@dataclass(frozen=True)
class Forecast:
    """What cancelling a run now would cost, keep and leave undone. Counts are rows."""

    run: Run
    loaded: int
    spent_usd: Decimal
    reserved_usd: Decimal
    batches: tuple[OpenBatch, ...]
    unclear: int
    """Of shards that may be at the vendor: it is asked first, and what it made is cancelled."""
    arriving: int
    """Ended at the vendor and not loaded yet: they are loaded."""
    unsent: int
    pending: int
    """Set aside by earlier rounds of this run already; a cancel does not change them."""

    @property
    def done(self) -> int:
        """Rows of open batches that the vendor has done."""
        return sum(batch.rows_done or 0 for batch in self.batches)

    @property
    def undone(self) -> int:
        """Rows at most that would stay without an answer."""
        return sum(batch.rows - (batch.rows_done or 0) for batch in self.batches) + self.unclear + self.unsent


def forecast(ports: Ports, run: Run) -> Forecast:
    """Look what a cancel would do; asks the vendor how far each open batch is, and changes nothing."""
    shards = ports.ledger.shards(run.run)
    reserved, spent = ports.ledger.spent(run.run)
    return Forecast(
        run=run,
        loaded=sum(shard.merged for shard in shards),
        spent_usd=spent,
        reserved_usd=reserved,
        batches=tuple(_look(ports, shard) for shard in shards if shard.state is ShardState.OPEN),
        unclear=_rows(shards, ShardState.SUBMITTING),
        arriving=_rows(shards, ShardState.STORED, ShardState.COLLECTED),
        unsent=_rows(shards, ShardState.SEALED)
        + sum(shard.plan.rows for shard in shards if shard.state is ShardState.HELD and shard.taken_by_round is None),
        pending=sum(file.rows for file in ports.ledger.pending(run.job) if file.run == run.run),
    )


def _rows(shards: Iterable[Shard], *states: ShardState) -> int:
    return sum(shard.plan.rows for shard in shards if shard.state in states)


def _look(ports: Ports, shard: Shard) -> OpenBatch:
    attempt, plan = shard.current, shard.plan
    batch_id = (attempt.batch_id if attempt else "") or ""
    try:
        done = ports.provider(plan.provider, plan.connection).poll(batch_id).rows_done
    except ProviderBusy:
        done = None
    reserved = attempt.reserved_usd if attempt else Decimal(0)
    return OpenBatch(plan.ref.name, plan.provider, batch_id, plan.rows, done, reserved)


def stop_batches(ports: Ports, run: str, asked: set[str]) -> None:
    """
    Cancel every open batch of a cancelled run at the vendor, but for those in `asked`, which grows.

    A busy vendor is asked again by the next call; a batch that has ended meanwhile needs no cancel.
    """
    for shard in ports.ledger.shards(run):
        attempt = shard.current
        if shard.state is not ShardState.OPEN or attempt is None or not attempt.batch_id or attempt.batch_id in asked:
            continue
        with about(run=run, shard=shard.plan.ref.name, batch=attempt.batch_id):
            try:
                ports.provider(shard.plan.provider, shard.plan.connection).cancel(attempt.batch_id)
            except ProviderBusy as busy:
                log.warning("cancel: %s", busy)
                continue
            except RequestRefused as refused:
                log.info("cancel: the vendor does not cancel it, most likely because it has ended: %s", refused)
            asked.add(attempt.batch_id)
            log.info("cancel: the vendor was told")

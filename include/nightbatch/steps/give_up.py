"""What only a person may decide, by forcing a new plan: to give batches up that the vendor no longer knows."""

from __future__ import annotations

from nightbatch.core.batch import BatchStatus, Next, decide
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.ports import Ports, Run, Shard

from .account import check_account
from .settle import is_done


def give_up(ports: Ports, run: Run) -> bool:
    """
    Set every shard aside whose batch has vanished; its rows are pending then, and may be paid a second time.

    Batches that the vendor still knows are left alone. Says whether something was given up and nothing of the run is
    under way any more, so that it can be closed.
    """
    gone = [shard for shard in ports.ledger.shards(run.run) if _is_gone(ports, shard)]
    for shard in gone:
        if shard.current is not None:
            reason, now = "it vanished, and a person forced a new plan", ports.clock.now()
            ports.ledger.end_attempt(
                shard.current.attempt_id, "lost", reason=reason, retry_at=None, hold=Reason.MISSING.value, now=now
            )
    return bool(gone) and all(is_done(shard) for shard in ports.ledger.shards(run.run))


def _is_gone(ports: Ports, shard: Shard) -> bool:
    attempt = shard.current
    if shard.state is not ShardState.OPEN or attempt is None or attempt.batch_id is None:
        return False
    provider, now = ports.provider(shard.plan.provider, shard.plan.connection), ports.clock.now()
    state = provider.poll(attempt.batch_id)
    if state.status is BatchStatus.NOT_FOUND:
        check_account(provider, shard, attempt)
    return decide(state, now=now, last_seen=attempt.gone_since_utc or now).next is Next.VANISHED

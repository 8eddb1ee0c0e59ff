"""Before step 10: what came back after its round was closed is sent again all the same, as often as any other row."""

from __future__ import annotations

from nightbatch.core.shard import ShardPlan, ShardState
from nightbatch.core.verdict import Reason
from nightbatch.job import Job
from nightbatch.ports import Ports

from .chain import rounds_of
from .release import decided, stands_still
from .retry import is_untaken, retry


def late_shards(ports: Ports, job: Job, run: str) -> list[ShardPlan]:
    """
    List the unfinished shards of a run's extra rounds; seals one where a shard came back too late for its own.

    Of a run about whose held-back answers a person decided, it lists those of all rounds.

    A shard's task may fail while the others go on to the next round. Cleared, it brings bad rows for which no round
    is left in the Dag; without one of their own they would be pending, and need another run.
    """
    if ports.ledger.run(run).state != "open" or stands_still(ports.ledger, job, run):
        return []
    untaken = [shard for shard in ports.ledger.shards(run) if is_untaken(job, shard)]
    # An account in trouble sends nothing: settle says what becomes of its rows.
    if untaken and not any(shard.held_reason == Reason.ACCOUNT for shard in untaken):
        retry(ports, job, run, seals=len(rounds_of(ports, run)), has_rounds=True, is_extra=True)
    # What a person decided about held-back answers is carried out here where only `settle` was cleared.
    is_decided = bool(decided(ports.ledger, job, run))
    extra = {plan.round for plan in rounds_of(ports, run) if is_decided or plan.facts.get("extra")}
    return [
        shard.plan
        for shard in ports.ledger.shards(run)
        if shard.plan.ref.round in extra and shard.state not in (ShardState.LOADED, ShardState.HELD)
    ]

"""Whose account a key reaches: no account's 404 says anything about another account's batch."""

from __future__ import annotations

from nightbatch.errors import AccountChanged
from nightbatch.ports import Attempt, Provider, Shard


def check_account(provider: Provider, shard: Shard, attempt: Attempt, *, has_answered: bool = False) -> None:
    """
    Raise AccountChanged where the connection's key belongs to another account than the attempt was sent under.

    With `has_answered` the vendor has just shown the batch, so a reply that names no account proves nothing against
    it: the connection's own name stands in for one that is not told.
    """
    found = provider.account()
    if found == attempt.account or (has_answered and found == shard.plan.connection):
        return
    raise AccountChanged(
        attempt.provider,
        shard.plan.connection,
        what=f"batch {attempt.batch_id}" if attempt.batch_id else f"shard {attempt.ref}, whose reply was lost,",
        sent_under=attempt.account,
        found=found,
    )

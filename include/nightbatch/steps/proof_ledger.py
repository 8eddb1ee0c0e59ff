"""Part of the proof: whether what the ledger says of one shard fits together."""

from __future__ import annotations

from nightbatch.core.proof import Link, same, unknown
from nightbatch.core.shard import ShardState
from nightbatch.ports import Run, Shard, Store

from .batch_id import batch_note

DONE = (ShardState.COLLECTED, ShardState.LOADED, ShardState.HELD)
JUDGED = (ShardState.COLLECTED, ShardState.LOADED)
_ATTEMPTS = {
    ShardState.SEALED: {"none"},
    ShardState.HELD: {"none"},
    ShardState.SUBMITTING: {"intent", "sending"},
    ShardState.OPEN: {"open"},
    ShardState.STORED: {"ended"},
    ShardState.COLLECTED: {"ended"},
    ShardState.LOADED: {"ended"},
}
"""The state of the current attempt that goes with each state of a shard."""


def state_link(run: Run, shard: Shard) -> Link:
    """Say whether a shard's state fits what else the ledger knows of it."""
    attempt = shard.current.state if shard.current else "none"
    wrong = []
    if attempt not in _ATTEMPTS[shard.state]:
        wrong.append(f"its attempt is {attempt}")
    if bool(shard.verdicts_name) != (shard.state in JUDGED):
        wrong.append("verdicts are recorded" if shard.verdicts_name else "no verdicts are recorded")
    if shard.state not in DONE and shard.taken_by_round is not None:
        wrong.append(f"round {shard.taken_by_round} took its rows")
    if shard.state not in DONE and run.state in ("complete", "incomplete"):
        wrong.append(f"the run is {run.state}")
    if shard.merged and shard.state is not ShardState.LOADED:
        wrong.append(f"{shard.merged:,} of its rows were loaded")
    expected = "what fits the state"
    found = f"{shard.state}, although {' and '.join(wrong)}" if wrong else shard.state.value
    return Link("state", shard.plan.ref.name, expected if wrong else shard.state.value, found, not wrong)


def batch_link(store: Store, shard: Shard) -> Link:
    """Say whether the batch is the one that was noted in the store, and was sent what was sealed."""
    plan, attempt = shard.plan, shard.current
    if attempt is None:
        return unknown("batch", plan.ref.name, "there is no attempt")
    try:
        noted = store.read(batch_note(attempt)).decode("utf-8", "replace")
    except FileNotFoundError:
        noted = str(attempt.batch_id)
    what = "batch {}, {:,} rows, {}…".format
    expected = what(noted, plan.rows, plan.content_sha256[:12])
    found = what(attempt.batch_id, attempt.rows, attempt.content_sha256[:12])
    return same("batch", plan.ref.name, expected, found)

"""Shards and attempts as rows, and as what the port shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_tables import attempts, shards
from nightbatch.adapters.ledger_types import AnyRow, rounded_up
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost, Usage
from nightbatch.core.shard import ShardPlan, ShardState
from nightbatch.ports import Attempt, Shard

_IS_CURRENT = sa.and_(
    attempts.c.run == shards.c.run,
    attempts.c.round == shards.c.round,
    attempts.c.shard == shards.c.shard,
    attempts.c.number == shards.c.current_attempt,
)
_SHARD = sa.select(shards, *(column.label(f"attempt_{column.name}") for column in attempts.c)).select_from(
    shards.outerjoin(attempts, _IS_CURRENT)
)

_PLAIN_PLAN = (
    "choice",
    "rows",
    "size_bytes",
    "content_sha256",
    "requests_name",
    "index_name",
    "input_tokens_bound",
    "output_tokens_cap",
    "worst_usd",
    "expected_usd",
    "model",
    "provider",
    "connection",
    "max_output_tokens",
    "hint",
    "index_sha256",
    "prompt_version",
    "queue_tokens",
)
_PLAIN_ATTEMPT = (
    "attempt_id",
    "number",
    "state",
    "provider",
    "account",
    "content_sha256",
    "rows",
    "intent_utc",
    "send_deadline_utc",
    "certain_utc",
    "reserved_usd",
    "file_id",
    "batch_id",
    "created_utc",
    "last_seen_utc",
    "vendor_status",
    "turned_up_utc",
    "gone_since_utc",
    "ended_utc",
    "vendor_files_deleted_utc",
)
_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")


def is_shard(ref: ShardRef) -> sa.ColumnElement[bool]:
    """Write the condition that finds a shard."""
    return sa.and_(shards.c.run == ref.run, shards.c.round == ref.round, shards.c.shard == ref.shard)


def of_shard(ref: ShardRef) -> sa.ColumnElement[bool]:
    """Write the condition that finds the attempts of a shard."""
    return sa.and_(attempts.c.run == ref.run, attempts.c.round == ref.round, attempts.c.shard == ref.shard)


def plan_values(plan: ShardPlan, *, now: datetime) -> dict[str, Any]:
    """Give a sealed shard's row."""
    values = {name: getattr(plan, name) for name in _PLAIN_PLAN}
    values |= {"run": plan.ref.run, "round": plan.ref.round, "shard": plan.ref.shard}
    values |= {"worst_usd": rounded_up(plan.worst_usd), "state": ShardState.SEALED.value, "state_utc": now}
    return values


def plan_of(row: AnyRow) -> ShardPlan:
    """Read a shard's plan."""
    return ShardPlan(ref=ref_of(row), **{name: getattr(row, name) for name in _PLAIN_PLAN})


def ref_of(row: AnyRow) -> ShardRef:
    """Read where a shard, or an attempt's shard, stands."""
    return ShardRef(row.run, row.round, row.shard)


def attempt_of(values: Mapping[Any, Any]) -> Attempt:
    """Read an attempt from its columns."""
    ref = ShardRef(values["run"], values["round"], values["shard"])
    plain = {name: values[name] for name in _PLAIN_ATTEMPT}
    used, files = values["vendor_usage"], tuple(values["result_files"] or ())
    return Attempt(ref=ref, **plain, vendor_usage=Usage(**used) if used is not None else None, result_files=files)


def cost_values(cost: Cost) -> dict[str, Any]:
    """Give the columns of a cost."""
    tokens = {name: getattr(cost.usage, name) for name in _TOKENS}
    return tokens | {"batch_usd": cost.batch_usd, "realtime_usd": cost.realtime_usd}


def _shard_of(row: AnyRow) -> Shard:
    values = row._mapping
    current = None
    if values["attempt_attempt_id"] is not None:
        current = attempt_of({column.name: values[f"attempt_{column.name}"] for column in attempts.c})
    return Shard(
        plan=plan_of(row),
        state=ShardState(row.state),
        attempts=row.attempts,
        current=current,
        not_before_utc=row.not_before_utc,
        raw_names=tuple(row.raw_names or ()),
        raw_sha256s=tuple(row.raw_sha256s or ()),
        verdicts_name=row.verdicts_name,
        verdicts_sha256=row.verdicts_sha256,
        counts=row.counts or {},
        cost=Cost(Usage(**{name: values[name] for name in _TOKENS}), row.batch_usd, row.realtime_usd),
        rates=row.rates or {},
        profile=row.profile or {},
        merged=row.merged,
        held_reason=row.held_reason,
        waits_for=row.waits_for,
        taken_by_round=row.taken_by_round,
        problem=row.problem,
    )


def list_shards(connection: sa.Connection, run: str, *, round_: int | None) -> list[Shard]:
    """List the shards of a run in order."""
    statement = _SHARD.where(shards.c.run == run).order_by(shards.c.round, shards.c.shard)
    if round_ is not None:
        statement = statement.where(shards.c.round == round_)
    return [_shard_of(row) for row in connection.execute(statement)]


def shard(connection: sa.Connection, ref: ShardRef) -> Shard:
    """Give one shard. Raises LookupError."""
    row = connection.execute(_SHARD.where(is_shard(ref))).first()
    if row is None:
        raise LookupError(f"there is no shard {ref} in this ledger")
    return _shard_of(row)


def lock_shard(connection: sa.Connection, ref: ShardRef) -> AnyRow:
    """Make this the only transaction that changes the shard; its run is locked already. Raises LookupError."""
    statement = sa.select(shards).where(is_shard(ref)).with_for_update(key_share=True)
    row = connection.execute(statement).first()
    if row is None:
        raise LookupError(f"there is no shard {ref} in this ledger")
    return row


def move(connection: sa.Connection, ref: ShardRef, state: ShardState, *, now: datetime, **values: Any) -> None:
    """Put a locked shard into a state; one that goes on at the vendor has no problem any more."""
    if state in (ShardState.SUBMITTING, ShardState.OPEN, ShardState.STORED):
        values = {"problem_kind": "", "problem": "", **values}
    changed = {"state": state.value, "state_utc": now, **values}
    connection.execute(sa.update(shards).where(is_shard(ref)).values(**changed))

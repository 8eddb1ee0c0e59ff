"""What was billed, for reports and for the next estimate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_tables import runs, shards
from nightbatch.adapters.ledger_types import AnyRow, Usd, usd_sum
from nightbatch.core.experience import Experience, PastEstimate
from nightbatch.core.money import Cost, Usage
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.ports import CostLine

LATEST_SHARDS = 200
"""How many shards an estimate rests on: months of a small job, the last nights of a large one."""

_IS_BILLED = shards.c.state.in_((ShardState.COLLECTED, ShardState.LOADED))
_TOKENS = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
_costs = sa.table(
    "nb_v_costs",
    sa.column("day", sa.Date),
    *(sa.column(name, sa.Text) for name in ("job", "provider", "model", "connection", "mode", "prompt_version")),
    *(sa.column(name, sa.BigInteger) for name in ("rows", *_TOKENS)),
    sa.column("batch_usd", Usd),
    sa.column("realtime_usd", Usd),
)


def experience(connection: sa.Connection, job: str, provider: str, model: str) -> Experience:
    """Add up what the latest whole answers of a model taught; see the port."""
    asked = sa.and_(_IS_BILLED, shards.c.provider == provider, shards.c.model == model)
    own = _latest(connection, sa.and_(asked, runs.c.job == job, shards.c.round == 0))
    any_job = own or _latest(connection, asked)
    return Experience(
        rows=sum(row.rows for row in own),
        output_tokens=sum(row.output_tokens for row in own),
        size_bytes=sum(row.size_bytes for row in any_job),
        input_tokens=sum(row.input_tokens for row in any_job),
    )


def _latest(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[AnyRow]:
    statement = (
        sa.select(shards.c.rows, shards.c.size_bytes, shards.c.input_tokens, shards.c.output_tokens, shards.c.counts)
        .join(runs, runs.c.run == shards.c.run)
        .where(condition)
        .order_by(shards.c.state_utc.desc())
        .limit(LATEST_SHARDS)
    )
    return [row for row in connection.execute(statement) if _is_whole(row)]


def _is_whole(row: AnyRow) -> bool:
    """Say whether every row was answered: rows that expired have bytes and no bill, and would blur both figures."""
    counts: Mapping[str, int] = row.counts or {}
    answered = (VerdictKind.GOOD, VerdictKind.CHANGE)
    return bool(row.input_tokens) and row.rows == sum(
        count for name, count in counts.items() if name.partition(":")[0] in answered
    )


def past_estimates(connection: sa.Connection, job: str, *, limit: int) -> list[PastEstimate]:
    """Compare what the job's latest runs were expected to cost with what they did cost, newest first."""
    statement = (
        sa.select(
            shards.c.run, usd_sum(shards.c.expected_usd), usd_sum(shards.c.worst_usd), usd_sum(shards.c.batch_usd)
        )
        .join(runs, runs.c.run == shards.c.run)
        .where(runs.c.job == job, _IS_BILLED)
        .group_by(shards.c.run, runs.c.started_utc)
        .order_by(runs.c.started_utc.desc())
        .limit(limit)
    )
    return [PastEstimate(*row) for row in connection.execute(statement)]


def costs(connection: sa.Connection, *, job: str | None, since: date | None, until: date | None) -> list[CostLine]:
    """List what was billed; see the port."""
    statement = sa.select(_costs).order_by(*_costs.c)
    if job is not None:
        statement = statement.where(_costs.c.job == job)
    if since is not None:
        statement = statement.where(_costs.c.day >= since)
    if until is not None:
        statement = statement.where(_costs.c.day < until)
    return [_line(row._mapping) for row in connection.execute(statement)]


def _line(row: Mapping[Any, Any]) -> CostLine:
    usage = Usage(**{name: row[name] for name in _TOKENS})
    names = ("day", "job", "provider", "model", "connection", "mode", "prompt_version", "rows")
    return CostLine(**{name: row[name] for name in names}, cost=Cost(usage, row["batch_usd"], row["realtime_usd"]))

"""Places in a vendor's queue: they are the attempts under way; only who waits, and what refusals taught, is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import insert_absent
from nightbatch.adapters.ledger_shards import of_shard, ref_of
from nightbatch.adapters.ledger_tables import accounts, attempts, limits, queue, runs
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.core.ids import ShardRef
from nightbatch.core.queue import (
    Ask,
    Kind,
    Learned,
    Limit,
    Load,
    Turn,
    Waiter,
    queued_tokens,
    turn_of,
)
from nightbatch.errors import MustWait, QueueTooSmall
from nightbatch.ports import Intent, QueuedShard

UNDER_WAY = ("intent", "sending", "open", "double")
"""States of an attempt that holds a place: until the vendor's terminal state, or the proof that there is no batch."""
HOUR = timedelta(hours=1)
LOOKS_BACK = timedelta(days=2)
"""How far back a job's last turn is looked for; a batch that keeps others waiting ends within the vendor's day."""
UNITS = {Kind.TOKENS: "tokens", Kind.ROWS: "requests", Kind.BATCHES: "batches", Kind.CREATIONS: "batches in an hour"}


def lock_account(connection: sa.Connection, provider: str, account: str) -> None:
    """Make this the only transaction that shares out the account, so that what is free is free for it."""
    insert_absent(connection, accounts, provider=provider, account=account)
    is_account = sa.and_(accounts.c.provider == provider, accounts.c.account == account)
    connection.execute(sa.select(accounts).where(is_account).with_for_update(key_share=True)).one()


def tokens_of(shard: AnyRow) -> int:
    """Give the tokens that a shard holds; one that was sealed by an older version does not say."""
    return int(shard.queue_tokens) or queued_tokens(shard.size_bytes)


def take_place(connection: sa.Connection, intent: Intent, *, job: str, shard: AnyRow, now: datetime) -> MustWait | None:
    """
    Give a shard its place in the queue, or let it wait in line and say why.

    The account is locked. Raises QueueTooSmall where it could wait for ever.
    """
    if intent.ask is None:
        return None
    load = Load(job, shard.model, tokens_of(shard), shard.rows, batches=1, creations=1)
    too_small = intent.ask.rules.too_small_for(load)
    if too_small is not None:
        raise _too_small(intent, load, too_small)
    waiter = Waiter(intent.ref, load, intent.ask.priority, since(connection, intent.ref, now))
    learned = _learned(connection, intent)
    closed = [one.closed_until for one in learned if one.closed_until and one.is_closed(shard.model, now=now)]
    if closed:
        until = max(closed)
        reason = (
            f"{_name(intent, load)} says that its queue is full, with nothing of ours in it: somebody else's batches "
            "fill it, or one shard is more than it takes (then set queue.tokens in the connection)"
        )
        return _wait(connection, intent, waiter, until=until, pause=until - now, reason=reason, now=now)
    taught = [limit for one in learned if (limit := one.limit(now=now)) is not None]
    in_flight, last_turns = _in_flight(connection, intent, now)
    in_line = [*_others(connection, intent, now), waiter]
    turn = turn_of(intent.ref, in_line, in_flight, [*intent.ask.rules.limits, *taught], last_turns)
    if turn.may_go:
        leave(connection, intent.ref)
        return None
    return _wait_in_line(connection, intent, intent.ask, waiter, turn, now)


def leave(connection: sa.Connection, ref: ShardRef) -> None:
    """Take a shard out of the line."""
    connection.execute(sa.delete(queue).where(_is_in_line(ref)))


def _is_in_line(ref: ShardRef) -> sa.ColumnElement[bool]:
    return sa.and_(queue.c.run == ref.run, queue.c.round == ref.round, queue.c.shard == ref.shard)


def since(connection: sa.Connection, ref: ShardRef, now: datetime) -> datetime:
    """Say since when a shard waits: one that had its turn and was refused has waited from before then."""
    before: datetime | None = connection.execute(sa.select(queue.c.since_utc).where(_is_in_line(ref))).scalar()
    if before is None:
        before = connection.execute(
            sa.select(attempts.c.intent_utc).where(of_shard(ref)).order_by(attempts.c.number).limit(1)
        ).scalar()
    return before or now


def _others(connection: sa.Connection, intent: Intent, now: datetime) -> list[Waiter]:
    is_live = sa.and_(queue.c.provider == intent.provider, queue.c.account == intent.account, queue.c.gone_utc > now)
    rows = connection.execute(sa.select(queue).where(is_live, sa.not_(_is_in_line(intent.ref))))
    return [
        Waiter(ref_of(row), Load(row.job, row.model, row.tokens, row.rows, 1, 1), row.priority, row.since_utc)
        for row in rows
    ]


def _in_flight(connection: sa.Connection, intent: Intent, now: datetime) -> tuple[list[Load], dict[str, datetime]]:
    """Add up what each job holds there with each model, and say when each last began an attempt."""
    mine = sa.and_(attempts.c.provider == intent.provider, attempts.c.account == intent.account)
    by = (runs.c.job, attempts.c.model)
    sums = (sa.func.sum(attempts.c.queue_tokens), sa.func.sum(attempts.c.rows), sa.func.count())
    held = sa.select(*by, *sums).where(mine, attempts.c.state.in_(UNDER_WAY))
    is_recent = sa.case((attempts.c.intent_utc > now - HOUR, 1), else_=0)
    begun = sa.select(*by, sa.func.sum(is_recent), sa.func.max(attempts.c.intent_utc)).where(
        mine, attempts.c.intent_utc > now - LOOKS_BACK
    )
    with_job = (statement.join(runs, runs.c.run == attempts.c.run).group_by(*by) for statement in (held, begun))
    held_rows, begun_rows = (connection.execute(statement).all() for statement in with_job)
    loads = [Load(job, model, int(tokens), int(rows), count) for job, model, tokens, rows, count in held_rows]
    loads += [Load(job, model, creations=int(count)) for job, model, count, _ in begun_rows]
    last: dict[str, datetime] = {}
    for job, _, _, instant in begun_rows:
        last[job] = max(instant, last.get(job, instant))
    return loads, last


def _learned(connection: sa.Connection, intent: Intent) -> list[Learned]:
    mine = sa.and_(limits.c.provider == intent.provider, limits.c.account == intent.account)
    return [learned_of(row) for row in connection.execute(sa.select(limits).where(mine))]


def learned_of(row: AnyRow) -> Learned:
    """Read what was learned."""
    return Learned(Kind(row.kind), row.model, row.most, row.learned_utc, row.closed_until_utc)


def _name(intent: Intent, load: Load) -> str:
    return f"{intent.provider} {load.model}"


def _too_small(intent: Intent, load: Load, limit: Limit) -> QueueTooSmall:
    return QueueTooSmall(
        str(intent.ref),
        queue=_name(intent, load),
        needed=load.of(limit.kind),
        most=limit.most,
        unit=UNITS[limit.kind],
    )


def _wait_in_line(
    connection: sa.Connection, intent: Intent, ask: Ask, waiter: Waiter, turn: Turn, now: datetime
) -> MustWait:
    pause = ask.pause(turn)
    return _wait(
        connection, intent, waiter, until=now + pause, pause=pause, reason=_why(intent, waiter.load, turn), now=now
    )


def _why(intent: Intent, load: Load, turn: Turn) -> str:
    limit = turn.limit
    if limit is None:
        return "it is not its turn"
    named = "" if not limit.models else f" {limit.models}"
    learned = ", as its last refusal taught," if limit.is_learned else ""
    full = (
        f"in the queue of {intent.provider}{named}: {turn.used:,} of {limit.most:,} {UNITS[limit.kind]}{learned} wait "
        f"there, and this shard needs {load.of(limit.kind):,}"
    )
    if not turn.ahead:
        return f"waits for a place {full}"
    jobs = sorted({waiter.load.job for waiter in turn.ahead})
    many = "1 shard is" if len(turn.ahead) == 1 else f"{len(turn.ahead):,} shards are"
    more = f" and {len(jobs) - 3} other jobs" if len(jobs) > 3 else ""
    return f"{many} ahead ({', '.join(jobs[:3])}{more}) {full}"


def _wait(
    connection: sa.Connection,
    intent: Intent,
    waiter: Waiter,
    *,
    until: datetime,
    pause: timedelta,
    reason: str,
    now: datetime,
) -> MustWait:
    """Put a shard into the line, or note that it has asked again."""
    values: dict[str, Any] = {
        "provider": intent.provider,
        "account": intent.account,
        "model": waiter.load.model,
        "job": waiter.load.job,
        "priority": waiter.priority,
        "tokens": waiter.load.tokens,
        "rows": waiter.load.rows,
        "since_utc": waiter.since,
        "seen_utc": now,
        "gone_utc": Waiter.gone(now, pause),
        "reason": reason,
    }
    ref = waiter.ref
    if not insert_absent(connection, queue, run=ref.run, round=ref.round, shard=ref.shard, **values):
        connection.execute(sa.update(queue).where(_is_in_line(ref)).values(**values))
    return MustWait(reason, until=until)


def keep_place_in_line(
    connection: sa.Connection, intent: Intent, *, job: str, shard: AnyRow, wait: MustWait, now: datetime
) -> None:
    """Let a shard whose turn it is, and that another rule keeps waiting, stay where it is in the line."""
    if intent.ask is None:
        return
    load = Load(job, shard.model, tokens_of(shard), shard.rows, 1, 1)
    waiter = Waiter(intent.ref, load, intent.ask.priority, since(connection, intent.ref, now))
    _wait(connection, intent, waiter, until=wait.until, pause=wait.until - now, reason=wait.reason, now=now)


def waiting(connection: sa.Connection) -> list[QueuedShard]:
    """List the shards that wait, who came first first."""
    names: Sequence[str] = (
        "provider",
        "account",
        "model",
        "job",
        "priority",
        "tokens",
        "rows",
        "since_utc",
        "seen_utc",
        "reason",
    )
    ordered = sa.select(queue).order_by(queue.c.since_utc, queue.c.run, queue.c.round, queue.c.shard)
    return [
        QueuedShard(ref=ref_of(row), **{name: getattr(row, name) for name in names})
        for row in connection.execute(ordered)
    ]

"""When a vendor says that its queue is full: the attempt ends, and the ledger learns a limit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from nightbatch.adapters import ledger_attempts, ledger_queue
from nightbatch.adapters.ledger_engine import Database, insert_absent
from nightbatch.adapters.ledger_queue import learned_of, lock_account
from nightbatch.adapters.ledger_tables import attempts, limits, queue
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.core.ids import ShardRef
from nightbatch.core.queue import Kind, QueueRules, Waiter
from nightbatch.ports import QueuedShard

AT_VENDOR = ("sending", "open", "double")
"""States of an attempt that the vendor may count already."""


class Queueing:
    """The part of the SQL ledger that is about who waits in a vendor's queue, beside `begin`."""

    _database: Database

    def queue(self) -> list[QueuedShard]:
        """List the shards that wait for a place, who came first first."""
        with self._database.read() as connection:
            return ledger_queue.waiting(connection)

    def stay_in_line(self, refs: Sequence[ShardRef], *, now: datetime) -> None:
        """Say that the shards that wait in line are looked after, though they have not asked for a while."""
        gone = Waiter.gone(now, timedelta(0))
        lines: dict[tuple[str, int], list[int]] = {}
        for ref in refs:
            lines.setdefault((ref.run, ref.round), []).append(ref.shard)
        with self._database.write() as connection:
            for (run, round_), shards in sorted(lines.items()):
                here = sa.and_(queue.c.run == run, queue.c.round == round_, queue.c.shard.in_(shards))
                late = sa.and_(here, queue.c.gone_utc < gone)
                connection.execute(sa.update(queue).where(late).values(gone_utc=gone))

    def end_full(self, attempt_id: int, rules: QueueRules, *, reason: str, wait: timedelta, now: datetime) -> None:
        """End an attempt that the vendor refused because its queue is full, and learn from it."""
        with self._database.write() as connection:
            end_full(connection, attempt_id, rules, reason=reason, wait=wait, now=now)


def end_full(
    connection: sa.Connection, attempt_id: int, rules: QueueRules, *, reason: str, wait: timedelta, now: datetime
) -> None:
    """End an attempt that a full queue refused, and learn from it; see the port."""
    is_attempt = attempts.c.attempt_id == attempt_id
    row = connection.execute(sa.select(attempts).where(is_attempt)).first()
    if row is None:
        raise LookupError(f"there is no attempt {attempt_id} in this ledger")
    lock_account(connection, row.provider, row.account)
    if connection.execute(sa.select(attempts.c.state).where(is_attempt)).scalar() == "refused":
        return
    held = _held_by_others(connection, row, rules)
    retry_at = None if held else now + wait
    ledger_attempts.end_attempt(connection, attempt_id, "refused", reason=reason, retry_at=retry_at, hold="", now=now)
    _learn(connection, row, rules, held=held, closed_until=retry_at, now=now)


def _held_by_others(connection: sa.Connection, attempt: AnyRow, rules: QueueRules) -> int:
    columns = {Kind.TOKENS: attempts.c.queue_tokens, Kind.ROWS: attempts.c.rows}
    statement = sa.select(sa.func.sum(columns.get(rules.full_by, sa.literal(1)))).where(
        attempts.c.provider == attempt.provider,
        attempts.c.account == attempt.account,
        attempts.c.state.in_(AT_VENDOR),
        attempts.c.attempt_id != attempt.attempt_id,
    )
    if rules.full_by_model:
        statement = statement.where(attempts.c.model == attempt.model)
    return int(connection.execute(statement).scalar() or 0)


def _learn(
    connection: sa.Connection,
    attempt: AnyRow,
    rules: QueueRules,
    *,
    held: int,
    closed_until: datetime | None,
    now: datetime,
) -> None:
    """
    Write down what a refusal taught.

    What others of ours held was let in, so it is no more than the limit, and with this shard it was more. Refused
    alone, what was learned before measured somebody else's work, and is forgotten.
    """
    key = {
        "provider": attempt.provider,
        "account": attempt.account,
        "model": attempt.model if rules.full_by_model else "",
        "kind": rules.full_by.value,
    }
    here = sa.and_(*(limits.c[name] == value for name, value in key.items()))
    before = connection.execute(sa.select(limits).where(here)).first()
    known = learned_of(before).limit(now=now) if before is not None else None
    most = None if not held else held if known is None else min(held, known.most)
    values = {"most": most, "learned_utc": now, "closed_until_utc": closed_until}
    if not insert_absent(connection, limits, **key, **values):
        connection.execute(sa.update(limits).where(here).values(**values))

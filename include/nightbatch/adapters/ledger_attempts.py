"""Attempts: one shard's way from an intent to its end, each step a compare-and-swap under the shard's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters import ledger_money
from nightbatch.adapters.ledger_runs import lock_run
from nightbatch.adapters.ledger_shards import cost_values, lock_shard, move, of_shard, ref_of
from nightbatch.adapters.ledger_tables import attempts, runs
from nightbatch.adapters.ledger_types import AnyRow
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import Reason
from nightbatch.errors import StaleAttempt

MAX_TEXT = 500
"""Longest text of a vendor's that is kept, characters."""

_MAY_END = {
    "absent": ("intent", "sending"),
    "refused": ("intent", "sending", "open"),
    "lost": ("intent", "sending", "open"),
}
"""From which states an attempt may end how. A batch whose id is known is not absent; it may be refused after
validation."""


def lock(connection: sa.Connection, attempt_id: int) -> tuple[AnyRow, AnyRow]:
    """Lock run, shard and attempt, always in this order, and give the last two. Raises LookupError."""
    is_attempt = attempts.c.attempt_id == attempt_id
    row = connection.execute(sa.select(attempts.c.run, attempts.c.round, attempts.c.shard).where(is_attempt)).first()
    if row is None:
        raise LookupError(f"there is no attempt {attempt_id} in this ledger")
    lock_run(connection, row.run)
    shard = lock_shard(connection, ref_of(row))
    attempt = connection.execute(sa.select(attempts).where(is_attempt).with_for_update(key_share=True)).one()
    return shard, attempt


def change(connection: sa.Connection, attempt: AnyRow, **values: Any) -> None:
    """Change columns of a locked attempt."""
    is_attempt = attempts.c.attempt_id == attempt.attempt_id
    connection.execute(sa.update(attempts).where(is_attempt).values(**values))


def stale(attempt: AnyRow, *, expected: str) -> StaleAttempt:
    """Say that an attempt is not where its caller saw it."""
    found = f"attempt {attempt.number}, {attempt.state}"
    if attempt.batch_id is not None:
        found += f" as batch {attempt.batch_id}"
    return StaleAttempt(str(ref_of(attempt)), expected=f"attempt {attempt.number}, {expected}", found=found)


def note_file(connection: sa.Connection, attempt_id: int, file_id: str) -> None:
    """Keep the id of the uploaded file. Raises StaleAttempt where the attempt is over, or was sent."""
    _, attempt = lock(connection, attempt_id)
    if attempt.state != "intent":
        raise stale(attempt, expected="intent")
    change(connection, attempt, file_id=file_id)


def note_sending(connection: sa.Connection, attempt_id: int) -> None:
    """Mark that the create call goes out now."""
    _, attempt = lock(connection, attempt_id)
    if attempt.state != "intent":
        raise stale(attempt, expected="intent")
    change(connection, attempt, state="sending")


def note_open(connection: sa.Connection, attempt_id: int, state: BatchState, *, now: datetime) -> bool | None:
    """
    Record the batch id, and say whether it had been thought absent; None where it was recorded before. See the port.

    A batch that turns up after its attempt was taken for absent is still adopted as long as nobody has begun
    again: it was paid, so its answers are used, and its worst case is reserved again.
    """
    shard, attempt = lock(connection, attempt_id)
    if attempt.batch_id == state.batch_id and attempt.state in ("open", "ended"):
        return None
    check_owner(connection, attempt, state.batch_id)
    turned_up = attempt.state == "absent" and _is_untouched(shard, attempt)
    if attempt.state not in ("intent", "sending") and not turned_up:
        raise stale(attempt, expected="sending")
    if turned_up:
        ledger_money.take_back_release(connection, attempt_id)
    found = {
        **({"turned_up_utc": now} if turned_up else {}),
        "batch_id": state.batch_id,
        "created_utc": state.created_utc or now,
        "last_seen_utc": now,
        "vendor_status": short(state.vendor_status),
        "rows_done": state.rows_done,
    }
    try:
        change(connection, attempt, state="open", ended_utc=None, end_reason="", **found)
    except sa.exc.IntegrityError as error:
        raise owned_by(attempt, state.batch_id, owner="another shard, a moment ago") from error
    claimed = {"current_attempt": attempt.number, "not_before_utc": None}
    move(connection, ref_of(attempt), ShardState.OPEN, now=now, **claimed)
    return turned_up


def _is_untouched(shard: AnyRow, attempt: AnyRow) -> bool:
    waits = shard.state == ShardState.SEALED
    # A person cancelled meanwhile, and no round has taken its rows yet: what was paid is still used.
    is_held = (shard.state, shard.held_reason) == (ShardState.HELD, Reason.CANCELLED) and shard.taken_by_round is None
    return (waits or is_held) and shard.attempts == attempt.number


def check_owner(connection: sa.Connection, attempt: AnyRow, batch_id: str) -> None:
    """Raise StaleAttempt where a batch belongs to another attempt."""
    statement = sa.select(attempts).where(attempts.c.provider == attempt.provider, attempts.c.batch_id == batch_id)
    owner = connection.execute(statement).first()
    if owner is not None and owner.attempt_id != attempt.attempt_id:
        raise owned_by(attempt, batch_id, owner=f"shard {ref_of(owner)}, attempt {owner.number}")


def owned_by(attempt: AnyRow, batch_id: str, *, owner: str) -> StaleAttempt:
    """Say whose batch it is that an attempt takes for its own."""
    return StaleAttempt(
        str(ref_of(attempt)), expected=f"the owner of batch {batch_id}", found=f"a batch that belongs to {owner}"
    )


def note_seen(connection: sa.Connection, attempt_id: int, state: BatchState, *, now: datetime) -> None:
    """Record what a look at the batch saw; a look at an attempt that is over changes nothing."""
    values: dict[str, Any] = {"vendor_status": short(state.vendor_status)}
    if state.rows_done is not None:
        values["rows_done"] = state.rows_done
    if state.result_files:
        values["result_files"] = list(state.result_files)
    if state.usage is not None and state.status is BatchStatus.ENDED:
        values["vendor_usage"] = asdict(state.usage)
    if state.status is BatchStatus.NOT_FOUND:
        values["gone_since_utc"] = sa.func.coalesce(attempts.c.gone_since_utc, now)
    else:
        values |= {"last_seen_utc": now, "gone_since_utc": None}
    is_open = sa.and_(attempts.c.attempt_id == attempt_id, attempts.c.state == "open")
    connection.execute(sa.update(attempts).where(is_open).values(**values))


def end_attempt(
    connection: sa.Connection,
    attempt_id: int,
    outcome: str,
    *,
    reason: str,
    retry_at: datetime | None,
    hold: str,
    now: datetime,
) -> None:
    """End an attempt without a result; twice in the same way changes nothing. See the port."""
    _, attempt = lock(connection, attempt_id)
    if attempt.state == outcome:
        return
    if not hold and _is_cancelled(connection, attempt.run):
        hold = Reason.CANCELLED.value
    if attempt.state not in _MAY_END[outcome]:
        raise stale(attempt, expected=" or ".join(_MAY_END[outcome]))
    change(connection, attempt, state=outcome, ended_utc=now, end_reason=short(reason))
    ledger_money.release(connection, attempt, now=now)
    free = {"current_attempt": None, "not_before_utc": retry_at}
    if hold:
        move(connection, ref_of(attempt), ShardState.HELD, now=now, **_held(hold, reason), **free)
    else:
        move(connection, ref_of(attempt), ShardState.SEALED, now=now, **free)


def _is_cancelled(connection: sa.Connection, run: str) -> bool:
    return connection.execute(sa.select(runs.c.cancelled_utc).where(runs.c.run == run)).scalar() is not None


def _held(reason: str, problem: str) -> dict[str, str]:
    kind = "AccountTrouble" if reason == Reason.ACCOUNT else ""
    return {"held_reason": reason, "problem_kind": kind, "problem": short(problem)}


def hold(connection: sa.Connection, ref: ShardRef, reason: str, *, problem: str, now: datetime) -> None:
    """Set a shard aside that is not under way; see the port."""
    lock_run(connection, ref.run)
    shard = lock_shard(connection, ref)
    if shard.state not in (ShardState.SEALED, ShardState.HELD):
        raise StaleAttempt(str(ref), expected="sealed", found=shard.state)
    held = shard.held_reason if shard.state == ShardState.HELD else ""
    # What a person cancelled stays so, whatever a process met that had not heard of it.
    if held not in (reason, Reason.CANCELLED):
        move(connection, ref, ShardState.HELD, now=now, **_held(reason, problem))


def note_waiting(connection: sa.Connection, ref: ShardRef, waits_for: str, *, now: datetime) -> None:
    """Write down what a sealed shard waits for; see the port."""
    lock_run(connection, ref.run)
    shard = lock_shard(connection, ref)
    if shard.state == ShardState.SEALED and shard.waits_for != waits_for:
        move(connection, ref, ShardState.SEALED, now=now, waits_for=waits_for)


def note_stored(
    connection: sa.Connection, attempt_id: int, raw_names: Sequence[str], hashes: Sequence[str], *, now: datetime
) -> None:
    """Record that the raw results are in the store; twice with the same hashes changes nothing."""
    if len(raw_names) != len(hashes):
        raise ValueError(f"{len(raw_names)} raw files and {len(hashes)} hashes do not belong together")
    shard, attempt = lock(connection, attempt_id)
    files = {"raw_names": list(raw_names), "raw_sha256s": list(hashes)}
    if attempt.state == "ended" and (shard.raw_names, shard.raw_sha256s) == (list(raw_names), list(hashes)):
        return
    if attempt.state != "open":
        raise stale(attempt, expected="open")
    change(connection, attempt, state="ended", ended_utc=now)
    move(connection, ref_of(attempt), ShardState.STORED, now=now, **files)


def note_collected(
    connection: sa.Connection, ref: ShardRef, verdicts: Mapping[str, Any], *, cost: Cost, now: datetime
) -> bool:
    """Book the actual cost and return the reserve in one commit; says False where it was. `verdicts` are columns."""
    lock_run(connection, ref.run)
    shard = lock_shard(connection, ref)
    if shard.state in (ShardState.COLLECTED, ShardState.LOADED):
        return False
    if shard.state != ShardState.STORED:
        raise StaleAttempt(str(ref), expected="stored", found=shard.state)
    attempt = connection.execute(
        sa.select(attempts).where(of_shard(ref), attempts.c.number == shard.current_attempt)
    ).one()
    ledger_money.book_actual(connection, attempt, cost.batch_usd, now=now)
    move(connection, ref, ShardState.COLLECTED, now=now, **verdicts, **cost_values(cost))
    return True


def note_loaded(connection: sa.Connection, ref: ShardRef, *, merged: int, now: datetime) -> bool:
    """Mark the shard loaded; the first time counts, and later ones say False."""
    shard = lock_shard(connection, ref)
    if shard.state == ShardState.LOADED:
        return False
    if shard.state != ShardState.COLLECTED:
        raise StaleAttempt(str(ref), expected="collected", found=shard.state)
    move(connection, ref, ShardState.LOADED, now=now, merged=merged)
    return True


def owned(connection: sa.Connection, provider: str, batch_ids: Sequence[str]) -> set[str]:
    """Say which of these batches belong to any attempt in this ledger."""
    found: set[str] = set()
    for start in range(0, len(batch_ids), 500):
        some = list(batch_ids[start : start + 500])
        statement = sa.select(attempts.c.batch_id).where(attempts.c.provider == provider, attempts.c.batch_id.in_(some))
        found.update(connection.execute(statement).scalars())
    return found


def short(text: str) -> str:
    """Cut a vendor's text, and take out what PostgreSQL does not store."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_TEXT]

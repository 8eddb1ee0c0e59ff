"""The beginning of an attempt: one commit that claims the shard, writes the intent and reserves the money."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters import ledger_money, ledger_queue
from nightbatch.adapters.ledger_engine import insert_absent
from nightbatch.adapters.ledger_runs import lock_job, lock_run
from nightbatch.adapters.ledger_shards import attempt_of, lock_shard, move, of_shard, ref_of
from nightbatch.adapters.ledger_tables import attempts, runs
from nightbatch.adapters.ledger_types import AnyRow, rounded_up
from nightbatch.core.shard import ShardState
from nightbatch.errors import MustWait, RunIncomplete, RunOverlaps, StaleAttempt
from nightbatch.ports import Attempt, Intent

RIVAL_PAUSE = timedelta(seconds=5)
"""How long, at least, a shard waits for another one that could be taken for it."""


def begin(connection: sa.Connection, intent: Intent, *, now: datetime) -> Attempt | MustWait:
    """
    Claim a shard, take a place in the queue, write the intent and reserve the worst case; see the port.

    MustWait is given where the shard waits in line, since that must be committed, and raised where nothing was written.
    """
    ref = intent.ref
    ledger_queue.lock_account(connection, intent.provider, intent.account)
    if ledger_money.counts_a_job(intent.budgets):
        lock_job(connection, ref.run)
    run = lock_run(connection, ref.run)
    shard = lock_shard(connection, ref)
    _check_turn(connection, run, shard, intent, now=now)
    reserve_usd = rounded_up(intent.reserve_usd)
    ledger_money.check_budgets(connection, intent, job=run.job, needed_usd=reserve_usd, now=now)
    queued = ledger_queue.since(connection, ref, now)
    wait = ledger_queue.take_place(connection, intent, job=run.job, shard=shard, now=now)
    if wait is not None:
        return wait
    number = shard.attempts + 1
    send_deadline = now + intent.send_for
    values: dict[str, Any] = {
        "run": ref.run,
        "round": ref.round,
        "shard": ref.shard,
        "number": number,
        "state": "intent",
        "provider": intent.provider,
        "account": intent.account,
        "content_sha256": shard.content_sha256,
        "rows": shard.rows,
        "distinct_rows": intent.distinct_rows,
        "intent_utc": now,
        "send_deadline_utc": send_deadline,
        "certain_utc": send_deadline + intent.certain_after,
        "reserved_usd": reserve_usd,
        "model": shard.model,
        "queue_tokens": ledger_queue.tokens_of(shard),
    }
    if not insert_absent(connection, attempts, **values):
        rival = _rival(connection, intent, rows=shard.rows, now=now)
        ledger_queue.keep_place_in_line(connection, intent, job=run.job, shard=shard, wait=rival, now=now)
        return rival
    row = connection.execute(sa.select(attempts).where(of_shard(ref), attempts.c.number == number)).one()
    ledger_money.reserve(connection, row.attempt_id, reserve_usd, day=intent.day, now=now)
    claimed = {"attempts": number, "current_attempt": number, "not_before_utc": None, "waits_for": ""}
    move(connection, ref, ShardState.SUBMITTING, now=now, **claimed)
    return replace(attempt_of(row._mapping), queued_utc=queued)


def _check_turn(connection: sa.Connection, run: AnyRow, shard: AnyRow, intent: Intent, *, now: datetime) -> None:
    """Raise what keeps this attempt from beginning now, or for good."""
    if (shard.attempts, shard.state) != (intent.expected_attempts, ShardState.SEALED):
        raise StaleAttempt(
            str(intent.ref),
            expected=f"attempt {intent.expected_attempts}, sealed",
            found=f"attempt {shard.attempts}, {shard.state}",
        )
    # In both cases these rows are another run's by now; to send them here too would be to pay twice.
    if run.state == "incomplete":
        raise RunIncomplete(run.run, pending=shard.rows, reasons="left to the job's next run")
    newest = _newest_generation(connection, run)
    if newest.run != run.run:
        raise RunOverlaps(run.job, other_run=newest.run, since=newest.started_utc)
    if shard.not_before_utc is not None and now < shard.not_before_utc:
        raise MustWait(f"shard {intent.ref} waits its turn", until=shard.not_before_utc)


def _newest_generation(connection: sa.Connection, run: AnyRow) -> AnyRow:
    statement = sa.select(runs).where(
        runs.c.job == run.job,
        runs.c.window_start_utc == run.window_start_utc,
        runs.c.window_end_utc == run.window_end_utc,
    )
    return connection.execute(statement.order_by(runs.c.generation.desc()).limit(1)).one()


def _rival(connection: sa.Connection, intent: Intent, *, rows: int, now: datetime) -> MustWait:
    statement = sa.select(attempts).where(
        attempts.c.provider == intent.provider,
        attempts.c.account == intent.account,
        attempts.c.rows == rows,
        attempts.c.distinct_rows,
        attempts.c.state.in_(("intent", "sending")),
    )
    other = connection.execute(statement).first()
    who = "another shard" if other is None else f"shard {ref_of(other)}"
    reason = (
        f"{who} of {rows:,} rows is being sent to {intent.provider} account {intent.account}, and two of the same "
        "size could not be told apart"
    )
    # Most creates take seconds, a lost one many minutes: wait half as long again as it has taken so far.
    pause = RIVAL_PAUSE if other is None else max(RIVAL_PAUSE, (now - other.intent_utc) / 2)
    return MustWait(reason, until=now + pause)

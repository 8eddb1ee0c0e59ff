"""The ledger in PostgreSQL or SQLite: every method is one transaction (tables: `docs/ledger.md`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import sqlalchemy as sa

from nightbatch.adapters import (
    ledger_attempts,
    ledger_begin,
    ledger_cancel,
    ledger_costs,
    ledger_doubles,
    ledger_events,
    ledger_gates,
    ledger_migrate,
    ledger_money,
    ledger_problems,
    ledger_proofs,
    ledger_queue,
    ledger_runs,
    ledger_shards,
)
from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_full import Queueing
from nightbatch.adapters.ledger_tables import meta
from nightbatch.adapters.ledger_tidy import Tidying
from nightbatch.adapters.ledger_watch import Watching
from nightbatch.core.batch import BatchState
from nightbatch.core.experience import Experience, PastEstimate
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.core.proof import Link
from nightbatch.core.window import Window
from nightbatch.errors import MustWait
from nightbatch.ports import Attempt, CostLine, Event, Gate, Intent, PendingFile, RoundPlan, Run, Shard


class SqlLedger(Queueing, Tidying, Watching):
    """
    The ledger of the port, over SQL. Open it with `open` or `open_or_migrate`; it may be shared by threads.

    Rows are locked in one order (account, job, run, shard, attempt), so transactions wait for each other but never
    in a circle.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.read() as connection:
            statement = sa.select(meta.c.value).where(meta.c.name == "ledger_id")
            self.ledger_id: str = connection.execute(statement).scalar_one()

    @classmethod
    def open(cls, url: str, *, schema: str | None = None) -> SqlLedger:
        """
        Open a ledger whose tables are there.

        Raises LedgerMismatch where they are not, or are not for this library; ConnectionInvalid for an unusable
        URL; StorageUnavailable where the database cannot be reached.
        """
        database = Database(url, schema=schema)
        ledger_migrate.check_version(database)
        return cls(database)

    @classmethod
    def open_or_migrate(cls, url: str, *, schema: str | None = None, anyway: bool = False) -> SqlLedger:
        """
        Open a ledger, after creating its tables in a database without, or bringing older ones up to date.

        Any number of processes may do so at once, beside older ones that go on; where these could not, LedgerInUse is
        raised while runs are open, unless it is to be done `anyway`. Raises LedgerMismatch where the tables are newer
        and not for this library.
        """
        database = Database(url, schema=schema)
        ledger_migrate.migrate(database, anyway=anyway)
        return cls(database)

    def close(self) -> None:
        """Close all connections to the database."""
        self._database.close()

    # runs
    def open_run(
        self, job: str, window: Window, *, now: datetime, force: bool = False, overlap: timedelta = timedelta(0)
    ) -> Run:
        """Give the run of this job and window, and hold the window for it."""
        with self._database.write() as connection:
            return ledger_runs.open_run(connection, job, window, now=now, force=force, overlap=overlap)

    def run(self, run: str) -> Run:
        """Give a run by name. Raises LookupError."""
        with self._database.read() as connection:
            return ledger_runs.run(connection, run)

    def runs(self, *, job: str | None = None, window: Window | None = None, limit: int = 50) -> list[Run]:
        """List runs, newest start first; only of one job, or of one window, where these are given."""
        with self._database.read() as connection:
            return ledger_runs.list_runs(connection, job=job, window=window, limit=limit)

    def seal(
        self,
        plan: RoundPlan,
        *,
        takes: Sequence[ShardRef] = (),
        pending: Sequence[PendingFile] = (),
        leaves: PendingFile | None = None,
        now: datetime,
    ) -> RoundPlan:
        """Seal a round in one commit, and give the sealed one: this, or the one that was sealed before."""
        with self._database.write() as connection:
            return ledger_runs.seal(connection, plan, takes=takes, claims=pending, leaves=leaves, now=now)

    def open_sealed(self, plan: RoundPlan, *, job: str, window: Window, now: datetime) -> RoundPlan:
        """Open the next generation of a closed window together with its round 0, in one commit."""
        with self._database.write() as connection:
            return ledger_runs.open_sealed(connection, plan, job=job, window=window, now=now)

    def sealed(self, run: str, round_: int) -> RoundPlan | None:
        """Give a sealed round."""
        with self._database.read() as connection:
            return ledger_runs.sealed(connection, run, round_)

    def pending(self, job: str) -> list[PendingFile]:
        """List the pending files of a job that no run has taken, oldest first."""
        with self._database.read() as connection:
            return ledger_runs.list_pending(connection, job)

    def settle(
        self, run: str, *, state: str, books: Mapping[str, Any], proof: Sequence[Link] | None = None, now: datetime
    ) -> None:
        """Close (or leave `open`) a run with its books and its proof; a run that was closed stays closed."""
        with self._database.write() as connection:
            ledger_runs.settle(connection, run, state=state, books=books, now=now)
            if proof is not None:
                ledger_proofs.replace(connection, run, proof, now=now)

    def proof(self, run: str) -> list[Link]:
        """Give the links that the last settle of a run recorded, in order."""
        with self._database.read() as connection:
            return ledger_proofs.list_links(connection, run)

    def cancel(self, run: str, *, drops: bool, now: datetime) -> Run:
        """Mark an open run as cancelled, and set every shard aside that is not under way."""
        with self._database.write() as connection:
            return ledger_cancel.cancel(connection, run, drops=drops, now=now)

    # shards and attempts
    def shards(self, run: str, *, round_: int | None = None) -> list[Shard]:
        """List the shards of a run in order."""
        with self._database.read() as connection:
            return ledger_shards.list_shards(connection, run, round_=round_)

    def shard(self, ref: ShardRef) -> Shard:
        """Give one shard. Raises LookupError."""
        with self._database.read() as connection:
            return ledger_shards.shard(connection, ref)

    def begin(self, intent: Intent, *, now: datetime) -> Attempt:
        """Claim the shard, write the intent, take a place in the queue, and reserve the worst case, in one commit."""
        with self._database.write() as connection:
            begun = ledger_begin.begin(connection, intent, now=now)
        if isinstance(begun, MustWait):
            raise begun  # after the commit, which keeps its place in the line
        return begun

    def note_file(self, attempt_id: int, file_id: str) -> None:
        """Keep the id of the uploaded file. Raises StaleAttempt unless the attempt is still an intent."""
        with self._database.write() as connection:
            ledger_attempts.note_file(connection, attempt_id, file_id)

    def note_sending(self, attempt_id: int) -> None:
        """Mark that the create call goes out now. Raises StaleAttempt unless the attempt is still an intent."""
        with self._database.write() as connection:
            ledger_attempts.note_sending(connection, attempt_id)

    def note_open(self, attempt_id: int, state: BatchState, *, now: datetime) -> bool | None:
        """Record the batch id: the shard is open. Raises StaleAttempt where it belongs to another attempt."""
        with self._database.write() as connection:
            return ledger_attempts.note_open(connection, attempt_id, state, now=now)

    def note_seen(self, attempt_id: int, state: BatchState, *, now: datetime) -> None:
        """Record what a look at the batch saw."""
        with self._database.write() as connection:
            ledger_attempts.note_seen(connection, attempt_id, state, now=now)

    def end_attempt(
        self,
        attempt_id: int,
        outcome: Literal["absent", "refused", "lost"],
        *,
        reason: str,
        retry_at: datetime | None,
        hold: str = "",
        now: datetime,
    ) -> None:
        """End an attempt without a result: its reserve returns, and the shard is `sealed` again, or held."""
        with self._database.write() as connection:
            ledger_attempts.end_attempt(
                connection, attempt_id, outcome, reason=reason, retry_at=retry_at, hold=hold, now=now
            )

    def hold(self, ref: ShardRef, reason: str, *, problem: str = "", now: datetime) -> None:
        """Set a shard that is not under way aside: its rows are pending for `reason`."""
        with self._database.write() as connection:
            ledger_attempts.hold(connection, ref, reason, problem=problem, now=now)
            ledger_queue.leave(connection, ref)

    def note_waiting(self, ref: ShardRef, waits_for: str, *, now: datetime) -> None:
        """Write down, for people, what a sealed shard waits for."""
        with self._database.write() as connection:
            ledger_attempts.note_waiting(connection, ref, waits_for, now=now)
            # Whoever waits for a budget keeps nobody behind it from the queue.
            ledger_queue.leave(connection, ref)

    def note_stored(self, attempt_id: int, raw_names: Sequence[str], hashes: Sequence[str], *, now: datetime) -> None:
        """Record that the raw results are in the store, with their SHA-256."""
        with self._database.write() as connection:
            ledger_attempts.note_stored(connection, attempt_id, raw_names, hashes, now=now)

    def note_collected(
        self,
        ref: ShardRef,
        *,
        verdicts_name: str,
        verdicts_sha256: str = "",
        counts: Mapping[str, int],
        cost: Cost,
        rates: Mapping[str, Mapping[str, str]] | None = None,
        profile: Mapping[str, Any] | None = None,
        now: datetime,
    ) -> bool:
        """Book the actual cost, return the unused reserve, mark the shard collected; says False the second time."""
        verdicts = {
            "verdicts_name": verdicts_name,
            "verdicts_sha256": verdicts_sha256,
            "counts": dict(counts),
            "rates": dict(rates) if rates else None,
            "profile": dict(profile) if profile else None,
        }
        with self._database.write() as connection:
            return ledger_attempts.note_collected(connection, ref, verdicts, cost=cost, now=now)

    def note_loaded(self, ref: ShardRef, *, merged: int, now: datetime) -> bool:
        """Mark the shard loaded; says False the second time."""
        with self._database.write() as connection:
            return ledger_attempts.note_loaded(connection, ref, merged=merged, now=now)

    def note_problem(self, ref: ShardRef, kind: str, problem: str) -> None:
        """Keep what keeps a shard from going on; empty texts clear it."""
        with self._database.write() as connection:
            ledger_problems.note_problem(connection, ref, kind, problem)

    def account_trouble(self, run: str, provider: str, connection: str) -> str:
        """Give the trouble that a run has with an account; empty where it has none."""
        with self._database.read() as read:
            return ledger_problems.account_trouble(read, run, provider, connection)

    def resume(self, run: str, *, now: datetime) -> None:
        """Forget a run's trouble with accounts, and let the shards go that were set aside for it."""
        with self._database.write() as connection:
            ledger_problems.resume(connection, run, now=now)

    def note_absence(self, attempt_id: int, *, at_most: timedelta, now: datetime) -> timedelta:
        """Record a complete listing without the batch; give for how long it has been looked for."""
        with self._database.write() as connection:
            return ledger_problems.note_absence(connection, attempt_id, at_most=at_most, now=now)

    def note_double(self, attempt_id: int, state: BatchState, *, now: datetime) -> None:
        """Record a batch of an absent attempt beside which another one stands; its worst case is reserved again."""
        with self._database.write() as connection:
            ledger_doubles.note_double(connection, attempt_id, state, now=now)

    def note_double_ended(self, attempt_id: int, *, usd: Decimal, now: datetime) -> None:
        """Book what a double cost, and return its reserve; twice changes nothing."""
        with self._database.write() as connection:
            ledger_doubles.note_double_ended(connection, attempt_id, usd=usd, now=now)

    def doubles(self, run: str) -> list[tuple[Attempt, Decimal]]:
        """List the doubles of a run, and what each was billed so far."""
        with self._database.read() as connection:
            return ledger_doubles.doubles(connection, run)

    def owned(self, provider: str, batch_ids: Sequence[str]) -> set[str]:
        """Say which of these batches belong to any attempt in this ledger."""
        with self._database.read() as connection:
            return ledger_attempts.owned(connection, provider, batch_ids)

    def spent(self, run: str) -> tuple[Decimal, Decimal]:
        """Give (reserved, actual) USD of a run over all its rounds."""
        with self._database.read() as connection:
            return ledger_money.spent(connection, run)

    def experience(self, job: str, provider: str, model: str) -> Experience:
        """Add up what bills taught: answers of this job and model, and bytes a token of the model."""
        with self._database.read() as connection:
            return ledger_costs.experience(connection, job, provider, model)

    def past_estimates(self, job: str, *, limit: int) -> list[PastEstimate]:
        """Compare what the job's latest runs were expected to cost with what they did cost, newest first."""
        with self._database.read() as connection:
            return ledger_costs.past_estimates(connection, job, limit=limit)

    def costs(self, *, job: str | None = None, since: date | None = None, until: date | None = None) -> list[CostLine]:
        """List what was billed, by day, job, lane and prompt."""
        with self._database.read() as connection:
            return ledger_costs.costs(connection, job=job, since=since, until=until)

    # gates
    def gate(self, run: str, kind: str) -> Gate | None:
        """Give what was decided about a run at a gate; None before."""
        with self._database.read() as connection:
            return ledger_gates.gate(connection, run, kind)

    def decide_gate(self, run: str, kind: str, state: str, facts: Mapping[str, Any], *, by: str, now: datetime) -> Gate:
        """Decide about a run at a gate, and give what holds; only a person's word changes an earlier decision."""
        with self._database.write() as connection:
            return ledger_gates.decide(connection, run, kind, state, facts, by=by, now=now)

    def note_discarded(
        self,
        ref: ShardRef,
        *,
        instead_of: str,
        verdicts_name: str,
        verdicts_sha256: str,
        counts: Mapping[str, int],
        now: datetime,
    ) -> None:
        """Replace the verdicts of a collected shard, because a person discarded its answers."""
        with self._database.write() as connection:
            ledger_gates.note_discarded(
                connection,
                ref,
                instead_of=instead_of,
                verdicts_name=verdicts_name,
                verdicts_sha256=verdicts_sha256,
                counts=counts,
                now=now,
            )

    # events
    def record_event(self, event_id: str, kind: str, run: str, payload: Mapping[str, Any], *, now: datetime) -> None:
        """Write an event down before anybody is told; the same id twice changes nothing."""
        with self._database.write() as connection:
            ledger_events.record(connection, event_id, kind, run, payload, now=now)

    def forget_event(self, event_id: str) -> None:
        """Remove an event that only counted."""
        with self._database.write() as connection:
            ledger_events.forget(connection, event_id)

    def may_deliver(self, event_id: str, channel: str, *, again_after: timedelta, now: datetime) -> bool:
        """Claim one delivery: True at most twice, so long apart, and never after `note_delivered`."""
        with self._database.write() as connection:
            return ledger_events.may_deliver(connection, event_id, channel, again_after=again_after, now=now)

    def delivery_claimed(self, event_id: str, channel: str) -> datetime | None:
        """Say since when a delivery has been under way that may still be claimed once more."""
        with self._database.read() as connection:
            return ledger_events.claimed(connection, event_id, channel)

    def note_delivered(self, event_id: str, channel: str, *, now: datetime) -> None:
        """Record that people were told."""
        with self._database.write() as connection:
            ledger_events.note_delivered(connection, event_id, channel, now=now)

    def note_undelivered(self, event_id: str, channel: str, *, now: datetime) -> None:
        """Give a claim back, since nothing was delivered."""
        with self._database.write() as connection:
            ledger_events.note_undelivered(connection, event_id, channel, now=now)

    def undelivered(self, job: str, channel: str) -> list[Event]:
        """List what was to be told about a job's runs and a channel did not take."""
        with self._database.read() as connection:
            return ledger_events.undelivered(connection, job, channel)

    def events(self, subject: str) -> list[Event]:
        """List the events about a run, or another subject, in order."""
        with self._database.read() as connection:
            return ledger_events.listed(connection, subject)

    def deliveries(self, run: str) -> list[tuple[str, str, str]]:
        """List (event id, kind, channel) of what was delivered about a run."""
        with self._database.read() as connection:
            return ledger_events.delivered(connection, run)

"""The books: every method is one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, Protocol

from nightbatch.core.batch import BatchState
from nightbatch.core.experience import Experience, PastEstimate
from nightbatch.core.gaps import RunSpan
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost
from nightbatch.core.proof import Link
from nightbatch.core.queue import QueueRules
from nightbatch.core.window import Window

from .ledger_rows import Attempt, CostLine, Event, Gate, Intent, PendingFile, QueuedShard, RoundPlan, Run, Shard


class Ledger(Protocol):
    """
    The small, transactional truth. Each method is one transaction; times come from the caller.

    Safe under any number of processes. Raises StorageUnavailable where the database cannot be reached.
    """

    ledger_id: str
    """A UUID in hex, made with the tables."""

    # runs
    def open_run(
        self, job: str, window: Window, *, now: datetime, force: bool = False, overlap: timedelta = timedelta(0)
    ) -> Run:
        """
        Give the run of this job and window, and hold the window for it.

        No run yet: generation 1. The latest is `open`, `complete` or `failed`: that one again. It is `incomplete`, or
        `force`: a new generation (an open one is never forced away). Raises RunOverlaps where another window's
        open run overlaps this one, or the `overlap` that this one reads before it, or reads this one in its own.
        """

    def run(self, run: str) -> Run:
        """Give a run by name. Raises LookupError."""

    def runs(self, *, job: str | None = None, window: Window | None = None, limit: int = 50) -> list[Run]:
        """List runs, newest start first; only of one job, or of one window, where these are given."""

    def seal(
        self,
        plan: RoundPlan,
        *,
        takes: Sequence[ShardRef] = (),
        pending: Sequence[PendingFile] = (),
        leaves: PendingFile | None = None,
        now: datetime,
    ) -> RoundPlan:
        """
        Seal a round in one commit, and give the sealed one: this, or the one that was sealed before.

        `takes`: shards whose bad rows go into this round (marked). `pending`: pending files this run takes over
        (claimed; raises StaleAttempt where another run was quicker). `leaves`: a pending file for a later run.
        """

    def open_sealed(self, plan: RoundPlan, *, job: str, window: Window, now: datetime) -> RoundPlan:
        """
        Open the next generation of a closed window together with its round 0, in one commit.

        So there is never such a generation without its plan, which somebody else would make another one for. Raises
        StaleAttempt where `plan.run` is not the next generation (any more), RunOverlaps as `open_run`.
        """

    def sealed(self, run: str, round_: int) -> RoundPlan | None:
        """Give a sealed round."""

    def pending(self, job: str) -> list[PendingFile]:
        """List the pending files of a job that no run has taken, oldest first."""

    def settle(
        self, run: str, *, state: str, books: Mapping[str, Any], proof: Sequence[Link] | None = None, now: datetime
    ) -> None:
        """
        Close (or leave `open`) a run with its books; a settled run no longer holds its window.

        `proof` replaces the links that an earlier settle recorded; None leaves these as they are.
        """

    def proof(self, run: str) -> list[Link]:
        """Give the links that the last settle of a run recorded, in order; empty where none did."""

    def cancel(self, run: str, *, drops: bool, now: datetime) -> Run:
        """
        Mark an open run as cancelled, and set every shard aside that is not under way, in one commit.

        From then on nothing of it can be sent: shards that are sealed or come back later are held too. The first
        mark stands. Raises StaleAttempt where the run is not open.
        """

    # shards and attempts
    def shards(self, run: str, *, round_: int | None = None) -> list[Shard]:
        """List the shards of a run in order."""

    def shard(self, ref: ShardRef) -> Shard:
        """Give one shard. Raises LookupError."""

    def begin(self, intent: Intent, *, now: datetime) -> Attempt:
        """
        Claim the shard, write the intent, take a place in the queue, and reserve the worst case, in one commit.

        The places in use are the attempts under way of the account, in all runs. Raises StaleAttempt; BudgetExceeded
        where what is spent and this are more than a budget, BudgetTaken where they are with what is reserved;
        QueueTooSmall; MustWait for `distinct_rows`, or because it is not the shard's turn, which it then waits for in
        line.
        """

    def queue(self) -> list[QueuedShard]:
        """List the shards that wait for a place, who came first first; also those whose process may be dead."""

    def note_file(self, attempt_id: int, file_id: str) -> None:
        """Keep the id of the uploaded file."""

    def note_sending(self, attempt_id: int) -> None:
        """Mark that the create call goes out now. Raises StaleAttempt unless the attempt is still an intent."""

    def note_open(self, attempt_id: int, state: BatchState, *, now: datetime) -> bool | None:
        """
        Record the batch id: the shard is open. Twice with one id is fine; another id raises StaleAttempt.

        Says whether the batch had been thought absent: its worst case is reserved again then, also above a budget.
        None where the id was recorded before.
        """

    def note_seen(self, attempt_id: int, state: BatchState, *, now: datetime) -> None:
        """Record what a look at the batch saw."""

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
        """
        End an attempt without a result: its reserve returns and the shard is `sealed` again.

        With `hold` (a `Reason` value) the shard is set aside in the same commit, so that nobody can send it between,
        and `reason` is kept as its problem.
        """

    def stay_in_line(self, refs: Sequence[ShardRef], *, now: datetime) -> None:
        """Say that shards that wait in line are looked after, by a process that is busy with others meanwhile."""

    def end_full(self, attempt_id: int, rules: QueueRules, *, reason: str, wait: timedelta, now: datetime) -> None:
        """
        End an attempt that the vendor refused because its queue is full; twice changes nothing.

        With other shards of ours in the queue, what they hold is the limit from now on, and this shard waits its
        turn. Without, somebody else's work fills the queue, and no shard of the account tries again before `wait`.
        """

    def hold(self, ref: ShardRef, reason: str, *, problem: str = "", now: datetime) -> None:
        """
        Set a shard that is not under way aside: its rows are pending for `reason` (a `Reason` value).

        `problem` is what a person must know about it, in a sentence.
        """

    def note_waiting(self, ref: ShardRef, waits_for: str, *, now: datetime) -> None:
        """Write down, for people, what a sealed shard waits for; nothing happens to one that is under way."""

    def note_stored(self, attempt_id: int, raw_names: Sequence[str], hashes: Sequence[str], *, now: datetime) -> None:
        """Record that the raw results are in the store, with their SHA-256."""

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
        """
        Book the actual cost, return the unused reserve, mark the shard collected; twice changes nothing.

        Says whether this call did it.
        """

    def note_loaded(self, ref: ShardRef, *, merged: int, now: datetime) -> bool:
        """Mark the shard loaded, and say whether this call did it; twice changes nothing."""

    def note_problem(self, ref: ShardRef, kind: str, problem: str) -> None:
        """
        Keep what keeps a shard from going on: the name of an error and its sentence; empty texts clear it.

        It clears by itself when the shard is sent, found or collected.
        """

    def account_trouble(self, run: str, provider: str, connection: str) -> str:
        """Give the trouble that a run has with the account behind a connection; empty where it has none."""

    def resume(self, run: str, *, now: datetime) -> None:
        """
        Forget a run's trouble with accounts, because somebody runs it again.

        Shards that were set aside for it, or for a canary that a person released meanwhile, and whose rows no round has
        taken, are `sealed` again.
        """

    def note_absence(self, attempt_id: int, *, at_most: timedelta, now: datetime) -> timedelta:
        """
        Record a complete listing without the batch; give for how long it has been looked for in vain.

        That is the sum of the times between looks, each counted as no less than nothing and as `at_most`, so that
        a clock that jumps adds no more than one look would.
        """

    def note_double(self, attempt_id: int, state: BatchState, *, now: datetime) -> None:
        """
        Record that a batch was made although its attempt had been taken for absent, and its shard is sent again.

        Its worst case is reserved again, over any budget. Twice is fine. Raises StaleAttempt where the attempt is
        not absent, or the batch is another attempt's.
        """

    def note_double_ended(self, attempt_id: int, *, usd: Decimal, now: datetime) -> None:
        """Book what a double cost, and return its reserve; twice changes nothing."""

    def doubles(self, run: str) -> list[tuple[Attempt, Decimal]]:
        """List the doubles of a run, and what each was billed so far (USD)."""

    def owned(self, provider: str, batch_ids: Sequence[str]) -> set[str]:
        """Say which of these batches belong to any attempt in this ledger."""

    def spent(self, run: str) -> tuple[Decimal, Decimal]:
        """Give (reserved, actual) USD of a run over all its rounds."""

    def experience(self, job: str, provider: str, model: str) -> Experience:
        """
        Add up what bills taught: answers of this job and model, and bytes a token of the model.

        Of the latest shards whose rows were all answered; of any job where this one has none yet.
        """

    def past_estimates(self, job: str, *, limit: int) -> list[PastEstimate]:
        """Compare what the job's latest runs were expected to cost with what they did cost, newest first."""

    def costs(self, *, job: str | None = None, since: date | None = None, until: date | None = None) -> list[CostLine]:
        """List what was billed, by day, job, lane and prompt; from `since` on and before `until`."""

    # gates
    def gate(self, run: str, kind: str) -> Gate | None:
        """Give what was decided about a run at a gate; None before."""

    def decide_gate(self, run: str, kind: str, state: str, facts: Mapping[str, Any], *, by: str, now: datetime) -> Gate:
        """
        Decide about a run at a gate, and give what holds: this, or what was decided before.

        Only `released` and `discarded` change an earlier decision, and only `stopped`.
        """

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
        """
        Replace the verdicts of a collected shard, because a person discarded its answers; its cost stays booked.

        `instead_of` names the verdicts that were read. Raises StaleAttempt where the shard has others, or is not
        collected.
        """

    # tidying up
    def attempts(self, run: str) -> list[Attempt]:
        """List every attempt of a run, by shard and number."""

    def owners(self, provider: str, batch_ids: Sequence[str]) -> dict[str, Attempt]:
        """Give the attempts that own these batches, by batch id; a batch of nobody's is absent."""

    def run_names(self) -> Iterator[str]:
        """Stream the names of all runs, sorted."""

    def accounts_used(self) -> list[tuple[str, str]]:
        """List every (provider, connection) that a sealed shard goes to, sorted."""

    def note_files_deleted(self, attempt_id: int, *, now: datetime) -> None:
        """Record that nothing of an attempt is at the vendor any more."""

    def runs_with_files(self) -> Iterator[Run]:
        """Stream the runs whose staging folder may hold files, by name; runs that come meanwhile may be left out."""

    def last_moved(self, run: str) -> datetime:
        """Say when anything of a run was last noted: a plan, a shard's state, a look at a batch, a turn in a queue."""

    def give_up_files(self, run: str, *, now: datetime) -> bool:
        """
        Mark a run's files in the store as not to be read any more; True where they are, now or since before.

        False, and nothing changes, for a run that is open, that left pending rows which nobody has taken, or whose
        window has an open generation that may go on from it.
        """

    def note_emptied(self, run: str, *, now: datetime) -> None:
        """Record that the last of the files that were given up is deleted."""

    # events
    def record_event(self, event_id: str, kind: str, run: str, payload: Mapping[str, Any], *, now: datetime) -> None:
        """Write an event down before anybody is told; the same id twice changes nothing."""

    def forget_event(self, event_id: str) -> None:
        """Remove an event that only counted; nothing happens to one that anybody was told of, or that is not there."""

    def may_deliver(self, event_id: str, channel: str, *, again_after: timedelta, now: datetime) -> bool:
        """
        Claim one delivery: True at most twice for one event and channel, and never after `note_delivered`.

        A second True, for a caller that died while sending, comes only `again_after` the first. A claim that was given
        back by `note_undelivered` does not count.
        """

    def delivery_claimed(self, event_id: str, channel: str) -> datetime | None:
        """Say since when a delivery has been under way that may still be claimed once more; None for all others."""

    def note_delivered(self, event_id: str, channel: str, *, now: datetime) -> None:
        """Record that people were told."""

    def note_undelivered(self, event_id: str, channel: str, *, now: datetime) -> None:
        """Give a claim back, since the channel certainly took nothing; it may be claimed again `again_after` now."""

    def undelivered(self, job: str, channel: str) -> list[Event]:
        """List what was to be told about a job's runs and a channel did not take, in order."""

    def events(self, subject: str) -> list[Event]:
        """List the events about a run, or about another subject (`core/outage.py`), in order."""

    def deliveries(self, run: str) -> list[tuple[str, str, str]]:
        """List (event id, kind, channel) of what was delivered about a run."""

    # the watchdog
    def jobs(self) -> list[str]:
        """List the jobs that have a run, sorted."""

    def spans(self, job: str) -> list[RunSpan]:
        """List the windows of a job's runs, and what became of them, oldest start first."""

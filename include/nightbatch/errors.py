"""Every error nightbatch raises on purpose, and what the caller should do with it.

NightbatchError
├── Transient               try again later; Airflow retries
│   ├── ProviderBusy        the vendor asks us to slow down, or cannot be reached
│   ├── CreateUnclear       a create call was sent and its reply never came
│   ├── QueueFull           the vendor's queue is full; the shard waits its turn
│   ├── RunOverlaps         another run of the job holds an overlapping window
│   ├── MustWait            a rule of ours says "not yet"
│   │   └── BudgetTaken     what a budget leaves is reserved by batches under way
│   ├── StorageUnavailable  a store, source, sink or ledger cannot be reached
│   └── StaleAttempt        somebody else has moved this shard on; look again
└── Terminal                trying again changes nothing; a person is told
    ├── JobInvalid          a job file with all of its problems
    ├── ConnectionInvalid   a connection is absent or of the wrong type
    ├── PackageMissing      an extra of nightbatch is not installed
    ├── BadSource / BadSink the data or the table is not what the job says
    ├── RequestTooLarge     one request alone is over the lane's limit
    ├── RequestRefused      the vendor refused a create for good
    ├── AccountTrouble      key, credit or permission: sending stops, rows stay pending
    ├── AccountChanged      the key belongs to another account than a batch that it should look after
    ├── BudgetExceeded      the worst case would go over the budget
    ├── QueueTooSmall       a shard is more than may ever wait in the vendor's queue
    ├── PlanChanged         what would be sent is not what was sealed
    ├── BatchVanished       the vendor no longer knows a batch that was paid
    ├── StagingRemoved      the run's files are past the job's retention
    ├── LedgerMismatch      the ledger is of another version
    ├── LedgerInUse         the ledger cannot be upgraded while runs are open
    ├── PlanUnreadable      a run was sealed by a version that this one does not understand
    ├── NothingToRetry      no dead letter of the reasons asked for can be sent again
    ├── RunIncomplete       the run adds up, and rows are pending
    │   ├── RunHeldBack     the quality gate stopped it, and a person decides
    │   └── RunUnloaded     answers came back and did not reach the sink
    ├── RunFailed           the run broke a limit of the job
    │   ├── RunCancelled    a person cancelled it before every row was answered
    │   └── RunDiscarded    a person discarded what the quality gate held back
    └── DoesNotAddUp        the books do not balance
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from nightbatch import __version__


class NightbatchError(Exception):
    """The root of everything raised here."""


class Transient(NightbatchError):
    """Trying again later may work."""


class Terminal(NightbatchError):
    """Trying again changes nothing."""


class ProviderBusy(Transient):
    """The vendor could not be read: busy, over its rate limit, or out of reach. Nothing was created."""

    def __init__(self, provider: str, doing: str, *, cause: str, retry_after_s: float | None = None) -> None:
        self.provider, self.doing, self.cause, self.retry_after_s = provider, doing, cause, retry_after_s
        wait = f" It asks for {retry_after_s:.0f} s." if retry_after_s else ""
        end = "" if cause.endswith("?") else "."
        super().__init__(
            f"{provider} did not answer while {doing}: {cause}{end}{wait} Nothing is lost; it is tried again."
        )


class CreateUnclear(Transient):
    """A create call went out and no reply came: the batch may exist and may be billed."""

    def __init__(self, provider: str, *, cause: str) -> None:
        self.provider, self.cause = provider, cause
        super().__init__(
            f"the reply to a create call at {provider} was lost ({cause}). The batch may exist. nightbatch asks the "
            "vendor before it sends again; there is nothing to do."
        )


class QueueFull(Transient):
    """The vendor refuses a batch because too much waits in its queue; no batch was created."""

    def __init__(self, provider: str, *, cause: str) -> None:
        self.provider, self.cause = provider, cause
        super().__init__(f"the queue at {provider} is full ({cause}). The shard waits its turn; nothing was billed.")


class RunOverlaps(Transient):
    """Another run of this job works on an overlapping window."""

    def __init__(self, job: str, *, other_run: str, since: datetime) -> None:
        self.job, self.other_run, self.since = job, other_run, since
        super().__init__(
            f"job {job}: run {other_run} has held what this one would read since {since:%Y-%m-%d %H:%M} UTC. "
            "This run waits for it. `nightbatch status` shows what the other one is waiting for."
        )


class MustWait(Transient):
    """A rule of ours says "not yet": nothing is wrong."""

    def __init__(self, reason: str, *, until: datetime) -> None:
        self.reason, self.until = reason, until
        super().__init__(f"{reason}; looks again at {until:%H:%M:%S} UTC")


class BudgetTaken(MustWait):
    """A shard fits a budget, once reserves of other shards have returned."""


class StorageUnavailable(Transient):
    """A store, source, sink or ledger cannot be reached."""

    def __init__(self, what: str, *, cause: str) -> None:
        self.what, self.cause = what, cause
        super().__init__(
            f"{what} cannot be reached, or not written to: {cause}. It is tried again, and nothing half-written is "
            "used; check the connection, and the space that is left, if it stays so."
        )


class StaleAttempt(Transient):
    """Another process has moved this shard on since we looked."""

    def __init__(self, shard: str, *, expected: str, found: str) -> None:
        self.shard, self.expected, self.found = shard, expected, found
        super().__init__(
            f"shard {shard} is at {found}, not at {expected}: another attempt has moved it on. "
            "This one stops without sending; the next look continues from there."
        )


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a job file."""

    path: str
    problem: str
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.problem}. {self.remedy}"


class JobInvalid(Terminal):
    """A job file cannot be used; says all that is wrong with it at once."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file, self.problems = file, tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{file}: {count}\n{lines}")


class ConnectionInvalid(Terminal):
    """A connection is absent, or cannot be used for what the job wants of it."""

    def __init__(self, conn_id: str, *, problem: str, remedy: str) -> None:
        self.conn_id = conn_id
        super().__init__(f"connection {conn_id}: {problem}. {remedy}")


class PackageMissing(Terminal):
    """What the job uses needs a package that is not installed where this runs."""

    def __init__(self, package: str, *, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"the package {package} is not installed here. Nothing was sent. Install it with "
            f"`pip install 'nightbatch[{extra}]'` wherever Airflow runs: workers, triggerer, Dag processor."
        )


class BadSource(Terminal):
    """The source is not what the job says: a file or query is missing, unreadable, or lacks a column."""

    def __init__(self, source: str, *, problem: str, remedy: str) -> None:
        self.source = source
        super().__init__(f"source {source}: {problem}. {remedy}")


class BadSink(Terminal):
    """The sink does not take the answers: rights, a column of another type, another job's table."""

    def __init__(self, sink: str, *, problem: str, remedy: str) -> None:
        self.sink = sink
        super().__init__(f"sink {sink}: {problem}. {remedy}")


class RequestTooLarge(Terminal):
    """One rendered request alone is over the lane's limit, so no shard can hold it."""

    def __init__(self, custom_id: str, *, size_bytes: int, max_bytes: int) -> None:
        self.custom_id, self.size_bytes, self.max_bytes = custom_id, size_bytes, max_bytes
        super().__init__(
            f"request {custom_id} is {size_bytes:,} bytes; this lane takes at most {max_bytes:,} bytes in a whole "
            "shard. Shorten the prompt template or the column it uses."
        )


class RequestRefused(Terminal):
    """The vendor refused a create for good; nothing was created."""

    def __init__(self, provider: str, *, code: str, message: str) -> None:
        self.provider, self.code = provider, code
        super().__init__(
            f"{provider} refused the batch ({code}): {message}. Nothing was billed. The rows stay pending; correct the "
            "job file (model, parameters or schema), then run the window again."
        )


class AccountTrouble(Terminal):
    """The key, credit or permissions of the account stop all sending; every unsent row stays pending."""

    def __init__(self, provider: str, *, code: str, message: str) -> None:
        self.provider, self.code = provider, code
        super().__init__(
            f"the account at {provider} cannot be used ({code}): {message}. Nothing more is sent and every row is kept "
            "pending. Mend the key or the credit, then clear the run, or run the window again."
        )


class AccountChanged(Terminal):
    """The key of a connection belongs to another account by now than the one that something was sent under."""

    def __init__(self, provider: str, connection: str, *, what: str, sent_under: str, found: str) -> None:
        self.provider, self.connection, self.what = provider, connection, what
        self.sent_under, self.found = sent_under, found
        super().__init__(
            f"connection {connection} reaches account {found} at {provider} now, and {what} was sent under account "
            f"{sent_under}, which alone can see it. It is not given up and not sent again. Put a key of account "
            f"{sent_under} into the connection, then clear the run, or run the window again."
        )


class BudgetExceeded(Terminal):
    """
    Sending this shard could cost more than a budget leaves, whatever other shards give back.

    `use` says how the budget stands; `new_on` is the first day of its next period, None where the period does not
    matter.
    """

    def __init__(self, key: str, *, use: str, budget_usd: Decimal, needed_usd: Decimal, new_on: date | None) -> None:
        self.key, self.use, self.budget_usd, self.needed_usd, self.new_on = key, use, budget_usd, needed_usd, new_on
        when = f"from {new_on} on, or" if new_on else "which has a budget of its own; or"
        remedy = f"They go with the job's next run, {when} raise {key} and run the window again"
        if needed_usd > budget_usd:
            remedy = f"No such budget is ever enough for it: raise {key}, or lower max_output_tokens or shard.max_rows"
        super().__init__(f"{use}. This shard was not sent and its rows are pending. {remedy}.")


class QueueTooSmall(Terminal):
    """A shard is more than may ever wait in the vendor's queue, so it would wait for ever."""

    def __init__(self, shard: str, *, queue: str, needed: int, most: int, unit: str) -> None:
        self.shard, self.queue, self.needed, self.most, self.unit = shard, queue, needed, most, unit
        super().__init__(
            f"shard {shard} would hold {needed:,} {unit} in the queue of {queue}, where at most {most:,} may wait. It "
            "was not sent; its rows are pending, and the next plan packs them into smaller shards: run the window "
            "again. If the vendor allows more, raise `queue` in the connection's extra."
        )


class PlanChanged(Terminal):
    """What would be sent is not what was sealed."""

    def __init__(self, name: str, *, sealed: str, found: str) -> None:
        self.name, self.sealed, self.found = name, sealed, found
        super().__init__(
            f"{name} has SHA-256 {found[:12]}…, the sealed plan says {sealed[:12]}…. It was not sent. Somebody changed "
            "the staging folder; run the window again with force to make a new plan."
        )


class BatchVanished(Terminal):
    """The vendor no longer knows a batch that was created, and may have billed it."""

    def __init__(self, provider: str, batch_id: str, *, since: datetime) -> None:
        self.provider, self.batch_id = provider, batch_id
        super().__init__(
            f"{provider} has not known batch {batch_id} since {since:%Y-%m-%d %H:%M} UTC. It may have been billed, so "
            "it is not sent again on its own. Ask the vendor, or send its rows again: run the window with force."
        )


class StagingRemoved(Terminal):
    """A run is looked at again whose files were removed after the job's retention."""

    def __init__(self, run_id: str, *, state: str, since: datetime) -> None:
        self.run_id, self.state, self.since = run_id, state, since
        super().__init__(
            f"run {run_id} ended {state}, and its files were removed from the staging folder on {since:%Y-%m-%d %H:%M} "
            "UTC, after the job's retention. Nothing was read, sent or paid. Its answers are in the sink and its books "
            "in the ledger. To ask about the window again, and to pay for what changed, run it with force."
        )


class LedgerMismatch(Terminal):
    """The ledger's tables are not for this version of the library."""

    def __init__(self, *, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(
            f"the ledger's tables are at version {found}; nightbatch {__version__} works with {expected}, and not with "
            "these. Nothing was changed, and what is under way stays as it is. Install the newest nightbatch that runs "
            "on this ledger here too; for older tables, `nightbatch migrate`."
        )


class LedgerInUse(Terminal):
    """The ledger's tables cannot be upgraded now, since runs are open that an older library could not go on with."""

    def __init__(self, *, found: str, expected: str, open_runs: int) -> None:
        self.found, self.expected, self.open_runs = found, expected, open_runs
        super().__init__(
            f"the ledger's tables are at version {found} and have to become {expected}, beside which an older "
            f"nightbatch cannot go on, and {open_runs:,} runs are open. Nothing was changed. Let them end with the "
            "older version, then run `nightbatch migrate`; or stop everything older and run "
            "`nightbatch migrate --anyway`: the runs go on with this version."
        )


class PlanUnreadable(Terminal):
    """A run's plan was sealed by a version of the library that says things this one does not understand."""

    def __init__(self, run_id: str, *, sealed_by: str, problem: str) -> None:
        self.run_id, self.sealed_by = run_id, sealed_by
        super().__init__(
            f"run {run_id} was sealed by nightbatch {sealed_by}, and this is {__version__}: {problem}. Nothing "
            "was sent, loaded or lost; its rows wait where they are. Upgrade nightbatch where this ran (worker, "
            "triggerer or command line) and clear the task with downstream."
        )


class NothingToRetry(Terminal):
    """No dead letter of the reasons that were asked for can be sent again."""

    def __init__(self, run_id: str, *, problem: str, remedy: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id}: {problem}. Nothing was sent. {remedy}")


class RunIncomplete(Terminal):
    """The run adds up, and some rows are pending or still with the vendor."""

    def __init__(self, run_id: str, *, pending: int, reasons: str, why: Sequence[str] = ()) -> None:
        self.run_id, self.pending, self.reasons, self.why = run_id, pending, reasons, tuple(why)
        told = "".join(f" Why: {problem}" for problem in self.why)
        super().__init__(
            f"run {run_id} is incomplete: {pending:,} rows are pending ({reasons}). All else is loaded and nothing is "
            f"lost. Clear the run, or run the window again, to go on; the job's next run takes these rows first.{told}"
        )


class RunHeldBack(RunIncomplete):
    """The quality gate stopped the run: what came back is collected, and waits for a person."""

    def __init__(self, run_id: str, *, held_back: int, loaded: int, breaches: Sequence[str]) -> None:
        self.run_id, self.pending, self.why = run_id, held_back, tuple(breaches)
        self.held_back = held_back
        more = f"; and {len(self.why) - 3:,} more" if len(self.why) > 3 else ""
        Terminal.__init__(
            self,
            f"run {run_id} waits for a person: the quality gate stopped it. {'; '.join(self.why[:3])}{more}. "
            f"{held_back:,} rows that came back are kept and not loaded, {loaded:,} answers were loaded before, and "
            f"nothing more is sent. `nightbatch release {run_id} --look` shows examples; then type `nightbatch release "
            f"{run_id}`, or the same with --discard, and run the window again or clear it. Nothing is paid twice.",
        )


class RunUnloaded(RunIncomplete):
    """Answers came back, and the sink did not take them."""

    def __init__(self, run_id: str, *, unloaded: int, why: Sequence[str] = ()) -> None:
        self.run_id, self.pending, self.why = run_id, unloaded, tuple(why)
        told = "".join(f" Why: {problem}" for problem in self.why)
        Terminal.__init__(
            self,
            f"run {run_id} stays open: {unloaded:,} rows came back, are paid and kept, and are not loaded. Mend the "
            f"cause, then clear the run or run the window again: it loads them, and nothing is paid twice.{told}",
        )


class RunFailed(Terminal):
    """The run broke a limit that the job sets, for example its share of dead letters."""

    def __init__(self, run_id: str, *, problem: str, remedy: str) -> None:
        self.run_id, self.problem, self.remedy = run_id, problem, remedy
        super().__init__(f"run {run_id}: {problem}. {remedy}")


class RunCancelled(RunFailed):
    """A person cancelled the run before every row was answered."""

    def __init__(self, run_id: str, *, since: datetime, loaded: int, dropped: int, cost_usd: Decimal) -> None:
        self.since, self.loaded, self.dropped = since, loaded, dropped
        super().__init__(
            run_id,
            problem=f"a person cancelled it at {since:%Y-%m-%d %H:%M} UTC. {loaded:,} answers are loaded, for "
            f"{cost_usd:.4f} USD; {dropped:,} rows are dead letters, and nothing sends them on its own",
            remedy=f"To send them after all, as they were rendered: `nightbatch retry {run_id} --reason cancelled`. To "
            "ask them with another prompt: mend it, and run the window with force.",
        )


class RunDiscarded(RunFailed):
    """A person discarded the answers that the quality gate held back."""

    def __init__(self, run_id: str, *, discarded: int, loaded: int, cost_usd: Decimal) -> None:
        self.discarded, self.loaded = discarded, loaded
        super().__init__(
            run_id,
            problem=f"a person discarded what the quality gate held back. {discarded:,} rows are dead letters, and "
            f"{loaded:,} answers are loaded, for {cost_usd:.4f} USD",
            remedy="Mend prompt, schema or model, and run the window with force: it asks these rows anew. `nightbatch "
            f"retry {run_id} --reason discarded` asks the same questions again.",
        )


class DoesNotAddUp(Terminal):
    """The books do not balance: some rows are in no place, or in two, or a file is not what it was."""

    def __init__(self, run_id: str, *, differences: Sequence[str]) -> None:
        self.run_id, self.differences = run_id, tuple(differences)
        told, more = self.differences[:6], len(self.differences) - 6
        rest = f"; and {more:,} more" if more > 0 else ""
        super().__init__(
            f"run {run_id} does not add up: {'; '.join(told)}{rest}. Nothing was deleted. "
            f"Keep the staging folder and the ledger as they are; `nightbatch audit {run_id}` shows all of it."
        )

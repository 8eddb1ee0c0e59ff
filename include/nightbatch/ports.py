"""What nightbatch needs from outside, on one page: nothing here knows a vendor, a database or Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

import pyarrow as pa

from .core.batch import BatchState
from .core.budget import Budget
from .core.experience import Experience, PastEstimate
from .core.gaps import RunSpan
from .core.ids import Label, ShardRef
from .core.metrics import Metric
from .core.money import Cost, Price, Usage
from .core.proof import Link
from .core.queue import Ask, QueueRules
from .core.request import Endpoint, Envelope, Frame, Messages, RequestSpec
from .core.result import Result
from .core.shard import Limits, ShardPlan, ShardState
from .core.window import Window

if TYPE_CHECKING:
    from .job import Job

# --- settings of an installation ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What one installation chooses; every value can be set by an environment variable (see `.env.example`)."""

    ledger_url: str
    staging_uri: str
    staging_connection: str = ""
    poll_from_s: float = 30.0
    poll_to_s: float = 300.0
    send_deadline_s: float = 120.0
    """How long after its intent an attempt may still send; later it must not."""
    request_timeout_s: float = 600.0
    """Hard limit of one create call."""
    listing_lag_s: float = 600.0
    """How long a new batch may be absent from the vendor's listing."""
    queue_wait_s: float = 300.0
    """How long a shard that found the queue full waits before it asks again."""
    tell_again_s: float = 120.0
    """How long a message may be on its way before its sender is taken for dead, and it is sent once more."""
    away_after_s: float = 1800.0
    """How long a vendor may answer nothing before people are told."""
    missing_after_s: float = 3600.0
    """How long after its tick a window may be without a run before it is called missing."""
    part_bytes: int = 32_000_000
    """A source that is read in parts has none smaller than so many bytes, where sizes are known."""
    prices: str = ""
    """A file of prices of one's own, which win over those of the package; empty for none."""
    redact_modules: str = ""
    """The modules, with commas between, whose functions job files may name under `redact.functions`."""
    ui_base_url: str = ""
    """Where the Airflow UI is, for links in messages."""


# --- connections ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connection:
    """A named way to reach something, as Airflow keeps it. `repr` hides the password and the extra."""

    conn_id: str
    conn_type: str
    host: str = ""
    port: int | None = None
    login: str = ""
    password: str = field(default="", repr=False)
    schema: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


Connections = Callable[[str], Connection]
"""Looks a connection up by its id; raises `ConnectionInvalid` where there is none."""


class Clock(Protocol):
    """Time, handed in so that tests own it."""

    def now(self) -> datetime:
        """Give the time, aware, in UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


# --- a deployer's own code -------------------------------------------------------------------------------------


FindSpans = Callable[[str], Iterable[tuple[int, int]]]
"""Gives where in a text something must not leave, as begin and end in characters; for equal texts the same."""


def _no_function(name: str) -> FindSpans:
    raise LookupError(f"there is no function {name}")


# --- store: files between the steps ---------------------------------------------------------------------------


class Store(Protocol):
    """Immutable files below one base URI. A name is a relative path with forward slashes."""

    def uri(self, name: str) -> str:
        """Give the full URI of a file, for people and for XCom."""

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """
        Stream a file in, in bounded memory.

        The file is there, whole, only after the block ended well; when the block raises, nothing appears.
        """

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Stream a file out; seekable, buffered, in bounded memory. Raises FileNotFoundError."""

    def read(self, name: str) -> bytes:
        """Read a small file whole. Raises FileNotFoundError."""

    def write(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write a small file at once; with `if_absent`, say False and change nothing where it exists."""

    def size_bytes(self, name: str) -> int:
        """Tell how large a file is. Raises FileNotFoundError."""

    def exists(self, name: str) -> bool:
        """Say whether the file is there. "Could not read" raises StorageUnavailable; it is never False."""

    def names(self, prefix: str) -> Iterator[str]:
        """List the names of all files below a folder, sorted."""

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where it is not there."""


# --- source and sink ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unreadable:
    """One record that is there and cannot be read; it becomes a dead letter, and the others go on."""

    place: str
    """Where it is, for a person who looks for it: `s3://bucket/in/a.jsonl line 4`."""
    problem: str
    """What is wrong with it, without what it holds."""


@dataclass(frozen=True)
class Chunk:
    """A few hundred records: names of the columns, and a tuple of values a record, in that order."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    unreadable: tuple[Unreadable, ...] = ()


class Source(Protocol):
    """Rows in."""

    def read(self, window: Window) -> Iterator[Chunk]:
        """
        Stream the records of a window, in a stable order, in bounded memory.

        Yields no chunk where there are no records. Raises BadSource where it is not what the job says, or where it is
        so damaged that nobody can say how many records it holds; StorageUnavailable where it cannot be reached.
        """

    @property
    def identity(self) -> str:
        """Name what is read, without secrets, so that a sink that is the same thing is found out."""


@runtime_checkable
class PartedSource(Source, Protocol):
    """A source that several workers can read side by side, a part each."""

    def parts(self, window: Window, *, most: int, least_bytes: int) -> list[dict[str, Any]]:
        """
        Cut what a window reads into at most `most` parts, each told in JSON values.

        Together they hold each record once. No part is smaller than `least_bytes`, where sizes are known. Raises as
        `read` does.
        """

    def read_part(self, window: Window, part: Mapping[str, Any], *, seen: dict[str, bool]) -> Iterator[Chunk]:
        """
        Stream the records of one part, as `read` does those of all.

        Into `seen` goes, at its end, whether any record of the part had a column, for those that another part may
        have; nothing where the part has no records. A column that none had makes the source a BadSource.
        """


@dataclass(frozen=True)
class SinkContext:
    """What a load is about; ordering between runs rests on it."""

    job: str
    run: str
    window: Window
    generation: int


@dataclass(frozen=True)
class MergeCounts:
    """What one keyed merge did, counted inside its transaction."""

    offered: int
    merged: int
    """Inserted, or replaced an older or equal row."""
    newer_kept: int
    """Left alone because the sink holds an answer of a newer window or generation."""


class HeldAnswer(NamedTuple):
    """What a sink says of one answer: enough to find the request behind it, and what it was booked at."""

    key: str
    run: str
    fingerprint: str
    custom_id: str
    cost_usd: Decimal | None


class GivenAnswer(NamedTuple):
    """One field of an answer, and which question got it: enough to compare it with a label."""

    key: str
    value: Any
    """As the column holds it; None where the answer has no such value."""
    prompt_version: str
    model: str
    cost_usd: Decimal | None


class Sink(Protocol):
    """
    Rows out: answers and dead letters, merged by key, ordered by window end, then generation.

    Answer batches have the columns of `ANSWER_SCHEMA`; the sink turns `answer` (JSON text) into typed columns by
    the job's schema. Doing a merge again changes nothing.
    """

    def prepare(self, context: SinkContext) -> None:
        """Create what is absent and check what is there. Raises BadSink, also for a table of another job."""

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """
        Merge the answers of one part (a shard's name) atomically; the same part twice changes nothing.

        In the same step the keys' dead letters of this or an older window and generation are no longer to be seen.
        """

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """
        Write dead letters (`DEAD_SCHEMA`), keyed by run and key; the same part twice changes nothing.

        One whose key has an answer of this or a later window and generation stays out of sight: a round that is
        buried again brings back nothing that was answered meanwhile.
        """

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """
        Stream (key, fingerprint, window end) of every answer in the sink, in chunks.

        Of two with one key the later one stands; a sink of files gives replaced ones too. Empty where there is no sink
        yet.
        """

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """
        Stream the answers of this run, and those whose window and generation are not older, in chunks.

        Every answer that is the latest of its key is given; a sink of files may give replaced ones too. Empty where
        there is no sink yet.
        """

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """
        Stream one field of every answer, in chunks; free text, or an answer without fields, is called `answer`.

        The latest of a key comes first; a sink of files may give replaced ones after it. Empty where there is no sink
        yet. Raises BadSink for a field that the sink has no column of.
        """

    @property
    def identity(self) -> str:
        """Name what is written, without secrets, in the same form as a source's."""


ANSWER_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("answer", pa.string()),
        ("provider", pa.string()),
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("round", pa.int32()),
        ("custom_id", pa.string()),
        ("duplicate_of", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("cost_usd", pa.decimal128(18, 9)),
    ]
)
"""One good answer. `duplicate_of` is the twin's key, or null; a duplicate costs nothing."""

DEAD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("fingerprint", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw_answer", pa.string()),
        ("model", pa.string()),
        ("round", pa.int32()),
        ("custom_id", pa.string()),
        ("duplicate_of", pa.string()),
        ("cost_usd", pa.decimal128(18, 9)),
    ]
)
"""One dead letter: why a record has no answer. `raw_answer` is untrusted text, cut at 20,000 characters."""


# --- provider -------------------------------------------------------------------------------------------------


class Encoder(Protocol):
    """Turns messages into a vendor's requests, and back. Made once for a shard."""

    @property
    def envelope(self) -> Envelope:
        """What stands around custom_id and body in a line of a request file."""

    def frame(self, system: str) -> Frame:
        """
        Give what stands around the JSON string of the user's text in a body; asked once for a system message.

        Canonical, so that equal questions have equal bytes (fingerprints rest on it).
        """

    def decode(self, line: bytes) -> Messages:
        """Read the messages back out of a line."""


@dataclass(frozen=True)
class RawFile:
    """One result file at the vendor, as a stream of its bytes."""

    name: str
    """Safe as a file name: `output`, `error` or `results`."""
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class ListedBatch:
    """A batch in a vendor's listing, whoever made it."""

    state: BatchState
    label: Label | None = None
    """What it says of itself, in our words; None where it says nothing, or the vendor keeps no labels."""


class Provider(Protocol):
    """
    One account of one vendor's batch API. Errors of the vendor's SDK end here.

    Every method may raise ProviderBusy (nothing was created or changed), AccountTrouble, and what it names.
    """

    name: str
    limits: Limits
    endpoints: tuple[Endpoint, ...]
    budget_month_usd: Decimal | None
    """The most that all jobs of the account may spend in a month, as the connection says; None for no limit."""
    found_by: Literal["label", "count"]
    """How a lost batch is found: by its label in the vendor's metadata, or only by its time and number of rows."""
    queue: QueueRules
    """What may wait there: the vendor's defaults, and what the connection says instead."""

    def encoder(self, spec: RequestSpec) -> Encoder:
        """Give what encodes requests of this kind."""

    def account(self) -> str:
        """Name the account as the vendor does, else the connection's declared name; never by the key."""

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Send a request file ahead, streamed; None where the vendor takes requests in the create call."""

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """
        Create the batch: one call, the SDK's retries off, a hard timeout.

        Raises CreateUnclear where the reply was lost (timeout, reset, 5xx), QueueFull and RequestRefused where
        the vendor certainly made nothing (4xx).
        """

    def find(self, label: Label, *, rows: int, since: datetime, until: datetime) -> list[BatchState]:
        """
        Give every batch at the vendor that may be the one with this label, from a *complete* listing.

        `since` and `until` bound its creation. With `found_by == "label"` an item is certainly ours; with
        "count" it is a candidate until a custom_id in its results proves it. Empty means "certainly not listed".
        """

    def listing(self, since: datetime, *, page_rows: int | None = None) -> Iterator[ListedBatch]:
        """
        Stream every batch of the account that was made since then, whoever made it, from a *complete* listing.

        Newest first, where the vendor says so, and each in the state that a poll gives. A page is read when its first
        batch is asked for; it has the vendor's most, or `page_rows`. Memory: a page. Raises ProviderBusy in the middle
        where the listing cannot be read to its end.
        """

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch once. A 404 is the status NOT_FOUND, never an error."""

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream every result file of an ended batch; both output and error file where there are two."""

    def parse(self, line: bytes) -> Result:
        """Read one line of a result file. Raises ValueError for a line that is none."""

    def withdraw(self, file_id: str) -> None:
        """Delete an uploaded request file, so that a create that comes late must fail; absent is fine."""

    def discard(self, batch_id: str | None, *, file_id: str | None, result_files: Sequence[str]) -> None:
        """
        Delete what an attempt that is over left at the vendor: its request file and its result files.

        Where results are part of the batch, the ended batch itself goes. Absent is fine, and doing it again too.
        Only ever called when nothing will be read there any more; a batch that has not ended is never deleted.
        """

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch. Only ever called by a person's deliberate act."""

    def ask(self, body: bytes, *, endpoint: Endpoint) -> Result:
        """Ask one question in real time, at the full price."""

    def batch_url(self, batch_id: str) -> str:
        """Give the page where a person sees this batch at the vendor."""


class Prices(Protocol):
    """What models cost."""

    def price(self, provider: str, model: str, *, at: datetime) -> Price:
        """Give the rates in force at an instant; an unknown one is None, never a guess."""


# --- notifier -------------------------------------------------------------------------------------------------


MessageKind = Literal[
    "at_risk",
    "late",
    "overdue",
    "away",
    "failed",
    "incomplete",
    "account",
    "canary",
    "held_back",
    "cancelled",
    "paid_twice",
    "missing",
    "missing_over",
    "stale",
    "stale_over",
    "over",
    "untold",
    "report",
]
"""What people can be told of; each has an entry in docs/runbook.md."""


@dataclass(frozen=True)
class PastRun:
    """One run as a bar of a plot."""

    day: str
    """The end of its window, in the job's time zone."""
    good: int
    dead: int
    pending: int
    cost_usd: Decimal
    state: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """
    What people are told. None of what they ask at 3 a.m. may be left out: only the last four fields have defaults.

    Every text may quote untrusted words; each notifier escapes for its medium.
    """

    event_id: str
    """The same at every attempt to send, and shown in the message, so that a repeat can be recognised."""
    kind: MessageKind
    title: str
    """In some words, the job first."""
    happened: str
    """What happened, in a sentence."""
    since: str
    """Since when; for a thing without length, when."""
    rows: str
    """How many rows it is about."""
    money: str
    """What was spent, and what may still be."""
    happens_next: str
    """What nightbatch does on its own."""
    to_do: str
    """What a person can do."""
    commands: Sequence[str]
    """The commands that `to_do` means, whole, each to be copied as it is."""
    if_nobody: str
    """What happens if no person does anything."""
    facts: Sequence[tuple[str, str]] = ()
    """Label and value, in reading order: all else that helps."""
    link: str = ""
    """Where to look, in Airflow."""
    thread: str = ""
    """The event id of an earlier message that this one belongs to."""
    history: Sequence[PastRun] = ()
    """The job's last runs, oldest first, to be shown as a plot."""


class Notifier(Protocol):
    """One channel to people."""

    channel: str
    """`mail` or `slack`; together with the event id it names a delivery."""

    def send(self, message: Message) -> None:
        """Deliver, or raise Transient where trying again may help, Terminal where a person must mend something."""


# --- ledger ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run: one job, one window, one generation."""

    run: str
    job: str
    window: Window
    generation: int
    state: Literal["open", "complete", "incomplete", "failed"]
    """`open` until it is settled. Only `open` runs hold their window."""
    started_utc: datetime
    settled_utc: datetime | None = None
    plan: Mapping[str, Any] | None = None
    """What `seal_plan` wrote for round 0; None before."""
    books: Mapping[str, Any] | None = None
    """What settle added up last."""
    staging_removed_utc: datetime | None = None
    """Since when its files in the store are gone, or going: none of them may be read any more."""
    cancelled_utc: datetime | None = None
    """When a person cancelled it: nothing of it is sent any more."""
    cancel_drops: bool = False
    """Whether the rows that it did not get answered become dead letters; else they are pending."""


@dataclass(frozen=True)
class RoundPlan:
    """A sealed round: its shards, and what happened to the rows that did not go into one."""

    run: str
    round: int
    shards: tuple[ShardPlan, ...]
    facts: Mapping[str, Any]
    """Round 0: counts of prepare, the job's copy and hashes. Later rounds: rows by fate and reason, file names."""


@dataclass(frozen=True)
class PendingFile:
    """Rows that wait for the job's next run: a Parquet file in the store (see `steps/retry.py`)."""

    run: str
    name: str
    rows: int


@dataclass(frozen=True)
class CostLine:
    """What was billed on one day for one job, lane and prompt."""

    day: date
    job: str
    provider: str
    model: str
    connection: str
    mode: str
    """`batch`: with provider, model and connection it makes the lane."""
    prompt_version: str
    rows: int
    cost: Cost


@dataclass(frozen=True)
class Gate:
    """Where a run waits for a person, or was let through."""

    run: str
    kind: str
    """`canary` or `quality`."""
    state: Literal["passed", "stopped", "released", "discarded"]
    facts: Mapping[str, Any]
    """The figures it was decided by."""
    decided_by: str
    """Who released or discarded it; empty where nightbatch decided."""
    decided_utc: datetime


@dataclass(frozen=True)
class Event:
    """Something that people are to be told, or that counts for it."""

    event_id: str
    kind: str
    run: str
    """The run, or another subject, that it is about."""
    payload: Mapping[str, Any]
    """A whole `Message` as JSON, or what was counted."""
    recorded_utc: datetime


@dataclass(frozen=True)
class Attempt:
    """One try to get one shard answered: an intent, and what became of it."""

    attempt_id: int
    ref: ShardRef
    number: int
    """1 for the first."""
    state: Literal["intent", "sending", "open", "ended", "absent", "refused", "lost", "double"]
    """
    `absent`: proved not to exist. `refused`: the vendor made nothing. `lost`: vanished, or disowned. `double`: made
    all the same, after its shard had been sent again; its cost is not booked yet.
    """
    provider: str
    account: str
    content_sha256: str
    rows: int
    intent_utc: datetime
    send_deadline_utc: datetime
    certain_utc: datetime
    """Its distance from `intent_utc` is how long a lost batch must be looked for before its absence is certain."""
    reserved_usd: Decimal
    file_id: str | None = None
    batch_id: str | None = None
    created_utc: datetime | None = None
    last_seen_utc: datetime | None = None
    vendor_status: str = ""
    turned_up_utc: datetime | None = None
    """When its batch turned up after it had been thought absent; its worst case was reserved again then."""
    vendor_usage: Usage | None = None
    """What the vendor said that the whole batch used, when it had ended; None where it said nothing."""
    gone_since_utc: datetime | None = None
    """Since when the vendor has answered 404 at every look; None while it knows the batch."""
    ended_utc: datetime | None = None
    """When it was over for us: its results were stored, or it was given up; None before."""
    queued_utc: datetime | None = field(default=None, compare=False)
    """Since when its shard asked for a place in the queue; only what `begin` gives says so."""
    result_files: tuple[str, ...] = ()
    """The result files, in the vendor's names, once the batch was seen to have them."""
    vendor_files_deleted_utc: datetime | None = None
    """When all that it left at the vendor was deleted."""


@dataclass(frozen=True)
class Shard:
    """A shard as the ledger sees it now."""

    plan: ShardPlan
    state: ShardState
    attempts: int
    """How many attempts were begun."""
    current: Attempt | None
    """The attempt under way or the one that was collected; None before the first and after a refused one."""
    not_before_utc: datetime | None = None
    raw_names: tuple[str, ...] = ()
    raw_sha256s: tuple[str, ...] = ()
    verdicts_name: str = ""
    verdicts_sha256: str = ""
    """Empty for shards that were collected before it was kept; so are the rates."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Rows by verdict kind and reason, once collected: `good`, `again:expired`, …"""
    cost: Cost = Cost()
    rates: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The rates that the cost was booked at (`Rate.as_json`): `batch` and `realtime`."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """What its good answers look like, in counts (`core.profile.Profile`); empty where an older version judged them."""
    merged: int = 0
    held_reason: str = ""
    waits_for: str = ""
    """Which budget a sealed shard waits for, in words; empty for none."""
    taken_by_round: int | None = None
    """The round that took up this shard's rows that were not good."""
    problem: str = ""
    """What keeps it from going on, for a person to mend; empty while nothing does."""


@dataclass(frozen=True)
class Intent:
    """What an attempt is about to do."""

    ref: ShardRef
    expected_attempts: int
    """How many attempts the caller saw; another number by now means that somebody else was here."""
    provider: str
    account: str
    reserve_usd: Decimal
    day: date
    """The day that the charge belongs to: today in the job's time zone."""
    send_for: timedelta
    certain_after: timedelta
    """Counted from the send deadline: request timeout plus the vendor's listing lag."""
    distinct_rows: bool
    """Vendors without labels: no two unresolved intents of an account may have the same number of rows."""
    budgets: tuple[Budget, ...] = ()
    """What the reserve must fit, all of them."""
    ask: Ask | None = None
    """How it asks for a place in the vendor's queue; None for a shard that needs none."""


@dataclass(frozen=True)
class QueuedShard:
    """A shard that waits for a place in a vendor's queue."""

    ref: ShardRef
    provider: str
    account: str
    model: str
    job: str
    priority: int
    tokens: int
    rows: int
    since_utc: datetime
    seen_utc: datetime
    """When it last asked."""
    reason: str
    """What it was told then: who is ahead, and how full the queue is."""


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


# --- telemetry ------------------------------------------------------------------------------------------------


class Telemetry(Protocol):
    """Where figures and spans go. Nothing waits for it, and nothing fails because of it."""

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Tell one figure; seconds for a timer."""

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Mapping[str, str | int | float]) -> None:
        """Tell what is over, as a span; part of what is being done now."""

    def doing(self, name: str, attributes: Mapping[str, str | int | float]) -> AbstractContextManager[None]:
        """Open a span around what is being done; an error that leaves it is named in it by its class alone."""


class NoTelemetry:
    """Tells nobody: the default, which costs nothing."""

    def emit(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Pass over a figure."""

    def span(self, name: str, *, start: datetime, end: datetime, attributes: Mapping[str, str | int | float]) -> None:
        """Pass over a span."""

    def doing(self, name: str, attributes: Mapping[str, str | int | float]) -> AbstractContextManager[None]:
        """Do it without a span."""
        return nullcontext()


# --- all of them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ports:
    """What a step is handed. Built by `adapters/registry.py`, or by a test from memory adapters."""

    settings: Settings
    clock: Clock
    store: Store
    ledger: Ledger
    prices: Prices
    provider: Callable[[str, str], Provider]
    """(provider name, connection id) -> provider; loads the SDK when called."""
    source: Callable[[], Source]
    sink: Callable[[Job], Sink]
    """The sink of a job as it was sealed, which an edited job file may no longer name."""
    notifiers: Callable[[], Sequence[Notifier]] = tuple
    function: Callable[[str], FindSpans] = _no_function
    """A deployer's function that finds what must not leave, by its dotted name; raises JobInvalid."""
    telemetry: Telemetry = NoTelemetry()

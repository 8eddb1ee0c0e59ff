"""What the ledger gives and takes: runs, plans, attempts, shards, and what waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from nightbatch.core.budget import Budget
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Cost, Usage
from nightbatch.core.queue import Ask
from nightbatch.core.shard import ShardPlan, ShardState
from nightbatch.core.window import Window


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

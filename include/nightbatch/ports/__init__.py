"""What nightbatch needs from outside, a module a port: nothing here knows a vendor, a database or Airflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .clock import Clock
from .function import FindSpans, no_function
from .ledger import Ledger
from .ledger_rows import Attempt, CostLine, Event, Gate, Intent, PendingFile, QueuedShard, RoundPlan, Run, Shard
from .notifier import Message, MessageKind, Notifier, PastRun
from .provider import Encoder, ListedBatch, Prices, Provider, RawFile
from .settings import Connection, Connections, Settings
from .sink import ANSWER_SCHEMA, DEAD_SCHEMA, GivenAnswer, HeldAnswer, MergeCounts, Sink, SinkContext
from .source import Chunk, PartedSource, Source, Unreadable
from .store import Store
from .telemetry import NoTelemetry, Telemetry

if TYPE_CHECKING:
    from nightbatch.job import Job

__all__ = [
    "ANSWER_SCHEMA",
    "DEAD_SCHEMA",
    "Attempt",
    "Chunk",
    "Clock",
    "Connection",
    "Connections",
    "CostLine",
    "Encoder",
    "Event",
    "FindSpans",
    "Gate",
    "GivenAnswer",
    "HeldAnswer",
    "Intent",
    "Ledger",
    "ListedBatch",
    "MergeCounts",
    "Message",
    "MessageKind",
    "NoTelemetry",
    "Notifier",
    "PartedSource",
    "PastRun",
    "PendingFile",
    "Ports",
    "Prices",
    "Provider",
    "QueuedShard",
    "RawFile",
    "RoundPlan",
    "Run",
    "Settings",
    "Shard",
    "Sink",
    "SinkContext",
    "Source",
    "Store",
    "Telemetry",
    "Unreadable",
]


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
    function: Callable[[str], FindSpans] = no_function
    """A deployer's function that finds what must not leave, by its dotted name; raises JobInvalid."""
    telemetry: Telemetry = NoTelemetry()

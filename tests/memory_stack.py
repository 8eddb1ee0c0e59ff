"""A whole night in memory: every port from the shipped memory adapters, for tests of steps and flow."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

import sqlalchemy as sa

from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_sql import SqlLedger
from nightbatch.adapters.ledger_tables import meta
from nightbatch.adapters.memory import FixedClock, MemoryNotifier, MemorySink, MemorySource, MemoryStore, StaticPrices
from nightbatch.adapters.memory_vendor import MemoryProvider, MemoryVendor
from nightbatch.core.money import Price, Rate
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Chunk, Ports, Settings

NIGHT = Window(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
NEXT_NIGHT = Window(datetime(2026, 11, 21, tzinfo=UTC), datetime(2026, 11, 22, tzinfo=UTC))
RATE = Rate(Decimal("0.5"), Decimal(2), Decimal("0.05"), Decimal("0.5"), "test prices")
REALTIME = Rate(Decimal(1), Decimal(4), Decimal("0.1"), Decimal(1), "test prices")


def job_of(**changes: Any) -> Job:
    """Make a small job; `changes` replace its keys."""
    values: dict[str, Any] = {
        "name": "reviews",
        "source": {"files": "memory/records.jsonl", "key": "id"},
        "prompt": {"user": "{{ text }}"},
        "models": [{"provider": "openai", "model": "echo-1", "connection": "c", "max_output_tokens": 100}],
        "sink": {"files": "memory/answers"},
        "rounds": 2,
        "shard": {"max_rows": 3},
        "max_dead_share": 1.0,
    }
    return Job.model_validate({**values, **changes})


def memory_ledger() -> SqlLedger:
    """
    Make a ledger in memory: a copy of one that was migrated once, with a name of its own.

    Tests that die at every call make hundreds; a migration, and every statement compiled anew, would be most of their
    time.
    """
    ledger, template = SqlLedger(_copied_database()), _migrated()
    assert ledger.ledger_id == template.ledger_id
    ledger.ledger_id = uuid.uuid4().hex
    with ledger._database.write() as connection:
        connection.execute(sa.update(meta).where(meta.c.name == "ledger_id").values(value=ledger.ledger_id))
    return ledger


COMPILED: dict[Any, Any] = {}
"""Statements as SQL, shared by all ledgers in memory."""


@cache
def _migrated() -> SqlLedger:
    return SqlLedger.open_or_migrate("sqlite://")


def _copied_database() -> Database:
    database = Database("sqlite://")
    with _migrated()._database.engine.connect() as source, database.engine.connect() as target:
        source.connection.driver_connection.backup(target.connection.driver_connection)
    database.engine = database.engine.execution_options(compiled_cache=COMPILED)
    return database


@dataclass
class Stack:
    """One installation in memory. `ports()` may be called again, as a new process would."""

    records: list[tuple[str, str]]
    clock: FixedClock = field(default_factory=lambda: FixedClock(datetime(2026, 11, 21, 2, tzinfo=UTC)))
    store: MemoryStore = field(default_factory=MemoryStore)
    sink: MemorySink = field(default_factory=MemorySink)
    notifier: MemoryNotifier = field(default_factory=MemoryNotifier)
    found_by: Any = "label"

    def __post_init__(self) -> None:
        self.ledger = memory_ledger()
        self.vendor = MemoryVendor(self.clock)
        self.provider = MemoryProvider(self.vendor, found_by=self.found_by)
        self.reads = 0

    def ports(self, **changes: Any) -> Ports:
        """Give the ports; `changes` replace single ones."""
        settings = Settings("sqlite://", "memory://", poll_from_s=5, poll_to_s=60)
        given: dict[str, Any] = {
            "settings": settings,
            "clock": self.clock,
            "store": self.store,
            "ledger": self.ledger,
            "prices": StaticPrices(
                {("openai", "echo-1"): Price(RATE, REALTIME), ("openai", "big-1"): Price(RATE, REALTIME)}
            ),
            "provider": lambda _name, _connection: self.provider,
            "source": self._source,
            "sink": lambda _job: self.sink,
            "notifiers": lambda: (self.notifier,),
        }
        return Ports(**{**given, **changes})

    def _source(self) -> MemorySource:
        self.reads += 1
        return MemorySource([Chunk(("id", "text"), list(self.records))] if self.records else [])

    def answers(self) -> dict[str, str]:
        """Give what the sink holds: key -> answer."""
        return {key: row["answer"] for key, row in self.sink.answers.items()}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass
class KillAt:
    """Wraps an object; its nth call of any method dies, before or after the call was carried out."""

    inner: Any
    nth: int
    when: str
    calls: int = 0
    names: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value
        return self._counted(name, value)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            self.names.append(name)
            if self.calls == self.nth and self.when == "before":
                raise Killed(name)
            result = call(*args, **kwargs)
            if self.calls == self.nth and self.when == "after":
                raise Killed(name)
            return result

        return counted


def later(stack: Stack, **span: float) -> None:
    """Let time pass."""
    stack.clock.advance(timedelta(**span))

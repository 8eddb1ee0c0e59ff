"""Every death of a process, from one life: copies of all that outlives it, taken around each call of a port."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from nightbatch.adapters.clock import FixedClock
from nightbatch.adapters.ledger_engine import Database
from nightbatch.adapters.ledger_sql import SqlLedger
from tests.memory_stack import COMPILED, Stack


@dataclass(frozen=True)
class Remains:
    """What outlives a process: the ledger as bytes, and the rest as copies."""

    ledger: bytes
    store: dict[str, bytes]
    sink: dict[str, Any]
    vendor: dict[str, Any]
    messages: list[Any]
    clock: FixedClock

    @classmethod
    def of(cls, stack: Stack) -> Remains:
        """Copy an installation."""
        vendor = {name: copy.deepcopy(getattr(stack.vendor, name)) for name in ("batches", "billed", "discarded")}
        sink = {name: copy.deepcopy(getattr(stack.sink, name)) for name in ("job", "answers", "dead")}
        messages, clock = list(stack.notifier.messages), copy.copy(stack.clock)
        return cls(_serialized(stack.ledger), dict(stack.store.files), sink, vendor, messages, clock)

    def differs_from(self, other: Remains) -> bool:
        """Say whether anything but the time has changed."""
        return replace(self, clock=other.clock) != other

    def stack(self, like: Stack) -> Stack:
        """Make an installation of it, whose vendor behaves as that of another."""
        made = copy.copy(like)
        made.clock = copy.copy(self.clock)
        made.ledger = _deserialized(like.ledger, self.ledger)
        made.store, made.sink, made.notifier = (type(each)() for each in (like.store, like.sink, like.notifier))
        made.store.files.update(self.store)
        vars(made.sink).update(copy.deepcopy(self.sink))
        made.notifier.messages.extend(self.messages)
        made.vendor = replace(like.vendor, clock=made.clock, **copy.deepcopy(self.vendor))
        made.provider = replace(like.provider, vendor=made.vendor)
        return made


class Deaths:
    """
    Watches one life of an installation; iterating gives each moment's name and the installation as it stood then.

    A process that is killed leaves what its calls of ports have done so far, and nothing that it knew: no `finally`
    of it runs. Moments between which nothing changed are one. `ports()` gives the watched ports, for `Stack.ports`.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._moments = [("before anything", Remains.of(stack))]

    def ports(self) -> dict[str, Any]:
        """Watch ledger, store, provider, sink and notifiers."""
        stack = self._stack
        provider, sink, notifier = (self.watched(one) for one in (stack.provider, stack.sink, stack.notifier))
        return {
            "ledger": self.watched(stack.ledger),
            "store": self.watched(stack.store),
            "provider": lambda *_: provider,
            "sink": lambda _job: sink,
            "notifiers": lambda: (notifier,),
        }

    def begin_here(self) -> None:
        """Forget the moments so far."""
        self._moments = [("before anything", Remains.of(self._stack))]

    def watched(self, port: Any) -> Any:
        """Give a port around whose calls is looked."""
        return _Watched(port, self._look)

    def _look(self, moment: str) -> None:
        now = Remains.of(self._stack)
        if now.differs_from(self._moments[-1][1]):
            self._moments.append((moment, now))

    def __iter__(self) -> Iterator[tuple[str, Stack]]:
        for number, (moment, remains) in enumerate(self._moments):
            yield f"moment {number} of {len(self._moments)}: {moment}", remains.stack(self._stack)

    def __len__(self) -> int:
        return len(self._moments)


@dataclass
class _Watched:
    _inner: Any
    _look: Callable[[str], None]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def looked_at(*args: Any, **kwargs: Any) -> Any:
            where = f"{type(self._inner).__name__}.{name}"
            self._look(f"before {where}")
            try:
                return value(*args, **kwargs)
            finally:
                self._look(f"after {where}")

        return looked_at


def _serialized(ledger: SqlLedger) -> bytes:
    with ledger._database.engine.connect() as connection:
        return bytes(connection.connection.driver_connection.serialize())


def _deserialized(like: SqlLedger, content: bytes) -> SqlLedger:
    database = Database("sqlite://")
    with database.engine.connect() as connection:
        connection.connection.driver_connection.deserialize(content)
    database.engine = database.engine.execution_options(compiled_cache=COMPILED)
    ledger = copy.copy(like)
    ledger._database = database
    return ledger

"""The looks of a triggerer: all triggers that wait at one connection share them, so that many batches are one call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from datetime import datetime
from typing import NamedTuple

from nightbatch.adapters.registry import open_provider
from nightbatch.core.batch import BatchState
from nightbatch.errors import NightbatchError, Transient
from nightbatch.logs import about
from nightbatch.ports import Connections
from nightbatch.steps.look import look_by_list

from .connections import airflow_connections

log = logging.getLogger(__name__)

MANY = 20
"""Where more wait at a connection, looks wait for company: of fewer, hardly two are due at the same time."""
FEW = 3
"""So few that came together are polled one by one: a page of a listing takes the CPU of two polls."""
LIST_AGAIN_S = 600.0
"""How long batches are polled one by one after a listing that could not be read."""


class _Ask(NamedTuple):
    """One trigger that wants to know of its batch; told None, it polls alone."""

    batch_id: str
    created: datetime
    answer: asyncio.Future[BatchState | Transient | None]


class Looks:
    """
    Looks at the batches of one connection, in one event loop.

    It looks when a trigger asks and never by itself, so that no batch is looked at more often than its trigger says.
    The connection is read for each look: a key that was changed is used from then on.
    """

    def __init__(self, provider: str, connection: str, *, request_timeout_s: float) -> None:
        self._provider, self._connection, self._request_timeout_s = provider, connection, request_timeout_s
        self._loop = asyncio.get_running_loop()
        self._asks: list[_Ask] = []
        self._timer: asyncio.TimerHandle | None = None
        self._walk: asyncio.Task[None] | None = None
        self._list_from = 0.0
        self.waiting = 0
        """How many triggers wait at this connection."""

    async def look(self, batch_id: str, *, created: datetime, patience_s: float) -> BatchState:
        """
        Look at a batch: by the listing, where that is cheaper, with others whose turn comes within `patience_s`.

        Raises what a poll raises. A listing that failed is a look that failed, of each whose turn it was; only where
        the listing alone is refused are they polled at once.
        """
        if self.waiting > MANY and self._loop.time() >= self._list_from:
            told = await self._with_others(batch_id, created, patience_s)
            if isinstance(told, Transient):
                raise told
            if told is not None:
                return told
        connections = await airflow_connections([self._connection])
        return await asyncio.to_thread(self._poll, connections, batch_id)

    def close(self) -> None:
        """Forget what nobody waits for any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._walk is not None:
            self._walk.cancel()

    async def _with_others(self, batch_id: str, created: datetime, patience_s: float) -> BatchState | Transient | None:
        ask = _Ask(batch_id, created, self._loop.create_future())
        self._asks.append(ask)
        when = self._loop.time() + patience_s
        if self._timer is None or when < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            # In a context of its own, as the walk: neither is part of the trigger that happened to ask first.
            self._timer = self._loop.call_at(when, self._begin, context=Context())
        return await ask.answer

    def _begin(self) -> None:
        """Begin a walk for all who asked, one walk at a time: a vendor that hangs must not take every thread."""
        self._timer = None
        if self._walk is not None:
            return
        asks = [ask for ask in self._asks if not ask.answer.done()]
        self._asks = []
        if len(asks) <= FEW:
            _tell(asks, {}, otherwise=None)
        else:
            self._walk = self._loop.create_task(self._answer(asks), context=Context())

    async def _answer(self, asks: list[_Ask]) -> None:
        found: Mapping[str, BatchState] = {}
        failure: Transient | None = None
        try:
            connections = await airflow_connections([self._connection])
            wanted = {ask.batch_id: ask.created for ask in asks}
            found = await asyncio.to_thread(self._look_by_list, connections, wanted)
        except Exception as error:
            self._list_from = self._loop.time() + LIST_AGAIN_S
            failure = error if isinstance(error, Transient) else None
            is_ours = isinstance(error, NightbatchError)
            told = "batches at connection %s are polled one by one for %.0f s: listing them failed, %s"
            what = error if is_ours else type(error).__name__
            log.warning(told, self._connection, LIST_AGAIN_S, what, exc_info=not is_ours)
        finally:
            self._walk = None
            _tell(asks, found, otherwise=failure)
            if self._asks and self._timer is None:
                self._begin()

    def _look_by_list(self, connections: Connections, wanted: Mapping[str, datetime]) -> dict[str, BatchState]:
        with about(connection=self._connection):
            provider = open_provider(
                self._provider, connections(self._connection), request_timeout_s=self._request_timeout_s
            )
            return look_by_list(provider, wanted)

    def _poll(self, connections: Connections, batch_id: str) -> BatchState:
        with about(batch=batch_id):
            provider = open_provider(
                self._provider, connections(self._connection), request_timeout_s=self._request_timeout_s
            )
            return provider.poll(batch_id)


def _tell(asks: list[_Ask], found: Mapping[str, BatchState], *, otherwise: Transient | None) -> None:
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_result(found.get(ask.batch_id, otherwise))


_shared: dict[tuple[asyncio.AbstractEventLoop, str, str, float], Looks] = {}
"""The looks that somebody waits for; never those of another loop, provider or connection."""


@contextmanager
def shared_looks(provider: str, connection: str, *, request_timeout_s: float) -> Iterator[Looks]:
    """Wait at a connection together with the others of this event loop; the last one to go leaves nothing behind."""
    key = (asyncio.get_running_loop(), provider, connection, request_timeout_s)
    looks = _shared.get(key) or Looks(provider, connection, request_timeout_s=request_timeout_s)
    _shared[key] = looks
    looks.waiting += 1
    try:
        yield looks
    finally:
        looks.waiting -= 1
        if not looks.waiting:
            looks.close()
            del _shared[key]

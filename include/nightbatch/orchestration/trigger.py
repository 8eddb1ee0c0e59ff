"""The trigger: waits for a batch in the triggerer, so that no worker is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from nightbatch import __version__
from nightbatch.core.batch import BatchStatus, Next, decide
from nightbatch.errors import NightbatchError, Transient
from nightbatch.ports import Settings
from nightbatch.steps.wait import next_poll

from .ages import tell_failed_look, watching
from .looks import Looks, shared_looks
from .versions import triggerer_problem

FIRST_LOOK_S = 8.0
"""
No trigger fires sooner after its task deferred.

Airflow 3.3.2 fails a task whose trigger fires before the scheduler has seen it deferred: 4 of 60 at once, 0 of 60
after 8 s (measured 2026-11).
"""

MAX_FAILED_LOOKS = 20
"""
So many failing polls in a row wake the task, whose log then tells why.

It wakes sooner where people are to be told that the vendor does not answer, and, once it has counted that, as soon as
a look works: what tells people is the task, which has the ledger.
"""


PATIENCE = 0.1
"""The part of its pause that a look may come later, so that others are due with it; never sooner."""

AWAY_AFTER_S = 1800.0
"""After so many seconds of looks that failed the task is woken to tell people, where it does not say otherwise."""


class ShardTrigger(BaseTrigger):
    """
    Fires when a batch has ended, or when a time has come.

    It decides nothing and writes nothing: whoever wakes up looks again, and notes when this one last saw the batch.
    The task that made it may be of a version before or after the triggerer's: arguments are only ever added, those that
    are not known are kept and passed over, and where it cannot watch it fires when the task would look again.
    It never cancels a batch: clearing a task, marking it, or killing the triggerer leaves the vendor alone, so
    `on_kill` is left as it is.
    """

    def __init__(  # noqa: PLR0913  all of it must survive being written down
        self,
        *,
        until: str,
        provider: str = "",
        connection: str = "",
        batch_id: str = "",
        created: str = "",
        poll_from_s: float = 30.0,
        poll_to_s: float = 300.0,
        request_timeout_s: float = 60.0,
        away_after_s: float = AWAY_AFTER_S,
        is_away: bool = False,
        about: str = "",
        labels: Mapping[str, str] | None = None,
        version: str = __version__,
        **newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow does not type it
        self.until, self.created = until, created
        self.provider, self.connection, self.batch_id = provider, connection, batch_id
        self.poll_from_s, self.poll_to_s, self.request_timeout_s = poll_from_s, poll_to_s, request_timeout_s
        self.away_after_s = away_after_s
        """How long looks may fail before the task is woken to tell people."""
        self.is_away = is_away
        """Whether the task's own look failed: then it has counted that, and the first look that works wakes it too."""
        self.about = about
        """Job, run and shard, for the log: `job=reviews run=… shard=r0-s003`."""
        self.labels = dict(labels or {})
        """What a monitor is told of the batch by; empty from a task of before there were any."""
        self.version, self.newer = version, newer
        """The version of the task that waits, and what only later versions than this one know."""
        self.last_seen: datetime | None = None
        self.failing_since: datetime | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the path and the arguments to make this trigger again in another triggerer."""
        names = ("until", "provider", "connection", "batch_id", "created", "poll_from_s", "poll_to_s")
        arguments = {name: getattr(self, name) for name in (*names, "request_timeout_s", "about", "version")}
        arguments |= {"labels": self.labels} if self.labels else {}
        arguments |= {"away_after_s": self.away_after_s} if self.away_after_s != AWAY_AFTER_S else {}
        arguments |= {"is_away": True} if self.is_away else {}
        arguments |= self.newer
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and fire once with the reason."""
        if problem := triggerer_problem(self.version):
            self.log.warning("%s [%s]", problem, self.about)
        if self.batch_id:
            reason = await self._watch_batch_or_wait()
            seen, failing = (at.isoformat() if at else "" for at in (self.last_seen, self.failing_since))
            yield _event(reason, batch_id=self.batch_id, seen_utc=seen, failing_since_utc=failing)
        else:
            await self._wait()
            yield _event("the time has come")

    async def _wait(self) -> None:
        pause = (datetime.fromisoformat(self.until) - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(pause, FIRST_LOOK_S))

    async def _watch_batch_or_wait(self) -> str:
        try:
            return await self._watch_batch()
        except Exception as error:
            # A triggerer with the code of before a deploy may lack anything; the task has the code of after it.
            self.log.exception("cannot watch [%s batch=%s]", self.about, self.batch_id)
            await self._wait()
            return f"the triggerer could not watch the batch ({type(error).__name__}), and this task looks itself"

    async def _watch_batch(self) -> str:
        timeout_s = min(self.request_timeout_s, 60.0)
        with (
            watching(self.batch_id, self.labels, datetime.fromisoformat(self.created)) as tell_age,
            shared_looks(self.provider, self.connection, request_timeout_s=timeout_s) as looks,
        ):
            return await self._look_until(looks, tell_age)

    async def _look_until(self, looks: Looks, tell_age: Callable[[datetime], None]) -> str:
        created = datetime.fromisoformat(self.created)
        settings = Settings("", "", poll_from_s=self.poll_from_s, poll_to_s=self.poll_to_s)
        began, failed, is_first = datetime.now(UTC), 0, True
        while True:
            age = datetime.now(UTC) - created
            pause = next_poll(settings, batch_id=self.batch_id, age=age).total_seconds() * 2 ** min(failed, 5)
            pause = max(pause, FIRST_LOOK_S) if is_first else min(pause, max(self.poll_to_s, 1.0))
            await asyncio.sleep(pause)
            is_first = False
            try:
                state = await looks.look(self.batch_id, created=created, patience_s=pause * PATIENCE)
            except Transient as error:
                failed += 1
                tell_failed_look(self.labels, error)
                self.log.warning("look %d failed: %s [%s batch=%s]", failed, error, self.about, self.batch_id)
                self.failing_since = self.failing_since or datetime.now(UTC)
                if self._must_be_told(failed):
                    return f"{failed} looks in a row failed"
                continue
            except NightbatchError as error:
                # Account trouble and the like: the task says it in its own log, where people look.
                tell_failed_look(self.labels, error)
                return str(error)
            failed, self.failing_since = 0, None
            now = datetime.now(UTC)
            tell_age(now)
            if state.status is not BatchStatus.NOT_FOUND:
                self.last_seen = now
            decision = decide(state, now=now, last_seen=self.last_seen or began)
            was_overdue = decide(state, now=began, last_seen=began).overdue_since is not None
            if decision.next is not Next.WAIT or (decision.overdue_since is not None and not was_overdue):
                return decision.reason
            if self.is_away:
                return f"the vendor answers again: {decision.reason}"
            self.log.info("%s [%s batch=%s]", decision.reason, self.about, self.batch_id)

    def _must_be_told(self, failed: int) -> bool:
        since = self.failing_since
        is_long = since is not None and (datetime.now(UTC) - since).total_seconds() >= self.away_after_s
        return failed >= MAX_FAILED_LOOKS or is_long


def _event(reason: str, **more: str) -> TriggerEvent:
    return TriggerEvent({"reason": reason, "triggerer": __version__, **more})  # type: ignore[no-untyped-call]  # Airflow does not type it

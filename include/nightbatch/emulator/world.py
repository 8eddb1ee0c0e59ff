"""One running emulator: its settings, what it holds, the faults in force, and the batches under way."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from nightbatch.emulator import executors
from nightbatch.emulator.answers import Answerer, Kind
from nightbatch.emulator.clock import happens_within, now_s
from nightbatch.emulator.dice import Ids
from nightbatch.emulator.faults import Faults, split
from nightbatch.emulator.rows import Cut, Stopped
from nightbatch.emulator.settings import Account, EmulatorSettings, Vendor
from nightbatch.emulator.store import Batch, Store

Out = TypeVar("Out")


@dataclass(slots=True)
class FaultPlan:
    """The faults that one request meets: the server's, overlaid by those of its header.

    A count such as `http_429=2` is used up: the server's by anybody's requests, a header's by the requests of the
    same workspace that carry exactly the same header.
    """

    faults: Faults
    named: frozenset[str]
    server_source: str
    header_source: str
    used: Counter[tuple[str, str]]

    def take(self, name: str) -> bool:
        """Use one of the times that a fault is to happen; False when there are none left."""
        if not self.left(name):
            return False
        self.used[self._source(name), name] += 1
        return True

    def left(self, name: str) -> int:
        """Return how often a fault is still to happen."""
        times: int = getattr(self.faults, name)
        return max(times - self.used[self._source(name), name], 0) if times else 0

    def _source(self, name: str) -> str:
        return self.header_source if name in self.named else self.server_source


@dataclass(slots=True)
class Requester:
    """Who sends a request, and what is to go wrong with it."""

    account: Account
    plan: FaultPlan


@dataclass
class World:
    """Everything that the routes work on. Its state belongs to the event loop; row execution runs in threads."""

    settings: EmulatorSettings
    store: Store = field(init=False)
    faults: Faults = field(init=False)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Make the folder, and check the executor's name."""
        instance = self.settings.instance or secrets.token_hex(4)
        parent = self.settings.data_dir
        folder = Path(tempfile.mkdtemp(prefix="nightbatch-emulator-")) if parent is None else parent / instance
        folder.mkdir(parents=True, exist_ok=True)
        self.store = Store(folder, Ids(self.settings.seed, instance))
        self.faults = self.settings.faults
        self._revision = 0
        self._used: Counter[tuple[str, str]] = Counter()
        self._executor = executors.named(self.settings)
        self._pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="batch")
        self._tasks: set[asyncio.Task[None]] = set()

    def set_faults(self, faults: Faults) -> None:
        """Put other faults in force; counts start again. Batches keep the faults they were created with."""
        self.faults = faults
        self._revision += 1

    def plan(self, account: Account, vendor: Vendor, header: str) -> FaultPlan:
        """Return the faults for one request; an unknown name raises UnknownFault."""
        named = split(header)
        source, faults = f"{account.scope} {header}", self.faults.but(named)
        if faults.only_vendor not in {"", vendor}:
            faults = Faults()
        return FaultPlan(faults, frozenset(named), str(self._revision), source, self._used)

    def answerer(self, vendor: Vendor, account: Account, faults: Faults) -> Answerer:
        """Return what answers rows of a workspace."""
        share, scope = self.settings.cached_tokens_share, f"{vendor} {account.scope}"
        seed = self.settings.seed
        return Answerer(seed, scope, faults, self._executor, self.store.sightings, share)

    @property
    def concurrency(self) -> int:
        """Return how many rows of a batch are answered at the same time."""
        return self.settings.upstream_concurrency if self.settings.executor == "upstream" else 1

    async def in_thread(self, work: Callable[[], Out]) -> Out:
        """Run blocking work beside the event loop; at most `workers` at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def start(self, life: Coroutine[Any, Any, None]) -> None:
        """Let a batch live its life."""
        task = asyncio.get_running_loop().create_task(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def new_batch(self, vendor: Vendor, requester: Requester, input_path: Path, **more: Any) -> Batch:
        """Make a batch that has its id and number, and its place on the shelf."""
        self.store.creations[vendor] += 1
        number = self.store.creations.total()
        batch = Batch(
            id=self.store.ids.next("batch_" if vendor == "openai" else "msgbatch_"),
            number=number,
            vendor=vendor,
            account=requester.account,
            created_at=now_s(),
            faults=requester.plan.faults,
            input_path=input_path,
            **more,
        )
        self.store.batches.put(batch)
        return batch

    def forget_batch(self, batch: Batch) -> None:
        """Undo a creation that is refused before anybody has heard of it."""
        self.store.batches.remove(batch.id)
        self.store.creations[batch.vendor] -= 1

    def make_late(self, batch: Batch, texts: Mapping[str, Any]) -> None:
        """Give a batch its delay, if it is the one that is to be late."""
        faults = batch.faults
        matches = bool(faults.late_match) and any(faults.late_match in str(text) for text in texts.values())
        if faults.late_batch == batch.number or matches:
            batch.late_seconds = faults.late_seconds

    def is_stuck(self, batch: Batch, state: str) -> bool:
        """Say whether a batch is to stay in a state."""
        return batch.faults.stuck == state and batch.faults.stuck_batch in {0, batch.number}

    async def work(self, batch: Batch) -> Cut | None:
        """Wait as long as a batch takes; say where it was cut off by a cancel call or the end of its window."""
        settings = self.settings
        duration = settings.real_seconds(settings.batch_seconds + batch.late_seconds)
        window = settings.real_seconds(settings.window_seconds)
        batch.duration_s = window if self.is_stuck(batch, "in_progress") else duration
        began = now_s()
        cancelled = await happens_within(batch.changed, min(batch.duration_s, window))
        if not cancelled and batch.duration_s < window:
            return None
        worked = now_s() - began if cancelled else window
        share = 0.0 if self.is_stuck(batch, "in_progress") else worked / max(duration, 0.001)
        return Cut(min(int(share * batch.rows), batch.rows), Kind.CANCELLED if cancelled else Kind.EXPIRED)

    async def pause(self, batch: Batch, seconds: float) -> bool:
        """Wait some emulated seconds; say whether a cancel call came."""
        return await happens_within(batch.changed, self.settings.real_seconds(seconds))

    async def pause_after_cancel(self) -> None:
        """Wait as long as cancelling takes."""
        await asyncio.sleep(self.settings.real_seconds(self.settings.cancel_seconds))

    async def close(self) -> None:
        """Stop all batches, and remove the folder if it was temporary."""
        self.stop.set()
        for task in list(self._tasks):
            task.cancel()
        for task in list(self._tasks):
            with suppress(asyncio.CancelledError, Stopped):
                await task
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        if self.settings.data_dir is None:
            shutil.rmtree(self.store.folder, ignore_errors=True)


def is_visible(batch: Batch, *, at: float) -> bool:
    """Say whether a batch can be retrieved yet."""
    return at >= batch.created_at + batch.faults.not_found_seconds


def is_listed(batch: Batch, *, at: float) -> bool:
    """Say whether a batch is in lists yet."""
    return at >= batch.created_at + batch.faults.list_lag_seconds

"""What the emulator holds: files on disk, and what it knows about files and batches in memory."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from nightbatch.emulator.asks import Json
from nightbatch.emulator.dice import Ids
from nightbatch.emulator.faults import Faults
from nightbatch.emulator.settings import Account, Vendor
from nightbatch.emulator.sightings import Sightings


@dataclass(slots=True)
class StoredFile:
    """A file that a client uploaded, or that a batch wrote."""

    id: str
    scope: str
    path: Path
    filename: str
    purpose: str
    created_at: float
    expires_at: float | None = None

    @property
    def size_bytes(self) -> int:
        """Return its size on disk."""
        return self.path.stat().st_size


@dataclass(slots=True)
class Usage:
    """Tokens of a batch's billed rows."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(slots=True)
class Batch:
    """A batch of either vendor.

    Attributes:
        number: Its place among all batches created here, from 1.
        vendor: Whose words it speaks.
        account: The key that created it.
        faults: What goes wrong with it, fixed when it was created.
        input_path: JSON Lines, one request each, as it came.
        late_seconds: How much longer it takes than others.
        status: In the vendor's own words.
        times: When it reached each status, by the vendor's name for that.
        errors: Why validation failed (OpenAI).
        input_tokens: Prompt tokens of all rows, estimated as the enqueued-token limit counts them.
        counts: Rows by how they ended.
        is_deleted: No client sees it any more; what it was billed is remembered.
        changed: Set by a cancel call; the batch's own task waits for it.
    """

    id: str
    number: int
    vendor: Vendor
    account: Account
    created_at: float
    faults: Faults
    input_path: Path
    status: str
    endpoint: str = ""
    input_file_id: str = ""
    metadata: dict[str, str] | None = None
    output_expires_after: float | None = None
    late_seconds: float = 0.0
    rows: int = 0
    models: tuple[str, ...] = ()
    input_tokens: int = 0
    times: dict[str, float] = field(default_factory=dict)
    duration_s: float = 0.0
    errors: list[Json] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)
    output_file_id: str | None = None
    error_file_id: str | None = None
    results_path: Path | None = None
    is_deleted: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def scope(self) -> str:
        """Return the workspace that may see it."""
        return self.account.scope

    def unknown_status(self, *, at: float) -> str:
        """Return the word that a fault puts in the place of the running status; empty without one."""
        return self.faults.status_word if at < self.created_at + self.faults.status_seconds else ""

    def hides_results(self, *, at: float) -> bool:
        """Say whether the batch has ended so lately that it does not name its result files yet."""
        hidden_s = self.faults.hidden_results_seconds
        return bool(hidden_s) and at < max(self.times.values(), default=0.0) + hidden_s

    def reach(self, status: str, at: float) -> None:
        """Enter a status, and remember when."""
        self.status = status
        self.times[f"{status}_at"] = at


class Owned(Protocol):
    """Something with an id, which one workspace may see."""

    id: str
    created_at: float

    @property
    def scope(self) -> str:
        """Return the workspace that may see it."""


Thing = TypeVar("Thing", bound=Any)


class Shelf(Generic[Thing]):
    """Things of all workspaces in the order they were made."""

    def __init__(self) -> None:
        self._things: dict[str, Thing] = {}

    def put(self, thing: Thing) -> None:
        """Add a thing."""
        self._things[thing.id] = thing

    def find(self, thing_id: str, scope: str) -> Thing | None:
        """Return a thing of this workspace, or None."""
        thing = self._things.get(thing_id)
        return thing if thing is not None and thing.scope == scope else None

    def remove(self, thing_id: str) -> None:
        """Forget a thing."""
        self._things.pop(thing_id, None)

    def newest_first(self, scope: str | None = None) -> list[Thing]:
        """Return the things of a workspace, or of all."""
        return [thing for thing in reversed(self._things.values()) if scope in {None, thing.scope}]


@dataclass(slots=True)
class Page(Generic[Thing]):
    """A part of a list."""

    things: list[Thing]
    has_more: bool


def page_after(things: list[Thing], cursor: str | None, limit: int) -> Page[Thing] | None:
    """Return the part of a list after a cursor; None when the cursor is not in it."""
    start = 0
    if cursor is not None:
        at = next((index for index, thing in enumerate(things) if thing.id == cursor), None)
        if at is None:
            return None
        start = at + 1
    return Page(things[start : start + limit], has_more=len(things) > start + limit)


class EnqueuedTokens:
    """Prompt tokens that wait in batches, by workspace and model."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)

    def take(self, batch: Batch, limit: int | None) -> bool:
        """Enqueue a batch's tokens if the limit allows it."""
        held = self._held[batch.scope, ",".join(batch.models)]
        others = sum(tokens for batch_id, tokens in held.items() if batch_id != batch.id)
        if limit is not None and others + batch.input_tokens > limit:
            return False
        held[batch.id] = batch.input_tokens
        return True

    def release(self, batch: Batch) -> None:
        """Give back what a batch held."""
        self._held[batch.scope, ",".join(batch.models)].pop(batch.id, None)

    def by_model(self) -> dict[str, int]:
        """Return what is held now, by `workspace model`."""
        return {" ".join(key): sum(held.values()) for key, held in self._held.items()}


@dataclass(slots=True)
class Store:
    """All that one emulator holds."""

    folder: Path
    ids: Ids
    files: Shelf[StoredFile] = field(default_factory=Shelf)
    batches: Shelf[Batch] = field(default_factory=Shelf)
    sightings: Sightings = field(default_factory=Sightings)
    enqueued: EnqueuedTokens = field(default_factory=EnqueuedTokens)
    creations: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    def new_path(self, name: str) -> Path:
        """Return a path for a new file."""
        return self.folder / name

"""What one look at a shard ends in: it moved on, or it waits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Moved:
    """The shard is in another state now, or somebody else moved it: look again at once."""

    away: str = ""
    """What the vendor's silence looked like, where it did not answer."""


@dataclass(frozen=True)
class BatchWait:
    """The batch that is waited for, in words that a trigger can be handed."""

    provider: str
    connection: str
    batch_id: str
    created_utc: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    """What a monitor is told of it by."""


@dataclass(frozen=True)
class Waiting:
    """Nothing can be done before `until`; with `batch`, the vendor may be asked about it until then."""

    until: datetime
    reason: str
    batch: BatchWait | None = None
    overdue_since: datetime | None = None
    """Since when the vendor's own time is over: people are to be told, once."""
    away: str = ""
    """What the vendor's silence looked like, where it did not answer."""


@dataclass(frozen=True)
class Finished:
    """The shard is loaded, or held: nothing more will happen to it in this run."""

    state: str
    away: str = ""
    """Never anything: what is finished asked nobody."""


Outcome = Moved | Waiting | Finished

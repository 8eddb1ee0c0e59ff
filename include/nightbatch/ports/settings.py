"""What an installation chooses, and the connections it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


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

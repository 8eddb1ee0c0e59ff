"""Names that survive a crash: runs, shards and requests are called the same at every attempt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .window import Window

_CUSTOM_ID = re.compile(r"nb_(?P<ledger>[0-9a-f]{8})_(?P<run>[0-9a-f]{12})_(?P<round>\d+)_(?P<shard>\d+)_(?P<row>\d+)")


_SHARD_NAME = re.compile(r"r(?P<round>[0-9]{1,9})-s(?P<shard>[0-9]{1,9})")
_NUMBER = re.compile(r"[0-9]{1,9}")


def run_id(job: str, window: Window, generation: int) -> str:
    """Name a run, readable in a path and the same wherever it is started from."""
    return f"{job}/{window.key}/g{generation}"


def job_of(run: str) -> str:
    """Read the job out of a run's name; a job's own name has no slash."""
    return run.partition("/")[0]


def run_code(run: str) -> str:
    """Shorten a run's name to 12 hex digits, for names that vendors limit to 64 characters."""
    return hashlib.sha256(run.encode()).hexdigest()[:12]


@dataclass(frozen=True, order=True)
class ShardRef:
    """Where a shard stands: its run, round and number. All that a task needs to be handed."""

    run: str
    round: int
    shard: int

    @property
    def name(self) -> str:
        """Name the shard within its run, for people and for paths: `r0-s003`."""
        return f"r{self.round}-s{self.shard:03d}"

    @property
    def folder(self) -> str:
        """Name the folder of the shard's files in the store."""
        return f"{self.run}/round-{self.round}/s{self.shard:03d}"

    def __str__(self) -> str:
        return f"{self.run} {self.name}"


@dataclass(frozen=True)
class Label:
    """What a batch says of itself at the vendor, so that a lost one can be found again."""

    ledger: str
    run: str
    round: int
    shard: int
    attempt: int
    content_sha256: str

    def metadata(self) -> dict[str, str]:
        """Give the label as the string pairs that vendors take as metadata."""
        return {
            "nightbatch_ledger": self.ledger,
            "nightbatch_run": self.run,
            "nightbatch_shard": f"r{self.round}-s{self.shard:03d}",
            "nightbatch_attempt": str(self.attempt),
            "nightbatch_sha256": self.content_sha256,
        }

    @classmethod
    def read(cls, metadata: Mapping[str, object]) -> Label | None:
        """Read a label back from metadata; None where it is not one of nightbatch's."""
        ledger, run, sha256 = (metadata.get(f"nightbatch_{name}") for name in ("ledger", "run", "sha256"))
        where = _SHARD_NAME.fullmatch(str(metadata.get("nightbatch_shard", "")))
        attempt = str(metadata.get("nightbatch_attempt", ""))
        if not (isinstance(ledger, str) and isinstance(run, str) and isinstance(sha256, str)):
            return None
        if where is None or _NUMBER.fullmatch(attempt) is None:
            return None
        return cls(ledger, run, int(where["round"]), int(where["shard"]), int(attempt), sha256)

    @property
    def prefix(self) -> str:
        """Give what every custom_id of this shard begins with."""
        return custom_id_prefix(self.ledger, self.run, self.round, self.shard)


def custom_id_prefix(ledger: str, run: str, round_: int, shard: int) -> str:
    """Give what every custom_id of a shard begins with; `ledger` is the ledger's id, `run` a run code."""
    return f"nb_{ledger[:8]}_{run}_{round_}_{shard}_"


def row_of(custom_id: str, prefix: str) -> int | None:
    """Read the row number out of a custom_id; None where it is not of the shard with this prefix."""
    if not custom_id.startswith(prefix):
        return None
    digits = custom_id[len(prefix) :]
    # "07" and "7" would be two names for one row; nothing as long as ten digits is a row of a batch.
    if len(digits) > 9 or not digits.isascii() or not digits.isdigit() or (len(digits) > 1 and digits[0] == "0"):
        return None
    return int(digits)


def place_of(custom_id: str) -> tuple[int, int, int] | None:
    """Read round, shard and row out of a custom_id of ours; None for any other text."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    return (int(found["round"]), int(found["shard"]), int(found["row"])) if found else None


@dataclass(frozen=True)
class Origin:
    """Where a custom_id says that it comes from: the head of a ledger's id, a run's code, and the shard."""

    ledger: str
    run: str
    round: int
    shard: int


def origin_of(custom_id: str) -> Origin | None:
    """Read where a custom_id comes from; None for one that is not of nightbatch."""
    found = _CUSTOM_ID.fullmatch(custom_id)
    if found is None:
        return None
    return Origin(found["ledger"], found["run"], int(found["round"]), int(found["shard"]))


def is_custom_id(text: str) -> bool:
    """Say whether a text is a custom_id of ours, of whichever ledger."""
    return _CUSTOM_ID.fullmatch(text) is not None

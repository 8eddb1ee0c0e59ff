"""An outage: one trouble that hits many runs, told when it begins, once a day while it lasts, and when it is over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

REMIND_AFTER = timedelta(hours=20)
"""How long nobody hears of an outage again: a job that is hit every night is told of every night."""
OVER, TOLD = "over", "told"


@dataclass(frozen=True)
class Hit:
    """One run that met an outage, as something of a kind."""

    number: int
    """Which outage of its subject, from 1."""
    kind: str
    run: str
    rows: int
    at_utc: datetime


@dataclass(frozen=True)
class Outage:
    """The latest outage of a subject."""

    subject: str
    number: int
    hits: tuple[Hit, ...]
    """In order; empty for a subject that never had one."""
    is_over: bool
    told: frozenset[int] = frozenset()
    """On which of its days people were told, by `day`; of outages only that are told after they lasted a while."""

    @property
    def is_open(self) -> bool:
        """Say whether it lasts."""
        return bool(self.hits) and not self.is_over

    @property
    def next_number(self) -> int:
        """Give the number of the outage that a new hit belongs to."""
        return self.number if self.is_open else self.number + 1

    @property
    def began_utc(self) -> datetime:
        """Give the time of the first hit."""
        return self.hits[0].at_utc

    @property
    def runs(self) -> list[str]:
        """Name the runs that were hit, each once, in order."""
        return list(dict.fromkeys(hit.run for hit in self.hits))

    @property
    def jobs(self) -> list[str]:
        """Name their jobs, sorted."""
        return sorted({run.partition("/")[0] for run in self.runs})

    @property
    def rows(self) -> int:
        """Add up the rows that were hit, of each run those of its last hit."""
        return sum({hit.run: hit.rows for hit in self.hits}.values())

    def day(self, at: datetime) -> int:
        """Count the days of an outage, from 0, as long as those after which people are reminded."""
        return int((at - self.began_utc) / REMIND_AFTER)

    def is_told_by(self, run: str, kind: str) -> bool:
        """Say whether people hear of this run's hit: it is the first of its kind, or the first after long."""
        told: set[int] = set()
        for hit in self.hits:
            day = self.day(hit.at_utc)
            if hit.kind == kind and day not in told:
                told.add(day)
                if hit.run == run:
                    return True
        return False


def hit_id(subject: str, number: int, kind: str, run: str) -> str:
    """Name a hit; the same run meets an outage once."""
    return f"{subject}:{number}:{kind}:{run}"


def over_id(subject: str, number: int) -> str:
    """Name the end of an outage."""
    return f"{subject}:{number}:{OVER}"


def told_id(subject: str, number: int, day: int) -> str:
    """Name what people were told of an outage on one of its days."""
    return f"{subject}:{number}:{TOLD}:{day}"


def latest(subject: str, hits: Iterable[Hit], overs: Iterable[int], told: Iterable[tuple[int, int]] = ()) -> Outage:
    """
    Find a subject's latest outage.

    Among all hits, in order, the numbers of the outages that are over, and the number and day of what was told.
    """
    found, over = list(hits), set(overs)
    number = max([hit.number for hit in found] + list(over), default=0)
    days = frozenset(day for of, day in told if of == number)
    return Outage(subject, number, tuple(hit for hit in found if hit.number == number), number in over, days)

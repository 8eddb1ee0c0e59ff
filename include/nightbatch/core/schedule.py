"""A schedule: the ticks of a cron line in a time zone, and the windows between them, as Airflow cuts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from .window import Window

if TYPE_CHECKING:
    from croniter import croniter


@dataclass(frozen=True)
class Schedule:
    """
    A cron line in a time zone. A window is the time between two ticks; its run starts at the second one.

    The arithmetic is that of Airflow's CronDataIntervalTimetable, clock changes included: a test compares the two.
    """

    cron: str
    timezone: str = "UTC"

    def ticks(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """Stream the ticks from `since` up to `until`, both included, in UTC."""
        cron, zone = _read(self.cron), ZoneInfo(self.timezone)
        is_hourly = cron.expanded[1] == ["*"]
        tick = _last(cron, zone, since)
        while tick <= until:
            if tick >= since:
                yield tick
            local = tick.astimezone(zone).replace(tzinfo=None)
            coming: datetime = cron.get_next(datetime, start_time=local)
            # Every hour: real hours go by, also where the clock shows one of them twice or not at all.
            tick = tick + (coming - local) if is_hourly else _instant(coming, zone)

    def windows(self, since: datetime, until: datetime) -> Iterator[Window]:
        """Stream the windows that begin at `since` or later, and are over by `until`."""
        yield from (Window(start, end) for start, end in pairwise(self.ticks(since, until)))

    def last(self, at: datetime) -> datetime:
        """Give the last tick that is not later than an instant."""
        return _last(_read(self.cron), ZoneInfo(self.timezone), at)


def _read(line: str) -> croniter:
    from croniter import croniter  # 10 ms, which jobs without a schedule are spared

    return croniter(line)


def _last(cron: croniter, zone: ZoneInfo, at: datetime) -> datetime:
    """Give the last tick that is not later than an instant."""
    local = at.astimezone(zone).replace(tzinfo=None) + timedelta(seconds=1)
    tick = _instant(cron.get_prev(datetime, start_time=local), zone)
    while tick > at:
        tick = _instant(cron.get_prev(datetime), zone)
    return tick


def _instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Give a local tick in UTC: one that the clock shows twice is the second one, one that it skips an hour later."""
    return max(local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))

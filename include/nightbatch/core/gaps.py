"""Gaps: windows of a schedule that no run was about, and how far a job's answers reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from .schedule import Schedule
from .window import Window


@dataclass(frozen=True)
class RunSpan:
    """What a run says about time: its window, and what became of it."""

    window: Window
    state: str
    started_utc: datetime
    is_whole: bool = True
    """False for a first look, which read a part of its window only."""
    is_answered: bool = False
    """Whether every row of it has an answer or stays a dead letter within bounds, also where later runs took rows."""
    read: Window | None = None
    """What its sealed plan read by a watermark, without the grace; None for all other runs."""
    read_by: str = ""
    """The watermark's column."""

    @property
    def covers(self) -> Window:
        """Give the time whose records it holds: its window, and what it read before."""
        return self.window if self.read is None else Window(min(self.window.start, self.read.start), self.window.end)

    @property
    def knows(self) -> Window:
        """Give the time whose records it has seen: not what came after it began, where its window was not over."""
        return self.window if self.read is None else Window(self.covers.start, self.read.end)


@dataclass(frozen=True)
class Gap:
    """Windows one after another that have no run."""

    windows: tuple[Window, ...]
    is_open: bool
    """Whether the last of them is the last one that is due: no run has come since."""

    @property
    def span(self) -> Window:
        """Give the time from the first one's start to the last one's end."""
        return Window(self.windows[0].start, self.windows[-1].end)


def first_known(runs: Iterable[RunSpan]) -> datetime | None:
    """Say from when on a job's windows are expected: from the window of the run that was started first."""
    whole = [run for run in runs if run.is_whole]
    return min(whole, key=lambda run: (run.started_utc, run.window)).window.start if whole else None


def gaps(
    schedule: Schedule,
    runs: Sequence[RunSpan],
    *,
    since: datetime | None,
    now: datetime,
    grace: timedelta,
    skipped: Iterable[Window] = (),
    overlap: timedelta = timedelta(0),
) -> list[Gap]:
    """
    Give the windows that have had no run, oldest first: neither settled nor under way `grace` after their tick.

    A window counts as run where whole runs, of any windows, hold it together; so a week that was run by hand holds
    its seven nights, and a job whose schedule was changed keeps its past. `skipped` is time that a person said needs
    no run. A window that an open run holds up (also by what it reads again, `overlap`) is under way.
    """
    begin, until = since or first_known(runs), now - grace
    if begin is None or begin >= until:
        return []
    held = [run.covers for run in runs if run.is_whole]
    under_way = [run.window for run in runs if run.state == "open"]
    found: list[Window] = []
    for start, end in uncovered(begin, until, [*held, *skipped]):
        for window in schedule.windows(max(begin, schedule.last(start)), until):
            if window.start >= end:
                break
            reads = window.earlier_by(overlap)
            if window not in found[-1:] and not any(reads.overlaps(other) for other in under_way):
                found.append(window)
    return list(_grouped(found, schedule.last(until)))


def uncovered(start: datetime, end: datetime, covered: Iterable[Window]) -> list[tuple[datetime, datetime]]:
    """Give the parts of a span of time that no window holds, in order."""
    found = []
    for window in sorted(covered):
        if window.start > start and start < end:
            found.append((start, min(window.start, end)))
        start = max(start, window.end)
    return [*found, (start, end)] if start < end else found


def _grouped(windows: Sequence[Window], last_due: datetime) -> Iterator[Gap]:
    group: list[Window] = []
    for window in windows:
        if group and group[-1].end != window.start:
            yield Gap(tuple(group), is_open=False)
            group = []
        group.append(window)
    if group:
        yield Gap(tuple(group), is_open=group[-1].end == last_due)


def fresh_until(runs: Sequence[RunSpan], *, skipped: Iterable[Window] = (), reads_all: bool = False) -> datetime | None:
    """
    Say up to when a job's answers are known to be those of its records; None before any run was answered.

    It is the end of the unbroken row of answered windows, counted from the job's first: a record that changed later
    may still have its old answer in the sink. The age of the oldest answer in use is the time since then. Where every
    run reads all records (`reads_all`), the last answered one alone says it.
    """
    answered = [run.knows for run in runs if run.is_whole and run.is_answered]
    begin = first_known(runs)
    if not answered or begin is None:
        return None
    if reads_all:
        return max(window.end for window in answered)
    latest = max(window.end for window in answered)
    left = uncovered(begin, latest, [*answered, *skipped])
    return left[0][0] if left else latest

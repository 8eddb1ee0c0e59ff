"""What people are told of windows without a run, and of answers that are too old: each outage, and its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from nightbatch.core.gaps import Gap, RunSpan, fresh_until
from nightbatch.core.window import Window
from nightbatch.job import Job
from nightbatch.ports import Event, Ledger, Message

from .figures import moment, span

SKIPPED = "skipped"
"""Kind of an event about a job: windows that a person said need no run."""
FAR = datetime(9999, 1, 1, tzinfo=UTC)
NAMED = 10
"""So many jobs, or gaps of a job, are named in a message; of more only how many."""


@dataclass(frozen=True)
class Sighting:
    """How a scheduled job stands: which windows have no run, why as far as it is known, and how far answers reach."""

    job: Job
    gaps: tuple[Gap, ...] = ()
    why: str = ""
    fresh_until: datetime | None = None

    @property
    def windows(self) -> int:
        """Count the windows without a run."""
        return sum(len(gap.windows) for gap in self.gaps)

    @property
    def left(self) -> tuple[Gap, ...]:
        """The gaps that nobody runs by itself: Airflow catches up only what comes after its last run of the job."""
        return tuple(gap for gap in self.gaps if self.job.catch_up == "report" or not gap.is_open)

    @property
    def is_out(self) -> bool:
        """Say whether the last window that is due has no run."""
        return any(gap.is_open for gap in self.gaps)

    def age(self, now: datetime) -> timedelta | None:
        """Give the age of the oldest answer in use; None before there is one."""
        return None if self.fresh_until is None else max(now - self.fresh_until, timedelta(0))

    def is_stale(self, now: datetime) -> bool:
        """Say whether the oldest answer in use is older than the job allows."""
        age = self.age(now)
        return self.job.freshness is not None and age is not None and age > self.job.freshness


def skipped_windows(events: Iterable[Event], runs: Sequence[RunSpan]) -> list[Window]:
    """Give the time that a person said needs no run; what was said for good holds until the job runs again."""
    found = []
    for event in events:
        if event.kind == SKIPPED:
            again = (run.window.start for run in runs if run.started_utc > event.recorded_utc)
            end = instant(event.payload["end"]) or min(again, default=FAR)
            start = datetime.fromisoformat(event.payload["start"])
            found += [Window(start, end)] if start < end else []
    return found


def instant(text: str | None) -> datetime | None:
    """Read an instant of an event; None for one that is open."""
    return datetime.fromisoformat(text) if text else None


def standing_of(ledger: Ledger, job: Job) -> Sighting:
    """Say how far a job's answers reach, whatever its schedule."""
    runs = ledger.spans(job.name)
    skipped = skipped_windows(ledger.events(job.name), runs)
    return Sighting(job, fresh_until=fresh_until(runs, skipped=skipped, reads_all=job.source.reads_all))


def span_words(window: Window, count: int) -> str:
    """Name windows that follow each other."""
    return f"{window} ({count:,} window{'s' if count > 1 else ''})"


def gap_words(gaps: Sequence[Gap]) -> str:
    """Name gaps, the oldest first."""
    named = ", ".join(span_words(gap.span, len(gap.windows)) for gap in gaps[:NAMED])
    left = gaps[NAMED:]
    return named + (f", and {sum(len(gap.windows) for gap in left):,} windows more, later" if left else "")


def _length(time: timedelta) -> str:
    return span(time.total_seconds())


def fresh_words(sighting: Sighting, now: datetime) -> str:
    """Say how old the oldest answer in use is."""
    age = sighting.age(now)
    if age is None or sighting.fresh_until is None:
        return "no window is answered yet"
    allowed = f", {_length(sighting.job.freshness)} allowed" if sighting.job.freshness else ""
    return f"{_length(age)} (all windows up to {sighting.fresh_until:%Y-%m-%d %H:%M} UTC are answered{allowed})"


def backfill_commands(sighting: Sighting) -> tuple[str, ...]:
    """Give the commands that run what has no run, the oldest first; Airflow takes the days on which windows begin."""
    return tuple(
        f"airflow backfill create --dag-id {sighting.job.name} --from-date {gap.windows[0].start:%Y-%m-%dT%H:%MZ} "
        f"--to-date {gap.windows[-1].start:%Y-%m-%dT%H:%MZ}"
        for gap in sighting.left
    )


def missing_message(event_id: str, found: Sequence[Sighting], *, now: datetime) -> Message:
    """Say which windows have no run; `found` holds only what was not told before."""
    windows = sum(one.windows for one in found)
    have = "windows have" if windows > 1 else "window has"
    since = min(one.gaps[0].span.start for one in found)
    return Message(
        event_id=event_id,
        kind="missing",
        title=f"{_names(found)}: {windows:,} {have} no run",
        happened=f"{windows:,} scheduled {have} no run, neither settled nor under way. "
        + "; ".join(f"{one.job.name}: {one.why}" for one in found[:NAMED])
        + ".",
        since=f"{moment(found[0].job, since)}, when the first of them began ({_length(now - since)} ago)",
        rows="not known; these windows were not read",
        money="nothing was sent for these windows, and nothing was spent",
        happens_next=" ".join(_happens_next(found)),
        to_do="Mend the cause: let the Dag go, check the job file, look at the scheduler. Then run what is missing; "
        "or, where it is not wanted, skip it.",
        commands=(
            f"nightbatch status {found[0].job.name}",
            *_backfills(found),
            f"nightbatch skip {found[0].job.name}",
        ),
        if_nobody="The records of these windows get no answer, and readers of the sink do not see it.",
        facts=(
            *((one.job.name, gap_words(one.gaps)) for one in found[:NAMED]),
            *((("Others", ", ".join(one.job.name for one in found[NAMED:])),) if found[NAMED:] else ()),
        ),
    )


def _backfills(found: Sequence[Sighting]) -> list[str]:
    return [command for one in found for command in backfill_commands(one)][:3]


def _names(found: Sequence[Sighting]) -> str:
    return found[0].job.name if len(found) == 1 else f"{len(found):,} jobs"


def _happens_next(found: Sequence[Sighting]) -> list[str]:
    runs = [one.job.name for one in found if len(one.left) < len(one.gaps)]
    said = [f"Airflow runs what {', '.join(runs)} missed by itself once it can (catch_up: run)."] if runs else []
    if any(one.left for one in found):
        said.append("Windows that went by are not run by themselves." if not runs else "Other windows are not.")
    by_mark = [one.job.name for one in found if one.job.source.watermark is not None]
    if by_mark:
        said.append(f"The next run of {', '.join(by_mark)} reads what was added in them, skipped ones included.")
    if any(one.is_out for one in found):
        said.append("This outage is told once, and once more when it is over.")
    return said


def over_message(outage: str, found: Sequence[Sighting], since: datetime, *, now: datetime) -> Message:
    """Say that an outage is over, and which windows still have no run."""
    left = [one for one in found if one.gaps]
    windows = sum(one.windows for one in left)
    still = f"{windows:,} windows still have none" if left else "every window has its run, or was said to need none"
    return Message(
        event_id=f"{outage}:over",
        kind="missing_over",
        title=f"{_names(found)}: runs come again",
        happened=f"The last window that is due has its run again; {still}.",
        since=f"{moment(found[0].job, since)}, for {_length(now - since)}",
        rows="not known; windows without a run were not read" if left else "as the runs say",
        money="nothing was sent for windows without a run, and nothing was spent",
        happens_next="Later windows run on schedule."
        + (" The windows that are named here are not run by themselves." if left else ""),
        to_do="Run what is missing; or, where it is not wanted, skip it." if left else "Nothing.",
        commands=(
            f"nightbatch status {found[0].job.name}",
            *_backfills(left),
            *((f"nightbatch skip {left[0].job.name}",) if left else ()),
        ),
        if_nobody="Windows without a run stay so. Nobody is told again." if left else "Nothing.",
        facts=tuple((one.job.name, f"still without a run: {gap_words(one.gaps)}") for one in left[:NAMED]),
        thread=outage,
    )


def stale_message(event_id: str, found: Sequence[Sighting], *, now: datetime) -> Message:
    """Say that answers in use are older than their jobs allow."""
    since = min(one.fresh_until for one in found if one.fresh_until is not None)
    return Message(
        event_id=event_id,
        kind="stale",
        title=f"{_names(found)}: answers in use are too old",
        happened="Some window after the last one that is answered whole has no run, failed, or has pending rows; what "
        "changed since may have its old answer in the sink.",
        since=f"{moment(found[0].job, since)}, up to when all windows are answered",
        rows="not known; every record that changed since",
        money="nothing is spent by this",
        happens_next="Nothing by itself. This is told once, and once more when the answers are fresh again.",
        to_do="See which window is not answered, and run it again, retry its dead letters, or skip it.",
        commands=tuple(f"nightbatch status {one.job.name}" for one in found[:3]),
        if_nobody="Whoever reads the sink goes on with the old answers.",
        facts=tuple((one.job.name, fresh_words(one, now)) for one in found[:NAMED]),
    )


def fresh_message(outage: str, found: Sequence[Sighting], since: datetime, *, now: datetime) -> Message:
    """Say that answers in use are fresh again."""
    return Message(
        event_id=f"{outage}:over",
        kind="stale_over",
        title=f"{_names(found)}: answers in use are fresh again",
        happened="The oldest answer in use is as fresh again as the job asks.",
        since=f"{moment(found[0].job, since)}, for {_length(now - since)}",
        rows="all that were late",
        money="as the runs say",
        happens_next="Nothing.",
        to_do="Nothing.",
        commands=(f"nightbatch status {found[0].job.name}",),
        if_nobody="Nothing.",
        facts=tuple((one.job.name, fresh_words(one, now)) for one in found[:NAMED]),
        thread=outage,
    )

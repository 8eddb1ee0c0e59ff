"""The watchdog's voice: people are told of each outage once, and of its end once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from nightbatch.core.gaps import Gap
from nightbatch.core.window import Window
from nightbatch.errors import NightbatchError
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Event, Message
from nightbatch.steps.absence import FAR, Sighting, fresh_message, instant, missing_message, over_message, stale_message
from nightbatch.steps.tell import tell, wants
from nightbatch.steps.untold import tell_again
from nightbatch.watchdog import Watch, look

log = logger(__name__)

ABOUT = "watchdog"
"""What its events have in the place of a run."""
Kind = Literal["missing", "stale"]
KINDS: tuple[Kind, ...] = ("missing", "stale")


@dataclass
class Episode:
    """One outage that was told: of which jobs, since when, and for which of them it is over."""

    event: Event
    over: dict[str, datetime] = field(default_factory=dict)
    """Job -> the end of its last missing window."""

    @property
    def spans(self) -> dict[str, list[list[str | None]]]:
        """Job -> pairs of start and end; no end where the outage went on when it was told."""
        return dict(self.event.payload["spans"])

    @property
    def out(self) -> set[str]:
        """The jobs for which it is not over yet."""
        return {job for job, spans in self.spans.items() if any(end is None for _, end in spans)} - set(self.over)

    @property
    def since(self) -> datetime:
        """When the first window began that it is about."""
        return min(datetime.fromisoformat(str(start)) for spans in self.spans.values() for start, _ in spans)

    def told(self, job: str, window: Window) -> bool:
        """Say whether it told of a window, or lasts, so that what is missing now belongs to it."""
        for start, end in self.spans.get(job, ()):
            until = instant(end) or self.over.get(job, FAR)
            if datetime.fromisoformat(str(start)) <= window.start < until:
                return True
        return False


def episodes(events: Iterable[Event], kind: Kind) -> tuple[list[Episode], set[str]]:
    """Give the outages of a kind that were told, oldest first, and the ids of those whose end was told."""
    found: dict[str, Episode] = {}
    ended: set[str] = set()
    for event in events:
        if event.kind == kind:
            found[event.event_id] = Episode(event)
        elif event.kind == f"{kind}_job_over":
            found[event.payload["outage"]].over[event.payload["job"]] = datetime.fromisoformat(event.payload["until"])
        elif event.kind == f"{kind}_over":
            ended.add(event.event_id.removesuffix(":over"))
    return list(found.values()), ended


# --- one pass --------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """What one pass found and told."""

    sightings: list[Sighting]
    messages: list[Message] = field(default_factory=list)
    unheard: list[Message] = field(default_factory=list)
    """Those of the messages that reached nobody."""


def patrol(watch: Watch, folder: Path) -> Told:
    """
    Look how all scheduled jobs stand, and tell people of what is new: outages, and the end of those told before.

    Jobs that tell the same people share a message. Each event is written down before anybody is told, so that two
    passes at once, or one after a crash, say nothing twice.
    """
    told = Told(look(watch, folder))
    events = watch.ledger.events(ABOUT)
    for kind in KINDS:
        before, ended = episodes(events, kind)
        for group in _by_people(told.sightings):
            _tell_new(watch, kind, group, before, told)
        for episode in before:
            if episode.event.event_id not in ended:
                _tell_again(watch, episode, told)
                _tell_over(watch, kind, episode, told)
    for one in told.sightings:
        _tell_kept(watch, one.job)
    return told


def _tell_kept(watch: Watch, job: Job) -> None:
    """Tell what a channel did not take when it happened: the job's own next run may be a night away."""
    try:
        tell_again(watch.ports_of(job), job)
    except NightbatchError as error:
        log.warning("watchdog: could not tell people of %s what was kept: %s", job.name, error)


def _by_people(sightings: Iterable[Sighting]) -> Iterator[list[Sighting]]:
    groups = defaultdict[object, list[Sighting]](list)
    for one in sightings:
        groups[one.job.notify].append(one)
    yield from groups.values()


def _tell_new(watch: Watch, kind: Kind, group: list[Sighting], before: Sequence[Episode], told: Told) -> None:
    new = [found for one in group if (found := _untold(one, kind, before, watch.now)) is not None]
    if not new:
        return
    spans = {one.job.name: _spans(one, kind) for one in new}
    first = min((str(spans[one.job.name][0][0]), one.job.name) for one in new)
    event_id = f"{kind}:{first[1]}:{datetime.fromisoformat(first[0]):%Y%m%dT%H%M%SZ}"
    compose = missing_message if kind == "missing" else stale_message
    message = compose(event_id, new, now=watch.now)
    _record(watch, message, {"spans": spans})
    _send(watch, new[0].job, message, told)


def _untold(one: Sighting, kind: Kind, before: Sequence[Episode], now: datetime) -> Sighting | None:
    """Give what of a sighting was not told before; None where all was."""
    name = one.job.name
    if kind == "stale":
        return one if one.is_stale(now) and not any(name in episode.out for episode in before) else None
    new = []
    for gap in one.gaps:
        windows = tuple(window for window in gap.windows if not any(it.told(name, window) for it in before))
        if windows:
            new.append(Gap(windows, gap.is_open))
    return replace(one, gaps=tuple(new)) if new else None


def _spans(one: Sighting, kind: Kind) -> list[list[str | None]]:
    if kind == "stale":
        return [[one.fresh_until.isoformat() if one.fresh_until else None, None]]
    return [[gap.span.start.isoformat(), None if gap.is_open else gap.span.end.isoformat()] for gap in one.gaps]


def _tell_over(watch: Watch, kind: Kind, episode: Episode, told: Told) -> None:
    outage, now = episode.event.event_id, watch.now
    standing = {one.job.name: one for one in told.sightings}
    if not episode.out:
        return
    for name in sorted(episode.out):
        one = standing.get(name)
        if one is not None and (one.is_out if kind == "missing" else one.is_stale(now)):
            continue
        until = max((gap.span.end for gap in one.gaps), default=episode.since) if one else episode.since
        payload = {"outage": outage, "job": name, "until": until.isoformat()}
        watch.ledger.record_event(f"{outage}:{name}:over", f"{kind}_job_over", ABOUT, payload, now=now)
        episode.over[name] = until
    if episode.out:
        return
    found = [_within(standing[name], episode) for name in sorted(episode.over) if name in standing]
    if not found:
        # Nobody is left who could be told.
        watch.ledger.record_event(f"{outage}:over", f"{kind}_over", ABOUT, {}, now=now)
        return
    compose = over_message if kind == "missing" else fresh_message
    message = compose(outage, found, episode.since, now=now)
    _record(watch, message, {})
    _send(watch, found[0].job, message, told)


def _within(one: Sighting, episode: Episode) -> Sighting:
    """Leave the gaps that belong to an outage."""
    return replace(one, gaps=tuple(gap for gap in one.gaps if episode.told(one.job.name, gap.windows[0])))


def _tell_again(watch: Watch, episode: Episode, told: Told) -> None:
    """Send what a pass that died wrote down and did not send; the ledger keeps it from being sent twice."""
    event = episode.event
    one = next((one for one in told.sightings if one.job.name in episode.spans), None)
    if one is None or watch.now - event.recorded_utc > timedelta(days=1):
        return
    known = {name: value for name, value in event.payload.items() if name != "spans"}
    _deliver(watch, one.job, msgspec.convert(known, Message))


def _record(watch: Watch, message: Message, more: dict[str, Any]) -> None:
    payload = {**msgspec.to_builtins(message), **more}
    watch.ledger.record_event(message.event_id, message.kind, ABOUT, payload, now=watch.now)


def _send(watch: Watch, job: Job, message: Message, told: Told) -> None:
    told.messages.append(message)
    log.warning("watchdog: %s", message.title)
    if _deliver(watch, job, message) == 0:
        told.unheard.append(message)


def _deliver(watch: Watch, job: Job, message: Message) -> int | None:
    """Give how many channels took a message; None where the job's people do not want to hear of such a thing."""
    if not wants(job, message.kind):
        return None
    try:
        ports = watch.ports_of(job)
        return tell(ports, ABOUT, replace(message, link=ports.settings.ui_base_url))
    except NightbatchError as error:
        log.warning("watchdog: could not tell people: %s", error)
        return 0

"""Count what hits many runs as one outage, so that people hear of it once, and once that it is over."""

from __future__ import annotations

import hashlib
from datetime import datetime

from nightbatch.core.outage import OVER, TOLD, Hit, Outage, hit_id, latest, over_id, told_id
from nightbatch.job import Job
from nightbatch.ports import Event, Message, Ports

from .figures import moment, span
from .tell import tell

HIT = "hit"
"""The kind of the events that count; they are never sent, nor are those of the kind `told`."""


def audience(job: Job) -> str:
    """Name who is told about a job, without their addresses: jobs of other people have outages of their own."""
    told = job.notify.model_dump_json(include={"mail", "mail_connection", "slack_connection"})
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def account_subject(job: Job, provider: str, connection: str) -> str:
    """Name the trouble with an account."""
    return f"account {provider} {connection} {audience(job)}"


def away_subject(job: Job, provider: str, connection: str) -> str:
    """Name the silence of a vendor."""
    return f"away {provider} {connection} {audience(job)}"


def deadline_subject(job: Job) -> str:
    """Name the lateness of a job."""
    return f"{job.name}/deadline"


def outage_of(ports: Ports, subject: str) -> Outage:
    """Give the latest outage of a subject."""
    events = ports.ledger.events(subject)
    hits = [_hit(event) for event in events if event.kind == HIT]
    overs = [int(event.event_id.split(":")[-2]) for event in events if event.kind == OVER]
    told = [(event.payload["number"], event.payload["day"]) for event in events if event.kind == TOLD]
    return latest(subject, hits, overs, told)


def _hit(event: Event) -> Hit:
    counted = event.payload
    return Hit(counted["number"], counted["kind"], counted["run"], counted["rows"], event.recorded_utc)


def hit(
    ports: Ports, run: str, subject: str, kind: str, *, rows: int, at: datetime | None = None
) -> tuple[Outage, bool]:
    """
    Count a run to the outage of a subject; gives the outage, and whether people are to hear of this hit.

    `at` is when it met the outage, where that was not now.
    """
    number = outage_of(ports, subject).next_number
    payload = {"number": number, "kind": kind, "run": run, "rows": rows}
    ports.ledger.record_event(hit_id(subject, number, kind, run), HIT, subject, payload, now=at or ports.clock.now())
    outage = outage_of(ports, subject)
    return outage, outage.is_told_by(run, kind)


def note_told(ports: Ports, outage: Outage, day: int) -> None:
    """Write down that people were told of an outage on one of its days."""
    payload = {"number": outage.number, "day": day}
    told = told_id(outage.subject, outage.number, day)
    ports.ledger.record_event(told, TOLD, outage.subject, payload, now=ports.clock.now())


def forget(ports: Ports, outage: Outage) -> None:
    """Forget an outage that nobody was told of: it was a blip, and blips are many."""
    for one in outage.hits:
        ports.ledger.forget_event(hit_id(outage.subject, outage.number, one.kind, one.run))


def close(ports: Ports, run: str, outage: Outage, message: Message | None) -> None:
    """Tell people that an outage is over, where there is something to tell, and write it down."""
    if message is not None:
        # First: a process that dies between the two is followed by one that finds it open, and tells it once.
        tell(ports, run, message, waits=True)
    end = over_id(outage.subject, outage.number)
    ports.ledger.record_event(end, OVER, outage.subject, {}, now=ports.clock.now())


def over_message(
    ports: Ports, job: Job, outage: Outage, *, title: str, happened: str, thread: str, link: str = ""
) -> Message:
    """Say that an outage is over, how long it lasted, and what it hit."""
    now = ports.clock.now()
    lasted = span((now - outage.began_utc).total_seconds())
    return Message(
        event_id=f"{over_id(outage.subject, outage.number)}:told",
        kind="over",
        title=title,
        happened=happened,
        since=f"{moment(job, now)}; it began at {moment(job, outage.began_utc)} and lasted {lasted}",
        rows=f"{outage.rows:,} rows of {counted(outage)} were hit",
        money="nothing was spent because of it",
        happens_next="It goes on as on any other night.",
        to_do="Nothing, if each run that was hit is done by now; the command shows how they stand.",
        commands=tuple(f"nightbatch status {name}" for name in outage.jobs),
        if_nobody="The next run of each job takes the rows that are still pending.",
        facts=tuple(("Was hit", run) for run in outage.runs[:20]),
        link=link or ports.settings.ui_base_url,
        thread=thread,
    )


def counted(outage: Outage) -> str:
    """Count the runs and jobs that an outage hit."""
    runs, jobs = len(outage.runs), len(outage.jobs)
    return f"{runs} {'run' if runs == 1 else 'runs'} of {jobs} {'job' if jobs == 1 else 'jobs'}"

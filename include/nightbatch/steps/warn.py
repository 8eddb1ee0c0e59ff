"""Warn people of a deadline (SLA): before it is missed, and when it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Literal

from nightbatch.core.deadline import Lateness, lateness
from nightbatch.core.outage import Hit
from nightbatch.core.shard import ShardState
from nightbatch.job import Job
from nightbatch.ports import Message, Ports, Run, Shard

from .figures import batch_words, moment, money_of, span
from .outage import close, deadline_subject, hit, outage_of, over_message
from .tell import tell, wants

KINDS: dict[Lateness, Literal["at_risk", "late"]] = {Lateness.AT_RISK: "at_risk", Lateness.MISSED: "late"}


def watch_deadline(ports: Ports, job: Job, run: Run, due: datetime, *, link: str = "") -> Lateness:
    """Look how an unfinished run stands to its deadline, and tell people when it is at risk or late."""
    if run.state in ("complete", "failed"):
        return Lateness.ON_TIME
    now = ports.clock.now()
    stands = lateness(now=now, due=due, warn_before=job.warn_before, started=run.started_utc)
    kind = KINDS.get(stands)
    if kind is not None:
        tell_lateness(ports, job, run, kind=kind, due=due, link=link)
    return stands


def tell_lateness(
    ports: Ports, job: Job, run: Run, *, kind: Literal["at_risk", "late"], due: datetime, link: str = ""
) -> None:
    """Tell people that a run is late, or about to be; further windows of the job that are late too are only counted."""
    if not wants(job, kind):
        return
    rows = sum(shard.plan.rows for shard in _waiting(ports.ledger.shards(run.run)))
    _, is_told = hit(ports, run.run, deadline_subject(job), kind, rows=rows)
    if is_told:
        tell(ports, run.run, late_message(ports, job, run, kind=kind, due=due, link=link))


def end_lateness(ports: Ports, job: Job, run: Run, *, is_well: bool, link: str = "") -> None:
    """End the lateness of a job when none of its late runs is under way; told where the last one ended well."""
    outage = outage_of(ports, deadline_subject(job))
    if outage.is_open and not any(_is_under_way(ports, hit) for hit in outage.hits):
        was_late = any(hit.kind == "late" for hit in outage.hits)
        title = f"{job.name}: the answers are there" if was_late else f"{job.name}: on time after all"
        what = f"Run {run.run} is complete, and no other late window is left."
        thread = f"{outage.hits[0].run}:{outage.hits[0].kind}"
        message = over_message(ports, job, outage, title=title, happened=what, thread=thread, link=link)
        message = replace(message, to_do="Nothing: the answers can be used.", if_nobody="Nothing is left to do.")
        close(ports, run.run, outage, message if is_well else None)


def _is_under_way(ports: Ports, hit: Hit) -> bool:
    try:
        return ports.ledger.run(hit.run).state == "open"
    except LookupError:
        # It has not begun, and most likely never will where that is long ago.
        return ports.clock.now() - hit.at_utc < timedelta(days=2)


def _waiting(shards: Sequence[Shard]) -> list[Shard]:
    return [shard for shard in shards if shard.state not in (ShardState.LOADED, ShardState.HELD)]


def late_message(
    ports: Ports, job: Job, run: Run, *, kind: Literal["at_risk", "late"], due: datetime, link: str = ""
) -> Message:
    """Say what is late or about to be, by how much, and which batches it waits for."""
    shards = ports.ledger.shards(run.run)
    waiting = _waiting(shards)
    rows = sum(shard.plan.rows for shard in waiting)
    total = sum(shard.plan.rows for shard in shards if not shard.plan.ref.round)
    left = span(abs((ports.clock.now() - due).total_seconds()))
    what = _waited_for(run, waiting, shards)
    message = Message(
        event_id=f"{run.run}:{kind}",
        kind=kind,
        title=f"{run.job}: {left} left",
        happened=f"In {left}, at {moment(job, due)}, the answers of this run are due. {what}",
        since=f"{moment(job, run.started_utc)}, when the run began",
        rows=f"{rows:,} of {total:,} rows have no answer yet" if shards else "not known yet: nothing is planned",
        money=money_of(ports.ledger, run.run),
        happens_next="It goes on waiting, and loads every answer as it comes. Nothing is sent twice, nor in real time.",
        to_do="Tell the people who need the answers that they may be late, and see which batch is slow. That is all.",
        commands=(f"nightbatch status {run.job}",),
        if_nobody=(
            "The run ends when its batches do, at the latest some 24 hours after they were sent. If that is after the "
            "deadline, one more message comes when it is missed."
        ),
        facts=(
            ("Deadline (SLA)", moment(job, due)),
            ("Window", str(run.window)),
            ("Run", run.run),
            ("Waiting for", f"{len(waiting)} of {len(shards)} shards, {rows:,} rows" if shards else "no plan yet"),
            ("Batches", ", ".join(map(batch_words, waiting[:5])) or "none is open"),
        ),
        link=link or ports.settings.ui_base_url,
    )
    return message if kind == "at_risk" else _missed(job, run, message, due=due, left=left, what=what)


def _missed(job: Job, run: Run, message: Message, *, due: datetime, left: str, what: str) -> Message:
    return replace(
        message,
        title=f"{run.job}: {left} late",
        happened=f"The answers of this run were due at {moment(job, due)}. {what}",
        since=f"{moment(job, due)}, {left} ago",
        to_do=(
            "Decide whether late answers are of use. If so, do nothing. If not, cancel: the command says what that "
            "costs and keeps, and asks before it does anything."
        ),
        commands=(f"nightbatch status {run.job}", f"nightbatch cancel {run.run}"),
        if_nobody=(
            "Late answers are loaded as they come, and the run ends by itself, at the latest some 24 hours after its "
            "last batch was sent. Rows that expire at the vendor are sent again, which takes longer still."
        ),
        thread=f"{run.run}:at_risk",
    )


def _waited_for(run: Run, waiting: Sequence[Shard], shards: Sequence[Shard]) -> str:
    if not shards:
        return f"The run of window {run.window} has not been planned: `prepare` has not begun, or is still reading."
    if not waiting:
        return "Every batch is done; the run is being closed."
    vendors = ", ".join(sorted({shard.plan.provider for shard in waiting}))
    return f"{len(waiting)} of {len(shards)} shards are not done; they wait for {vendors}."

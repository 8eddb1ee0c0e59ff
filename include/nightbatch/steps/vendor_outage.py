"""Tell of a vendor that has not answered for long: one message for all runs that wait for it, and one at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from nightbatch.core.outage import Outage
from nightbatch.core.shard import ShardState
from nightbatch.errors import ProviderBusy
from nightbatch.job import Job
from nightbatch.ports import Message, Ports, Shard

from .figures import moment, span, usd
from .outage import away_subject, close, counted, forget, hit, note_told, outage_of, over_message
from .outcome import BatchWait, Outcome, Waiting
from .telemetry import lane_labels
from .tell import tell, wants

Doing = Literal["send", "look"]
"""What did not work. An outage is over when something works again that did not: looks may work and sends not."""

FORGOTTEN_AFTER = timedelta(hours=2)
"""
At least so old is a failed try that nobody was told of and that is no outage any more: nobody has tried since.

Whoever goes on trying tells of it long before. A run that ended with one is not followed by another, a day later, whose
first try fails, and that says that the vendor was away for a day.
"""

_DONE = (ShardState.COLLECTED, ShardState.LOADED, ShardState.HELD)


def waits_for_vendor(ports: Ports, shard: Shard, busy: ProviderBusy) -> Waiting:
    """Say when to ask a vendor again that did not answer; where it has the batch, a trigger may do that."""
    until = ports.clock.now() + timedelta(seconds=busy.retry_after_s or ports.settings.poll_from_s)
    plan, attempt = shard.plan, shard.current
    batch = None
    if shard.state is ShardState.OPEN and attempt is not None and attempt.batch_id is not None:
        created = attempt.created_utc or attempt.intent_utc
        batch = BatchWait(plan.provider, plan.connection, attempt.batch_id, created, lane_labels(plan))
    return Waiting(until, str(busy), batch, away=str(busy))


def note_answer(ports: Ports, job: Job, shard: Shard, outcome: Outcome) -> None:
    """Note of one look at a shard whether its vendor answered, and tell people what follows from it."""
    if not wants(job, "away"):
        return
    if outcome.away:
        _tell_away(ports, job, shard, count_away(ports, job, shard), outcome.away)
    elif shard.state is ShardState.OPEN:
        _note_works(ports, job, shard, "look")


def note_sent(ports: Ports, job: Job, shard: Shard) -> None:
    """Note that the vendor has taken a batch."""
    if wants(job, "away"):
        _note_works(ports, job, shard, "send")


def count_away(ports: Ports, job: Job, shard: Shard, *, since: datetime | None = None) -> Outage:
    """
    Count a run to the outage of its vendor, and tell nobody yet.

    `since` is when the vendor was first not heard of, where that was before now.
    """
    doing: Doing = "send" if shard.state is ShardState.SEALED else "look"
    run, known = shard.plan.ref.run, outage_of(ports, _subject(job, shard))
    if known.is_open and not known.told and ports.clock.now() - known.began_utc > _long(ports):
        forget(ports, known)
        known = outage_of(ports, _subject(job, shard))
    if known.is_open and any((one.run, one.kind) == (run, doing) for one in known.hits):
        return known
    rows = sum(one.plan.rows for one in _held_up(ports, shard, run))
    return hit(ports, run, _subject(job, shard), doing, rows=rows, at=since)[0]


def _long(ports: Ports) -> timedelta:
    settings = ports.settings
    return max(FORGOTTEN_AFTER, timedelta(seconds=2 * settings.away_after_s + settings.poll_to_s))


def _tell_away(ports: Ports, job: Job, shard: Shard, outage: Outage, said: str) -> None:
    """Tell people of an outage that has lasted, once a day of it."""
    now, run = ports.clock.now(), shard.plan.ref.run
    lasts, day = (now - outage.began_utc).total_seconds(), outage.day(now)
    if lasts >= ports.settings.away_after_s and day not in outage.told:
        tell(ports, run, away_message(ports, job, shard, outage, said=said), waits=True)
        note_told(ports, outage, day)


def _note_works(ports: Ports, job: Job, shard: Shard, doing: Doing) -> None:
    outage = outage_of(ports, _subject(job, shard))
    if not outage.is_open or all(one.kind != doing for one in outage.hits):
        return
    if outage.told:
        close(ports, shard.plan.ref.run, outage, _over(ports, job, shard, outage))
    else:
        forget(ports, outage)


def _subject(job: Job, shard: Shard) -> str:
    return away_subject(job, shard.plan.provider, shard.plan.connection)


def _thread(outage: Outage) -> str:
    return f"{outage.hits[0].run}:away:{outage.number}"


def _held_up(ports: Ports, shard: Shard, run: str) -> Sequence[Shard]:
    """Give the shards of a run that wait for the vendor of this one."""
    lane = (shard.plan.provider, shard.plan.connection)
    found = ports.ledger.shards(run)
    return [one for one in found if (one.plan.provider, one.plan.connection) == lane and one.state not in _DONE]


def away_message(ports: Ports, job: Job, shard: Shard, outage: Outage, *, said: str) -> Message:
    """Say since when the vendor has not answered, what that holds up, and that the runs wait by themselves."""
    plan, now, day = shard.plan, ports.clock.now(), outage.day(ports.clock.now())
    waiting = [one for run in outage.runs for one in _held_up(ports, shard, run)]
    spent = [ports.ledger.spent(run) for run in outage.runs]
    lasts = span((now - outage.began_utc).total_seconds())
    return Message(
        event_id=_thread(outage) + (f":{day}" if day else ""),
        kind="away",
        title=f"{plan.provider} has not answered for {lasts} (connection {plan.connection})",
        happened=f"No try has worked for {lasts}. The last one: {said}",
        since=moment(job, outage.began_utc),
        rows=(
            f"{sum(one.plan.rows for one in waiting):,} rows in {len(waiting)} shards of {counted(outage)} wait for it"
        ),
        money=(
            f"{usd(sum((used for _, used in spent), Decimal(0)))} spent in these runs; at most "
            f"{usd(sum((reserved for reserved, _ in spent), Decimal(0)))} more for batches under way"
        ),
        happens_next=(
            "Every run goes on trying by itself, holding no worker, and uses up no round: what waits is sent, looked "
            "at and loaded as soon as the vendor answers. A message comes then, and a reminder after 20 hours."
        ),
        to_do=(
            "See whether it is the vendor (its status page) or the way there: a proxy, a firewall, the connection's "
            "host. One question shows whether it answers. If the answers are due before, tell the people who need them."
        ),
        commands=(f"nightbatch try {job.name} -n 1", f"nightbatch status {job.name}"),
        if_nobody=(
            "The runs wait for as long as it lasts, and their deadlines are told as ever. Batches that were sent go on "
            "at the vendor; their answers are kept there for 29 or 30 days."
        ),
        facts=(
            ("Vendor", f"{plan.provider}, connection {plan.connection}"),
            *(("Run", name) for name in outage.runs[:20]),
        ),
        link=ports.settings.ui_base_url,
        thread=_thread(outage) if day else "",
    )


def _over(ports: Ports, job: Job, shard: Shard, outage: Outage) -> Message:
    title = f"{shard.plan.provider} answers again through the connection {shard.plan.connection}"
    happened = "The vendor answers again, and what waited for it goes on."
    message = over_message(ports, job, outage, title=title, happened=happened, thread=_thread(outage))
    return replace(
        message,
        happens_next="The runs that waited go on by themselves, and load every answer as it comes.",
        to_do="Nothing. The command shows how the runs stand; what comes too late for its deadline is told by itself.",
        if_nobody="The runs end as on any other night, later.",
    )

"""Tell people: at risk, late, failed, incomplete, report. Written down first, then sent, at most one repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from nightbatch.core.deadline import Lateness, lateness
from nightbatch.core.proof import told
from nightbatch.core.shard import ShardState
from nightbatch.errors import NightbatchError, RunCancelled, RunIncomplete
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import Message, Ports, Run, Shard

from .canary import stopped, why
from .letters import Group
from .settle import Books

log = logger(__name__)


MOST_PAUSE_S = 5.0
"""How long, at most, a message that somebody else is sending is left alone between two looks."""


def tell(ports: Ports, run: str, message: Message, *, waits: bool = False) -> int:
    """
    Deliver a message over every channel that has not had it; gives how many took it.

    A channel that is down is logged and fails nothing: the run's colour says the same. With `waits`, a message that
    another process began to send is waited for, and sent once more if that one turns out to be dead: for messages
    that nobody would come to tell later.
    """
    now = ports.clock.now
    payload = {"title": message.title, "facts": list(map(list, message.facts)), "to_do": message.to_do}
    ports.ledger.record_event(message.event_id, message.kind, run, payload, now=now())
    delivered = 0
    for notifier in ports.notifiers():
        if not _is_ours_to_tell(ports, message.event_id, notifier.channel, waits=waits):
            continue
        try:
            notifier.send(message)
        except NightbatchError as error:
            log.warning("could not tell people by %s: %s", notifier.channel, error)
            continue
        ports.ledger.note_delivered(message.event_id, notifier.channel, now=now())
        delivered += 1
    return delivered


def _is_ours_to_tell(ports: Ports, event_id: str, channel: str, *, waits: bool) -> bool:
    again_after = timedelta(seconds=ports.settings.tell_again_s)
    while not ports.ledger.may_deliver(event_id, channel, again_after=again_after, now=ports.clock.now()):
        since = ports.ledger.delivery_claimed(event_id, channel)
        if since is None or not waits:
            return False
        left = (since + again_after - ports.clock.now()).total_seconds()
        ports.clock.sleep(min(max(left, 0.05), MOST_PAUSE_S))
    return True


def watch_deadline(ports: Ports, job: Job, run: Run, due: datetime, *, link: str = "") -> Lateness:
    """Look how an unfinished run stands to its deadline, and tell people when it is at risk or late."""
    shards = ports.ledger.shards(run.run)
    if run.state in ("complete", "failed"):
        return Lateness.ON_TIME
    now = ports.clock.now()
    stands = lateness(now=now, due=due, warn_before=job.warn_before, started=run.started_utc)
    kind = {Lateness.AT_RISK: "at_risk", Lateness.MISSED: "late"}.get(stands)
    if kind is not None and kind in job.notify.on:
        tell(ports, run.run, late_message(ports, run, shards, kind=kind, due=due, now=now, link=link))
    return stands


def late_message(
    ports: Ports, run: Run, shards: Sequence[Shard], *, kind: str, due: datetime, now: datetime, link: str
) -> Message:
    """Say what is late or about to be, by how much, and which batches it waits for."""
    waiting = [shard for shard in shards if shard.state not in (ShardState.LOADED, ShardState.HELD)]
    span = _span(abs((now - due).total_seconds()))
    if kind == "late":
        title = f"{run.job}: {span} late"
        when = f"{due:%Y-%m-%d %H:%M} UTC, missed by {span}"
    else:
        title = f"{run.job}: {span} left"
        when = f"{due:%Y-%m-%d %H:%M} UTC, in {span}"
    rows = sum(shard.plan.rows for shard in waiting)
    reserved, spent = ports.ledger.spent(run.run)
    return Message(
        event_id=f"{run.run}:{kind}",
        kind=kind,
        title=title,
        facts=(
            ("Deadline (SLA)", when),
            ("Window", str(run.window)),
            ("Run", run.run),
            ("Waiting for", f"{len(waiting)} of {len(shards)} shards, {rows:,} rows" if shards else "no plan yet"),
            ("Batches", ", ".join(map(batch_words, waiting[:5])) or "none is open"),
            ("Money", f"{spent:.4f} USD spent, at most {reserved:.4f} more reserved"),
        ),
        happens_next="nightbatch goes on waiting; every answer is loaded as it arrives, and nothing is sent twice.",
        to_do=(
            f"If the answers are no use later, run `nightbatch status {run.job}` to see which batch is slow; "
            f"`nightbatch cancel {run.run}` says what a cancel costs and keeps before it asks. Otherwise do nothing."
        ),
        link=link or ports.settings.ui_base_url,
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def batch_words(shard: Shard) -> str:
    """Name a shard's batch and its state."""
    attempt = shard.current
    if attempt is None or attempt.batch_id is None:
        return f"{shard.plan.ref.name} ({shard.waits_for or f'{shard.state}, no batch yet'})"
    return f"{shard.plan.ref.name} = {attempt.batch_id} at {attempt.provider} ({attempt.vendor_status or 'open'})"


def tell_ending(
    ports: Ports, job: Job, run: Run, books: Books | None, problem: NightbatchError | None, *, link: str = ""
) -> None:
    """Send the report of a run that is complete, or say that it failed or is incomplete."""
    if problem is None:
        if "report" in job.notify.on and books is not None:
            tell(ports, run.run, _report(ports, run, books, link), waits=True)
    elif "failed" in job.notify.on:
        tell(ports, run.run, _failure(ports, run, books, problem, link), waits=True)


def _report(ports: Ports, run: Run, books: Books, link: str) -> Message:
    proof = f"{told(ports.ledger.proof(run.run))} (`nightbatch audit {run.run}`)"
    return Message(
        event_id=f"{run.run}:report",
        kind="report",
        title=f"{run.job}: {books.merged:,} answers loaded for {books.cost_usd:.4f} USD",
        facts=(("Window", str(run.window)), ("Run", run.run), *book_facts(books), ("Proof", proof)),
        happens_next="Nothing; the run is complete.",
        to_do="Nothing.",
        link=link or ports.settings.ui_base_url,
    )


def _failure(ports: Ports, run: Run, books: Books | None, problem: NightbatchError, link: str) -> Message:
    is_incomplete = isinstance(problem, RunIncomplete)
    what = f"{problem.pending:,} rows are pending" if isinstance(problem, RunIncomplete) else str(run.window)
    gate = stopped(ports.ledger, run.run)
    moment = f"{ports.clock.now():%Y%m%dT%H%M%S}"
    # Whoever settles it then, the command or the Dag, tells of one cancel once.
    ending = (
        "cancelled" if isinstance(problem, RunCancelled) else f"failed:{books.state if books else 'no-plan'}:{moment}"
    )
    return Message(
        # A run may fail, be cleared, and fail again: each ending is an event of its own.
        event_id=f"{run.run}:{ending}",
        kind="incomplete" if is_incomplete else "failed",
        title=f"{run.job}: {what}",
        facts=(
            ("What happened", str(problem)),
            *((("Canary", why(gate)),) if gate else ()),
            ("Window", str(run.window)),
            ("Run", run.run),
            *(book_facts(books) if books else ()),
        ),
        happens_next=(
            "The job's next run takes the pending rows first. Loaded answers stay; nothing is paid twice."
            if is_incomplete
            else "Nothing happens on its own. Loaded answers stay; nothing is paid twice."
        ),
        to_do=_release_words(run) if gate else _AGAIN,
        link=link or ports.settings.ui_base_url,
    )


_AGAIN = "Mend the cause above, then clear the run in Airflow (with downstream), or run the window again."


def _release_words(run: Run) -> str:
    return (
        f"Look at the canary's answers. If they are as they should be, run `nightbatch release {run.run}` and then "
        "clear the run in Airflow (with downstream). If not, mend prompt, schema or model and run the window with "
        "force: it is planned anew. If nobody does either, the job's next run sends a canary of its own before it "
        "takes these rows."
    )


def book_facts(books: Books) -> tuple[tuple[str, str], ...]:
    """Give the figures of a run that people ask for, in reading order."""
    dead = ", ".join(f"{count:,} {reason}" for reason, count in books.dead.items())
    again = ", ".join(f"{count:,} {reason}" for reason, count in books.sent_again.items())
    return (
        ("Records pulled", f"{books.pulled:,} (and {books.from_pending:,} pending from earlier runs)"),
        *((("Dead letters sent again", f"{books.from_dead:,}"),) if books.from_dead else ()),
        ("Unchanged / duplicates", f"{books.unchanged:,} / {books.duplicates:,}"),
        ("Loaded", f"{books.merged:,}"),
        ("Sent again", again or "none"),
        ("Dead letters", f"{books.dead_rows:,}" + (f" ({dead})" if dead else "")),
        *letter_facts(books.run, books.letters),
        ("Pending", f"{sum(books.pending.values()) + books.copies_pending:,}"),
        ("Batches", f"{books.batches:,}" + (f", and {books.doubles:,} made twice" if books.doubles else "")),
        *_surprises(books),
        ("Cost", f"{books.cost_usd:.4f} USD (real time: {books.realtime_usd:.4f} USD)"),
        *((("Paid twice", f"{books.doubles_usd:.4f} USD beside it"),) if books.doubles else ()),
    )


def _surprises(books: Books) -> tuple[tuple[str, str], ...]:
    """Give what went past the worst case, for a run where something did."""
    found = []
    if books.above_reserve:
        more = f"{books.above_reserve:,} shards cost {books.above_reserve_usd:.4f} USD more than their worst case"
        found.append(("Above the reserve", f"{more}; it is booked, and counts in every budget"))
    if books.turned_up:
        late = f"{books.turned_up:,}, reserved again even where a budget left less"
        found.append(("Batches thought absent that turned up", late))
    return tuple(found)


def letter_facts(run: str, letters: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Give the dead letters that stand, by reason, each with what it would cost to send them again."""
    groups = [Group.from_json(one) for one in letters]
    facts = [(f"Dead: {group.reason}", second_chance_words(group)) for group in groups]
    if any(group.can_be_sent for group in groups):
        facts.append(("Second chance", f"nightbatch retry {run} --reason REASON"))
    return tuple(facts)


def second_chance_words(group: Group) -> str:
    """Say how many dead letters have a reason, and what a retry of them would cost."""
    if not group.can_be_sent:
        return f"{group.rows:,} rows; never sent, so a retry cannot help: mend the data, run the window with force"
    requests = "" if group.rows == group.requests else f" ({group.requests:,} requests)"
    if group.expected_usd is None or group.worst_usd is None:
        return f"{group.rows:,} rows{requests}; a retry costs an unknown price"
    money = f"{group.expected_usd:.4f} USD expected, {group.worst_usd:.4f} USD at worst"
    return f"{group.rows:,} rows{requests}; a retry costs {money}"

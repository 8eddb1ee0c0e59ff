"""What messages and commands say of a run in figures: rows, money, batches, dead letters, and the runs before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from nightbatch.job import Job
from nightbatch.ports import Ledger, PastRun, Run, Shard

from .letters import Group
from .settle import Books, books_of

MOST_RUNS = 30
"""How many runs a plot shows."""


def moment(job: Job, when: datetime) -> str:
    """Give an instant as people on call read it: in the job's time zone, and in UTC."""
    utc = f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    local = when.astimezone(ZoneInfo(job.timezone))
    if not local.utcoffset():
        return utc
    same_day = local.date() == when.astimezone(UTC).date()
    return f"{local:%Y-%m-%d %H:%M} {job.timezone} ({utc[11:] if same_day else utc})"


def due_of(job: Job, run: Run) -> datetime | None:
    """Give a run's deadline: its own, else the job's for its window; None without either."""
    if run.plan and run.plan.get("deadline_utc"):
        return datetime.fromisoformat(str(run.plan["deadline_utc"]))
    rule = job.deadline_rule()
    return rule.due(run.window.end) if rule else None


def span(seconds: float) -> str:
    """Give a length of time in the unit that people would say it in."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"
    return f"{seconds / 86_400:.0f} days"


def usd(amount: Decimal) -> str:
    """Give money with cents, and with more digits where there are not even cents."""
    return f"{amount:,.2f} USD" if amount >= 1 or not amount else f"{amount:.4f} USD"


def money_of(ledger: Ledger, run: str) -> str:
    """Say what a run has spent, and what is reserved for batches under way."""
    reserved, spent = ledger.spent(run)
    return f"{usd(spent)} spent; at most {usd(reserved)} more for what is under way"


def batch_words(shard: Shard) -> str:
    """Name a shard's batch and its state."""
    attempt = shard.current
    if attempt is None or attempt.batch_id is None:
        return f"{shard.plan.ref.name} ({shard.waits_for or f'{shard.state}, no batch yet'})"
    return f"{shard.plan.ref.name} = {attempt.batch_id} at {attempt.provider} ({attempt.vendor_status or 'open'})"


def rows_of(books: Books) -> str:
    """Say in one line what became of a run's rows."""
    bad = f"{books.dead_rows:,} dead, {books.pending_rows + books.in_flight:,} pending"
    bad += f", {books.held_back:,} kept by the quality gate" if books.held_back else ""
    return f"{books.rows:,} in the run: {books.merged:,} loaded, {books.unchanged:,} unchanged, {bad}"


def book_facts(books: Books) -> tuple[tuple[str, str], ...]:
    """Give the figures of a run that people ask for, in reading order."""
    dead = ", ".join(f"{count:,} {reason}" for reason, count in books.dead.items())
    again = ", ".join(f"{count:,} {reason}" for reason, count in books.sent_again.items())
    pending = ", ".join(f"{count:,} {reason}" for reason, count in books.pending.items())
    return (
        ("Records pulled", f"{books.pulled:,} (and {books.from_pending:,} pending from earlier runs)"),
        *((("Dead letters sent again", f"{books.from_dead:,}"),) if books.from_dead else ()),
        ("Unchanged / duplicates", f"{books.unchanged:,} / {books.duplicates:,}"),
        ("Loaded", f"{books.merged:,}"),
        ("Sent again", again or "none"),
        ("Dead letters", f"{books.dead_rows:,}" + (f" ({dead})" if dead else "")),
        *letter_facts(books.run, books.letters),
        ("Pending", f"{books.pending_rows:,}" + (f" ({pending})" if pending else "")),
        *((("Kept by the quality gate", f"{books.held_back:,}"),) if books.held_back else ()),
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


def history_of(ledger: Ledger, job: Job) -> tuple[PastRun, ...]:
    """Give a job's last runs that have books, oldest first."""
    runs = [(run, books) for run in ledger.runs(job=job.name, limit=MOST_RUNS) if (books := books_of(run))]
    return tuple(_past(job, run, books) for run, books in reversed(runs))


def _past(job: Job, run: Run, books: Books) -> PastRun:
    return PastRun(
        day=f"{run.window.end.astimezone(ZoneInfo(job.timezone)):%Y-%m-%d}",
        good=books.merged,
        dead=books.dead_rows,
        pending=books.pending_rows + books.in_flight,
        cost_usd=books.cost_usd,
        state=run.state,
    )

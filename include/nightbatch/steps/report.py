"""The morning report: what a complete run did, what it cost, and how it stands beside the runs before it."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from nightbatch.core.proof import told
from nightbatch.job import Job
from nightbatch.ports import Ledger, Message, Ports, Run

from .absence import fresh_words, standing_of
from .budgets import day_of
from .figures import book_facts, due_of, history_of, moment, rows_of, span, usd
from .settle import Books


def report(ports: Ports, job: Job, run: Run, books: Books, *, link: str = "") -> Message:
    """Report a complete run."""
    now = ports.clock.now()
    oldest = fresh_words(standing_of(ports.ledger, job), now)
    proof = f"{told(ports.ledger.proof(run.run))} (`nightbatch audit {run.run}`)"
    return Message(
        event_id=f"{run.run}:report",
        kind="report",
        title=f"{run.job}: {books.merged:,} answers loaded for {usd(books.cost_usd)}",
        happened=f"The run of window {run.window} is complete. {time_words(job, run, now)}",
        since=f"{moment(job, run.started_utc)}, when the run began; it took {span(books.seconds)}",
        rows=rows_of(books),
        money="; ".join(money_words(ports.ledger, job, books, now)),
        happens_next="Nothing more for this window. The next one is a run of its own.",
        to_do=_to_do(books),
        commands=(f"nightbatch retry {run.run}",) if books.letters else (f"nightbatch status {run.job}",),
        if_nobody="Dead letters stay where they are." if books.letters else "Nothing is left to do.",
        facts=(
            ("Window", str(run.window)),
            ("Run", run.run),
            *book_facts(books),
            ("Oldest answer in use", oldest),
            ("Proof", proof),
        ),
        link=link or ports.settings.ui_base_url,
        history=history_of(ports.ledger, job),
    )


def time_words(job: Job, run: Run, now: datetime) -> str:
    """Say how the end of a run stands to its deadline."""
    due = due_of(job, run)
    if due is None:
        return f"It ended at {moment(job, now)}; it has no deadline."
    left = (due - now).total_seconds()
    how = f"{span(left)} before" if left >= 0 else f"{span(-left)} after"
    return f"It ended at {moment(job, now)}, {how} its deadline (SLA)."


def money_words(ledger: Ledger, job: Job, books: Books, now: datetime) -> list[str]:
    """Compare what a run cost with its budgets, and with what the same would have cost in real time."""
    said = [usd(books.cost_usd)]
    if job.budget_usd is not None:
        said[0] += f" of {usd(job.budget_usd)} allowed ({_share(books.cost_usd, job.budget_usd)})"
    if books.realtime_usd:
        said.append(f"in real time {usd(books.realtime_usd)} ({_share(books.cost_usd, books.realtime_usd)} of that)")
    if job.budget_month_usd is not None:
        today = day_of(job, now)
        month = ledger.costs(job=job.name, since=today.replace(day=1), until=today + timedelta(days=1))
        spent = sum((line.cost.batch_usd for line in month), start=Decimal(0))
        said.append(f"this month {usd(spent)} of {usd(job.budget_month_usd)} ({_share(spent, job.budget_month_usd)})")
    return said


def _share(part: Decimal, whole: Decimal) -> str:
    return f"{part / whole:.0%}"


def _to_do(books: Books) -> str:
    if books.letters:
        return "Nothing must be done. The command shows the dead letters by reason, and what sending them again costs."
    return "Nothing."

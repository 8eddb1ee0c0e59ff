"""The morning report: what a complete run did, what it cost, and how it stands beside the runs before it."""

from __future__ import annotations

from nightbatch.core.proof import told
from nightbatch.job import Job
from nightbatch.ports import Message, Ports, Run

from .absence import fresh_words, standing_of
from .figures import book_facts, history_of, moment, rows_of, usd
from .settle import Books


def report(ports: Ports, job: Job, run: Run, books: Books, *, link: str = "") -> Message:
    """Report a complete run."""
    oldest = fresh_words(standing_of(ports.ledger, job), ports.clock.now())
    proof = f"{told(ports.ledger.proof(run.run))} (`nightbatch audit {run.run}`)"
    return Message(
        event_id=f"{run.run}:report",
        kind="report",
        title=f"{run.job}: {books.merged:,} answers loaded for {usd(books.cost_usd)}",
        happened=f"The run of window {run.window} is complete.",
        since=f"{moment(job, run.started_utc)}, when the run began",
        rows=rows_of(books),
        money=f"{usd(books.cost_usd)}; the same in real time: {usd(books.realtime_usd)}",
        happens_next="Nothing; the run is complete. The next window is its own run.",
        to_do="Nothing. Dead letters, where there are any, can be sent again; the command shows them and asks first.",
        commands=(f"nightbatch retry {run.run}",) if books.letters else (f"nightbatch status {run.job}",),
        if_nobody="Nothing. Dead letters stay where they are.",
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

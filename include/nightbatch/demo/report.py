"""What the demo prints at its end: figures read back from the sink, the ledger, the store and the sinks of alerts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import psycopg
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nightbatch.adapters.sinks.files import read_latest
from nightbatch.demo.installation import BUCKET, Installation
from nightbatch.ports import Run

AGREEMENT = """
select count(*) filter (where sentiment = rated), count(*)
from (
  select s.sentiment,
         case when r.human_sentiment > 0.5 then 'positive' when r.human_sentiment < -0.5 then 'negative'
              else 'neutral' end as rated
  from review_sentiment s join product_reviews r using (sentence_id)
) compared
"""


@dataclass(frozen=True)
class Ending:
    """How one job of the demo ended."""

    job: str
    run: Run
    airflow_state: str
    seconds: float
    url: str


def figures(installation: Installation, ending: Ending) -> Table:
    """Give the figures of a run, as its books in the ledger have them."""
    books = ending.run.books or {}
    deliveries = installation.ledger().deliveries(ending.run.run)
    alerts = Counter(f"{kind} by {channel}" for _, kind, channel in deliveries)
    pending = sum(books["pending"].values()) + books["copies_pending"]
    dead = sum(books["dead"].values()) + books["copies_dead"] + books["unrenderable"]
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in (
        ("records pulled", f"{books['pulled']:,}"),
        ("unchanged / duplicates", f"{books['unchanged']:,} / {books['duplicates']:,}"),
        ("loaded", f"{books['merged']:,}"),
        ("sent again", _by_reason(books["sent_again"])),
        ("dead letters", f"{dead:,}" + (f" ({_by_reason(books['dead'])})" if books["dead"] else "")),
        ("pending", f"{pending:,}"),
        ("batches", f"{books['batches']:,}"),
        ("tokens", f"{books['input_tokens']:,} in, {books['output_tokens']:,} out"),
        ("cost", f"{float(books['cost_usd']):.4f} USD; in real time {float(books['realtime_usd']):.4f} USD"),
        ("time", f"{ending.seconds:,.0f} s"),
        ("alerts delivered", ", ".join(f"{count} {what}" for what, count in sorted(alerts.items())) or "none"),
        ("run", ending.url),
    ):
        table.add_row(Text(name, style="dim"), Text(value))
    return table


def _by_reason(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items())) or "none"


def sentiment_lines(installation: Installation) -> list[str]:
    """Compare the answers with people's ratings."""
    with psycopg.connect(installation.warehouse_url) as connection:
        agree, rated = connection.execute(AGREEMENT).fetchone() or (0, 0)
    share = agree / rated if rated else 0.0
    lines = [f"agrees with the human ratings on {agree:,} of {rated:,} sentences ({share:.0%})"]
    if not installation.is_real:
        lines.append(
            "(the emulator answers with VADER, whose authors evaluated it on this very data: agreement proves the "
            "plumbing, not a model)"
        )
    return lines


def topic_lines(installation: Installation) -> list[str]:
    """Count the topics in the answers in S3."""
    table = read_latest(f"s3://{BUCKET}/topics/", installation.connections("aws_default"))
    topics = Counter(table.column("main_topic").to_pylist())
    return [", ".join(f"{topic} {count:,}" for topic, count in topics.most_common())]


def show(console: Console, installation: Installation, endings: list[Ending]) -> None:
    """Print everything."""
    extra = {"review_sentiment": sentiment_lines, "review_topics": topic_lines}
    for ending in endings:
        lines = extra[ending.job](installation) if ending.run.books and ending.run.books.get("merged") else []
        colour = "green" if ending.run.state == "complete" else "red"
        title = f"[bold]{ending.job}[/]: [{colour}]{ending.run.state}[/]"
        body = Group(figures(installation, ending), *(Text(f"  {line}") for line in lines))
        console.print(Panel(body, title=title, title_align="left"))


def broken_promises(installation: Installation, endings: list[Ending]) -> list[str]:
    """Name everything that the demo promised and did not happen; with real vendors no faults are promised."""
    broken = []
    for ending in endings:
        books = ending.run.books or {}
        if ending.airflow_state != "success" or ending.run.state != "complete":
            broken.append(f"{ending.job} ended {ending.airflow_state}, {ending.run.state}")
            continue
        dead = sum(books["dead"].values()) + books["copies_dead"] + books["unrenderable"]
        if not installation.is_real:
            if books["merged"] + dead != books["pulled"]:
                broken.append(f"{ending.job} pulled {books['pulled']}, loaded {books['merged']}, buried {dead}")
            if not books["sent_again"]:
                broken.append(f"{ending.job} sent nothing again")
            if not books["dead"]:
                broken.append(f"{ending.job} has no dead letter")
    if not installation.is_real:
        mails = " ".join(mail.subject for mail in installation.mail.mails())
        slack = " ".join(message.text for message in installation.slack.messages())
        broken += [f"no deadline alert by {where}" for where, text in (("mail", mails), ("Slack", slack))
                   if "deadline (SLA) missed" not in text]  # fmt: skip
    return broken

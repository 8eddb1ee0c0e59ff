"""What the demo prints at its end: figures read back from the sink, the ledger, the store and the sinks of alerts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from nightbatch.adapters.sinks.files import read_latest
from nightbatch.cli_evaluate import compare
from nightbatch.demo.installation import BUCKET, PROJECT, Installation
from nightbatch.job_file import load_job
from nightbatch.ports import Run

RATINGS = """
select sentence_id,
       case when human_sentiment > 0.5 then 'positive' when human_sentiment < -0.5 then 'negative'
            else 'neutral' end as rated
from product_reviews
"""
"""People's ratings as the job's words; what `nightbatch evaluate review_sentiment --labels` can be given too."""


@dataclass(frozen=True)
class Ending:
    """How one job of the demo ended."""

    job: str
    run: Run
    airflow_state: str
    seconds: float
    url: str


@dataclass(frozen=True)
class Figures:
    """What a run came to. Counts are rows, money is USD as exact text, reasons are those of the ledger."""

    job: str
    state: str
    pulled: int
    unchanged: int
    duplicates: int
    loaded: int
    sent_again: dict[str, int]
    dead_letters: dict[str, int]
    pending: int
    batches: int
    input_tokens: int
    output_tokens: int
    cost_usd: str
    realtime_usd: str
    seconds: float
    alerts: dict[str, int]
    run: str
    url: str


def figures(installation: Installation, ending: Ending) -> Figures:
    """Give the figures of a run, as its books in the ledger have them."""
    books = ending.run.books or {}
    deliveries = installation.ledger().deliveries(ending.run.run)
    others = {"copies": books.get("copies_dead", 0), "unrenderable": books.get("unrenderable", 0)}
    dead = {**books.get("dead", {}), **others}
    return Figures(
        job=ending.job,
        state=ending.run.state,
        pulled=books.get("pulled", 0),
        unchanged=books.get("unchanged", 0),
        duplicates=books.get("duplicates", 0),
        loaded=books.get("merged", 0),
        sent_again=dict(books.get("sent_again", {})),
        dead_letters={reason: count for reason, count in dead.items() if count},
        pending=sum(books.get("pending", {}).values()) + books.get("copies_pending", 0) + books.get("in_flight", 0),
        batches=books.get("batches", 0),
        input_tokens=books.get("input_tokens", 0),
        output_tokens=books.get("output_tokens", 0),
        cost_usd=str(books.get("cost_usd", "0")),
        realtime_usd=str(books.get("realtime_usd", "0")),
        seconds=ending.seconds,
        alerts=dict(Counter(f"{kind} by {channel}" for _, kind, channel in deliveries)),
        run=ending.run.run,
        url=ending.url,
    )


def _drawn(found: Figures) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    dead = sum(found.dead_letters.values())
    for name, value in (
        ("records pulled", f"{found.pulled:,}"),
        ("unchanged / duplicates", f"{found.unchanged:,} / {found.duplicates:,}"),
        ("loaded", f"{found.loaded:,}"),
        ("sent again", _counted(found.sent_again)),
        ("dead letters", f"{dead:,}" + (f" ({_counted(found.dead_letters)})" if dead else "")),
        ("pending", f"{found.pending:,}"),
        ("batches", f"{found.batches:,}"),
        ("tokens", f"{found.input_tokens:,} in, {found.output_tokens:,} out"),
        ("cost", f"{float(found.cost_usd):.4f} USD; in real time {float(found.realtime_usd):.4f} USD"),
        ("time", f"{found.seconds:,.0f} s"),
        ("alerts delivered", _counted(found.alerts)),
        ("run", found.url),
    ):
        # Folded, not cut: an address that ends in dots leads nowhere.
        table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
    return table


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "none"


def sentiment_lines(installation: Installation) -> list[str]:
    """Compare the answers with people's ratings, as `nightbatch evaluate` does."""
    job = load_job(PROJECT / "include" / "jobs" / "review_sentiment.yaml")
    columns = {"key": "sentence_id", "label": "rated"}
    compared = compare(job, "sentiment", RATINGS, installation.connections, **columns)
    agree, rated = (sum(getattr(one, name) for one in compared.groups) for name in ("agree", "rows"))
    share = agree / rated if rated else 0.0
    lines = [f"agrees with the human ratings on {agree:,} of {rated:,} sentences ({share:.0%})"]
    for one in compared.groups:
        lines.append(f"prompt {one.prompt_version}, {one.model}: {one.usd_a_row:.6f} USD a record")
        for label, counts in sorted(one.confusion.items()):
            lines.append(f"people say {label}: answered {_counted(counts)}")
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


def show(console: Console, installation: Installation, endings: list[Ending]) -> list[Figures]:
    """Print everything, and give the figures."""
    extra = {"review_sentiment": sentiment_lines, "review_topics": topic_lines}
    found = [figures(installation, ending) for ending in endings]
    for ending, each in zip(endings, found, strict=True):
        lines = extra[ending.job](installation) if ending.run.books and ending.run.books.get("merged") else []
        colour = "green" if ending.run.state == "complete" else "red"
        title = f"[bold]{ending.job}[/]: [{colour}]{ending.run.state}[/]"
        body = Group(_drawn(each), *(Text(f"  {line}") for line in lines))
        console.print(Panel(body, title=title, title_align="left"))
    return found


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
                   if "Deadline (SLA) missed" not in text]  # fmt: skip
    return broken

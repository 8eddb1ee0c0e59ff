"""docs/scale.md says what the capacity model says. `python tests/test_scale_docs.py` writes its tables anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path

from nightbatch.adapters.providers import anthropic, openai
from nightbatch.core.capacity import (
    ASSUMED,
    BATCHES_A_TRIGGERER,
    HOUR,
    MOST_TASKS,
    PACE,
    Capacity,
    Room,
    Shards,
    capacity,
    way_out,
)
from nightbatch.core.queue import Kind, Limit, QueueRules
from nightbatch.core.shard import Limits
from nightbatch.steps.forecast_words import span

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"

RECORDS = 100_000_000
LINE_BYTES = 2_850
"""One encoded request: 2 KB of text, the prompt, and a schema of six fields."""
RESULT_BYTES = 1_070
"""One line of results, with an answer of six fields."""
SEEN_BYTES = 100
"""What prepare keeps of a known answer on its disk (ADR 7)."""
NIGHT = 10 * HOUR

CREATIONS = Limit(Kind.CREATIONS, openai.QUEUE["creations_per_hour"])
OPENAI = Limits(openai.MAX_ROWS, openai.MAX_BYTES)
ANTHROPIC = Limits(anthropic.MAX_ROWS, anthropic.MAX_BYTES)
ACCOUNTS = {
    f"OpenAI, {words} tokens may wait": (OPENAI, QueueRules((Limit(Kind.TOKENS, tokens), CREATIONS)))
    for words, tokens in (("2 M", 2_000_000), ("200 M", 200_000_000), ("5,000 M", 5_000_000_000))
} | {
    f"Anthropic, {rows:,} requests may wait": (ANTHROPIC, QueueRules((Limit(Kind.ROWS, rows),)))
    for rows in (200_000, 500_000)
}
UNLIMITED = "no limit but a batch's size"
ALL = {**ACCOUNTS, UNLIMITED: (OPENAI, QueueRules((CREATIONS,)))}


@cache
def needed(account: str, records: int = RECORDS) -> Capacity:
    """Ask the model."""
    limits, rules = ALL[account]
    tokens, rows = rules.most(Kind.TOKENS, ""), rules.most(Kind.ROWS, "")
    shards = Shards.packed(records, bytes_a_row=LINE_BYTES, limits=limits.within_queue(rows=rows, tokens=tokens))
    return capacity(shards, Room.of(rules, "", shards), ASSUMED)


def accounts() -> str:
    """Write what each account makes of the records."""
    rows = [
        f"| {account} | {found.shards.rows_each:,} | {found.shards.count:,} | {found.room.at_once:,} "
        f"| {_long(found.typical)} | {_long(found.slow)} | {_in_a_night(account):,} |"
        for account, found in ((account, needed(account)) for account in ALL)
    ]
    head = "| account | rows a shard | shards | at once | all of it | if every batch is slow | rows in 10 hours |"
    return "\n".join([head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |", *rows])


def _long(length: timedelta) -> str:
    years = length.days / 365
    return f"{years:,.0f} years" if years >= 2 else span(length)


def _in_a_night(account: str) -> int:
    found = needed(account)
    return found.shards.rows if found.typical <= NIGHT else way_out(found, ALL[account][1], "", NIGHT).rows


def breaks() -> str:
    """Write what gives way, in the order in which it does, for an account whose queue does not."""
    each = needed(UNLIMITED).shards.rows_each
    gigabytes = 1_000_000_000
    told: list[tuple[int, str, str]] = [
        (
            BATCHES_A_TRIGGERER * each,
            f"one triggerer waits for {BATCHES_A_TRIGGERER:,} batches",
            "start a second one; shards share themselves out",
        ),
        (
            MOST_TASKS * each,
            f"Airflow maps a task over {MOST_TASKS:,} shards",
            "raise `max_map_length`; `plan` says so before",
        ),
        (
            int(HOUR / PACE.prepare_row),
            "prepare takes an hour on one core",
            "`source.parts` shares it out to several workers",
        ),
        (
            100 * gigabytes // SEEN_BYTES,
            "known keys take 100 GB of the disk that prepare runs on",
            "a larger disk, or one job and sink for each year of records",
        ),
        (
            2_500 * gigabytes // LINE_BYTES,
            "request files fill the 2.5 TB of an OpenAI project",
            "`delete_vendor_files` (the default) lets them go once they are loaded",
        ),
    ]
    rows = [f"| {records:,} | {what} | {then} |" for records, what, then in sorted(told)]
    return "\n".join(["| records | what gives way | what then |", "| ---: | --- | --- |", *rows])


def ours() -> str:
    """Write what the records cost us, beside the vendor's time."""
    found = needed(UNLIMITED)
    files = f"{RECORDS * LINE_BYTES / 1e9:,.0f} GB of requests, {RECORDS * RESULT_BYTES / 1e9:,.0f} GB of raw results"
    told = [
        ("prepare, one core", span(PACE.prepare_row * RECORDS)),
        ("store, check and load, one core", span(PACE.answer_row * RECORDS)),
        ("starts of Airflow tasks", span(PACE.task * found.shards.count)),
        ("staging", files),
        ("known keys, on prepare's disk", f"{RECORDS * SEEN_BYTES / 1e9:,.0f} GB"),
        ("worker slots, so that a wave is loaded in 6 minutes", f"{found.workers:,}"),
        ("triggerers", f"{found.triggerers:,}"),
    ]
    return "\n".join(["| what | how much |", "| --- | --- |", *(f"| {what} | {much} |" for what, much in told)])


TABLES: dict[str, Callable[[], str]] = {"accounts": accounts, "breaks": breaks, "ours": ours}


def with_tables(page: str) -> str:
    """Put what the model says into a page, each table between its marks."""
    for name, table in TABLES.items():
        marks = re.compile(rf"(<!-- model: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, count = marks.subn(lambda found, table=table: f"{found[1]}{table()}\n{found[2]}", page)
        assert count == 1, f"docs/scale.md has {count} places for {name}"
    return page


def test_the_page_about_scale_says_what_the_model_says() -> None:
    """Wrong? `python tests/test_scale_docs.py` mends it."""
    page = PAGE.read_text(encoding="utf-8")

    assert with_tables(page) == page


def test_a_wave_of_the_largest_account_is_loaded_within_a_tenth_of_a_turnaround() -> None:
    found = needed(UNLIMITED)

    assert found.ours - PACE.prepare_row * RECORDS <= ASSUMED.typical * 0.1


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""`nightbatch orphans`: which batches at the vendors nobody owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from nightbatch import cli_progress as progress
from nightbatch import cli_show as show
from nightbatch.cli_check import JOBS, job_files
from nightbatch.cli_frame import EXIT_FAILED, Json, Verbose, errors_told, house_of_environment

if TYPE_CHECKING:
    from datetime import datetime

    from nightbatch.ports import Ledger
    from nightbatch.steps.orphans import Account, Orphan

Days = Annotated[int, typer.Option("--days", min=1, help="Look at batches made in the last so many days.")]


def orphans(days: Days = 30, as_json: Json = False, verbose: Verbose = False) -> None:
    """List batches that no attempt in this ledger owns, by account; changes nothing. Exits with 1 if there are any."""
    with errors_told(as_json=as_json, verbose=verbose):
        from nightbatch.steps import orphans as finding

        house = house_of_environment()
        now = house.clock.now()
        since = now - timedelta(days=days)
        listed = finding.orphans(house.ledger, house.provider, lanes_of(house.ledger), since=since)
        found = list(progress.each(listed, "reading the listing", quiet=as_json))
        if as_json:
            # `asdict` makes counts of a Counter's items.
            accounts = [asdict(account) | {"counts": dict(account.counts)} for account in found]
            show.print_json({"accounts": accounts})
        else:
            for line in lines(found, now=now):
                show.note(line)
    if any(account.orphans for account in found):
        raise typer.Exit(EXIT_FAILED)


def lanes_of(ledger: Ledger) -> list[tuple[str, str]]:
    """Give every (provider, connection) that the ledger or a job file knows, sorted."""
    from nightbatch.job_file import load_jobs

    jobs = load_jobs(JOBS)[0] if job_files() else []
    named = {(model.provider, model.connection) for job in jobs for model in job.models}
    return sorted(named | set(ledger.accounts_used()))


def lines(found: list[Account], *, now: datetime) -> Iterator[str]:
    """Say what there is, an account and an orphan each on lines of their own."""
    if not found:
        yield "no account is known: the ledger has sent nothing, and there are no job files in include/jobs"
    for account in found:
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(account.counts.items())) or "no batches"
        yield f"{account.provider} by {account.connection}, account {account.account}: {counts}"
        for orphan in account.orphans:
            yield f"  {_words(orphan, now)}"
            yield f"    {orphan.to_do} {orphan.url}"


def _words(orphan: Orphan, now: datetime) -> str:
    age = f"{(now - orphan.created_utc).total_seconds() / 3600:,.1f} h old" if orphan.created_utc else "of unknown age"
    rows = f"{orphan.rows:,} rows" if orphan.rows is not None else "rows unknown"
    cost = f"at most {show.usd(orphan.worst_usd)}" if orphan.worst_usd is not None else "cost unknown"
    shard = f", says it is {orphan.shard}" if orphan.shard else ""
    return f"{orphan.batch_id} ({orphan.kind}): {orphan.status}, {rows}, {age}, {cost}{shard}"

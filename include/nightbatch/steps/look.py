"""Looks at many open batches by the vendor's listing, as far as that is cheaper than to ask for each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from nightbatch.core.batch import BatchState
from nightbatch.ports import Provider

PAGE_ROWS = 100
"""Batches on a page: what OpenAI gives at most, and some 4 ms of CPU; a batch that is asked for alone takes 2."""

CLOCK_SLACK = timedelta(hours=1)
"""How far the vendor's clock may be behind ours before a walk ends too early, which costs calls and nothing else."""

_EVER = datetime(2000, 1, 1, tzinfo=UTC)


def look_by_list(provider: Provider, wanted: Mapping[str, datetime]) -> dict[str, BatchState]:
    """
    Give what a listing says of batches, by their id; those that it did not reach are left out.

    To be left out says nothing of a batch: it must be asked for alone. `wanted` says when each was made. Others may
    have made thousands of batches since, so the walk, newest first, goes on only as far as it pays. Memory: a page.
    """
    found: dict[str, BatchState] = {}
    oldest = min(wanted.values()) - CLOCK_SLACK
    for read, listed in enumerate(provider.listing(_EVER, page_rows=PAGE_ROWS), 1):
        state = listed.state
        if state.batch_id in wanted:
            found[state.batch_id] = state
        if len(found) == len(wanted) or (state.created_utc is not None and state.created_utc < oldest):
            break
        # Behind the last of a page and not before the first of the next, which only a call can give.
        if read % PAGE_ROWS == 0 and read // PAGE_ROWS >= _pages_worth(len(wanted), found=len(found)):
            break
    return found


def _pages_worth(wanted: int, *, found: int) -> int:
    """
    Say how many pages a walk may read: one, one more for each four batches that it found, and a few on trust.

    So a walk in vain adds at most an eighth to what the looks one by one take, and one page where few are wanted.
    """
    return 1 + found // 4 + wanted // 16

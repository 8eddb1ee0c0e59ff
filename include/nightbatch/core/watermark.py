"""A watermark: up to when the records of a source have been read, told by the sealed plans of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .gaps import RunSpan, uncovered
from .window import Window


def unread_from(
    window: Window,
    runs: Sequence[RunSpan],
    *,
    column: str,
    since: datetime | None,
) -> datetime:
    """
    Give from when on a run of a window must read, so that no record between its job's first run and it stays unread.

    That is the first instant before the window that no sealed plan has read by this column, from `since` or else
    from the job's first such run on; the window's own start where all before it is read. What the window's own
    generations have read counts as unread, so that one that is planned anew reads the same again.
    """
    read = [run for run in runs if run.read is not None and run.read_by == column and run.is_whole]
    first = min(read, key=lambda run: (run.started_utc, run.window), default=None)
    begin = since or (first.read.start if first is not None and first.read is not None else window.start)
    others = [run.read for run in read if run.read is not None and run.window != window]
    left = uncovered(min(begin, window.start), window.start, others)
    return left[0][0] if left else window.start

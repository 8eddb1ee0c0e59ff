"""Batch objects and listings of Anthropic, read strictly: what has a hole is an error, never an absent batch."""

from __future__ import annotations

from datetime import datetime

import msgspec

from nightbatch.core.batch import BatchState, BatchStatus

STATUS = {
    "in_progress": BatchStatus.RUNNING,
    "canceling": BatchStatus.RUNNING,
    "ended": BatchStatus.ENDED,
}
"""Every status of a batch. Source: anthropic 2.12.0, `MessageBatch.processing_status`; a test compares."""


class Counts(msgspec.Struct):
    """Rows by what became of them. All but `processing` stay 0 until the batch has ended; the sum is always whole."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int

    @property
    def rows(self) -> int:
        """Say how many rows the batch was made of."""
        return self.done + self.processing

    @property
    def done(self) -> int:
        """Say how many rows are through; 0 until the end."""
        return self.succeeded + self.errored + self.canceled + self.expired


class Batch(msgspec.Struct):
    """A message batch."""

    id: str
    processing_status: str
    request_counts: Counts
    created_at: datetime
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    archived_at: datetime | None = None
    results_url: str | None = None

    @property
    def created_utc(self) -> datetime:
        """When it was created."""
        return self.created_at


class Page(msgspec.Struct):
    """A page of a listing."""

    data: list[Batch]
    has_more: bool


def state_of(batch: Batch) -> BatchState:
    """
    Put a batch into our words.

    A batch that says it ended but does not yet say where its results are counts as running: to read it now would
    find every row missing. One whose results are archived has ended, and says so.
    """
    status = STATUS.get(batch.processing_status, BatchStatus.UNKNOWN)
    vendor_status, problem = batch.processing_status, ""
    if status is BatchStatus.ENDED and not batch.results_url:
        if batch.archived_at is None:
            status, vendor_status = BatchStatus.RUNNING, "ended, results not there yet"
        else:
            problem = f"its results were archived at {batch.archived_at:%Y-%m-%d %H:%M} UTC and cannot be read"
    return BatchState(
        batch_id=batch.id,
        status=status,
        vendor_status=vendor_status,
        rows_total=batch.request_counts.rows,
        rows_done=batch.request_counts.done,
        created_utc=batch.created_at,
        ended_utc=batch.ended_at,
        expires_utc=batch.expires_at,
        result_files=(batch.results_url,) if batch.results_url else (),
        problem=problem,
    )

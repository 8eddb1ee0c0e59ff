"""Batch objects and listings of OpenAI, read strictly: what has a hole is an error, never an absent batch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from nightbatch.adapters.providers.openai_rows import Billed, usage_of
from nightbatch.adapters.providers.wire import short_code, short_text
from nightbatch.core.batch import BatchState, BatchStatus

STATUS = {
    "validating": BatchStatus.RUNNING,
    "in_progress": BatchStatus.RUNNING,
    "finalizing": BatchStatus.RUNNING,
    "cancelling": BatchStatus.RUNNING,
    "completed": BatchStatus.ENDED,
    "failed": BatchStatus.ENDED,
    "expired": BatchStatus.ENDED,
    "cancelled": BatchStatus.ENDED,
}
"""Every status of a batch. Source: openai 3.54.0, `types.batch.Batch.status`; a test compares."""

TOKEN_LIMIT = "token_limit_exceeded"  # noqa: S105 - a vendor's error code
"""The queue of a model is full, said at create or after validation. Source: provider's batch guide, 2026."""


class _Error(msgspec.Struct):
    code: str | None = None
    line: int | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    data: list[_Error] | None = None


class _Counts(msgspec.Struct):
    total: int = 0
    completed: int = 0
    failed: int = 0


class Batch(msgspec.Struct):
    """A batch as the vendor describes it; fields that nothing here needs are left out."""

    id: str
    status: str
    created_at: float
    metadata: dict[str, Any] | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: _Errors | None = None
    request_counts: _Counts | None = None
    expires_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelled_at: float | None = None
    usage: Billed | None = None
    """In batches made after 2025-09-07. Source: openai 3.54.0, `types.batch.Batch.usage`."""

    @property
    def created_utc(self) -> datetime:
        """When it was created."""
        return datetime.fromtimestamp(self.created_at, UTC)


class Page(msgspec.Struct):
    """One page of a listing."""

    data: list[Batch]
    has_more: bool


class File(msgspec.Struct):
    """An uploaded file."""

    id: str


def state_of(batch: Batch) -> BatchState:
    """
    Put a batch into our words.

    A file is named `output:<id>` or `error:<id>`, because the two ids alone do not say which is which; an id may be
    null or empty where there is no file.
    """
    files = (("output", batch.output_file_id), ("error", batch.error_file_id))
    result_files = tuple(f"{kind}:{file_id}" for kind, file_id in files if file_id)
    errors = (batch.errors.data if batch.errors else None) or []
    counts = batch.request_counts
    is_queue_full = any(error.code == TOKEN_LIMIT for error in errors)
    ended = batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at
    status = STATUS.get(batch.status, BatchStatus.UNKNOWN)
    return BatchState(
        batch_id=batch.id,
        status=status,
        vendor_status=batch.status,
        rows_total=counts.total if counts else None,
        rows_done=counts.completed + counts.failed if counts else None,
        created_utc=batch.created_utc,
        ended_utc=_utc(ended),
        expires_utc=_utc(batch.expires_at),
        result_files=result_files,
        # A batch with answers must be read, whatever else it says.
        queue_full=status is BatchStatus.ENDED and is_queue_full and not result_files,
        usage=usage_of(batch.usage) if batch.usage is not None else None,
        problem=_problem(errors),
    )


def _problem(errors: list[_Error]) -> str:
    """Sum the errors of a whole batch up; a message about one line may quote it and is left out."""
    if not errors:
        return ""
    first = errors[0]
    code = short_code(first.code, "unknown_error")
    what = f"{code} (line {first.line})" if first.line is not None else f"{code}: {short_text(first.message)}"
    return what if len(errors) == 1 else f"{what}; {len(errors)} errors in all"


def _utc(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None

"""Of step 4: the id of a batch that was made is money spent, and is kept in two places."""

from __future__ import annotations

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.errors import StorageUnavailable
from nightbatch.logs import logger
from nightbatch.ports import Attempt, Ports, Shard

from .telemetry import tell_sent

log = logger(__name__)


def batch_note(attempt: Attempt) -> str:
    """Name the file in which an attempt keeps its batch id, beside the ledger."""
    return f"{attempt.ref.folder}/attempt-{attempt.number}.batch"


def noted_id(ports: Ports, attempt: Attempt) -> str:
    """Read the batch id that an attempt kept beside the ledger; empty where there is none."""
    name = batch_note(attempt)
    return ports.store.read(name).decode() if ports.store.exists(name) else ""


def keep_id(ports: Ports, shard: Shard, attempt: Attempt, state: BatchState) -> bool:
    """
    Record a batch id in the store and in the ledger, and keep trying for two minutes: the money is spent.

    Says whether the batch had been thought absent.

    Either place is enough for a successor; the vendor's listing is the third. A full store does not keep the id from
    the ledger.
    """
    pause_s = 0.2
    is_noted = False
    while True:
        is_noted = is_noted or _is_noted(ports, attempt, state)
        try:
            was_absent = ports.ledger.note_open(attempt.attempt_id, state, now=ports.clock.now())
            warn_unknown(state, before="")
            if was_absent is not None:
                tell_sent(ports, shard)
            return bool(was_absent)
        except StorageUnavailable:
            if pause_s > 60:
                raise
            ports.clock.sleep(pause_s)
            pause_s *= 2


def warn_unknown(state: BatchState, *, before: str) -> None:
    """Say once that a status is not known here; `before` is what the vendor said last."""
    if state.status is BatchStatus.UNKNOWN and state.vendor_status != before:
        log.warning("the vendor says %r, which is not known here; it counts as running", state.vendor_status)


def _is_noted(ports: Ports, attempt: Attempt, state: BatchState) -> bool:
    try:
        ports.store.write(batch_note(attempt), state.batch_id.encode())
    except StorageUnavailable as error:
        log.warning("submit: the batch id is not noted in the store: %s", error)
        return False
    return True


def late_words(attempt: Attempt) -> str:
    """Say what follows from a batch that was thought absent, and is there."""
    return (
        f"this batch had been thought absent; it is used, and its worst case of {attempt.reserved_usd:.4f} USD is "
        "reserved again, even where that is more than a budget leaves. Nothing more is reserved until it fits again."
    )

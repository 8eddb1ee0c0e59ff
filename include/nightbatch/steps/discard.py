"""After step 8: delete what a shard left at the vendor, once nothing will be read there any more."""

from __future__ import annotations

from nightbatch.core.shard import ShardState
from nightbatch.errors import NightbatchError
from nightbatch.job import Job
from nightbatch.logs import about, logger
from nightbatch.ports import Attempt, Ports, Shard

log = logger(__name__)


def discard(ports: Ports, job: Job, shard: Shard) -> bool:
    """
    Delete the request and result files of a loaded shard; says whether nothing is left there.

    The raw results are in the store and the answers in the sink by then, so a delete that fails fails nothing: it is
    logged, and housekeeping does it later.
    """
    attempt = shard.current
    if attempt is None or shard.state is not ShardState.LOADED or attempt.state != "ended":
        return False
    return delete(ports, job, shard, attempt, batch_id=attempt.batch_id)


def discard_unused(ports: Ports, job: Job, shard: Shard, attempt: Attempt) -> bool:
    """Delete the request file of an attempt of which no batch was made, or one that the vendor refused whole."""
    is_over = attempt.state in ("absent", "refused") and ports.clock.now() >= attempt.certain_utc
    if attempt.file_id is None or not is_over:
        return False
    return delete(ports, job, shard, attempt, batch_id=None)


def delete(ports: Ports, job: Job, shard: Shard, attempt: Attempt, *, batch_id: str | None) -> bool:
    """Delete what an attempt left at the vendor, unless the job wants to keep it; says whether nothing is left."""
    if attempt.vendor_files_deleted_utc is not None or not job.delete_vendor_files:
        return False
    with about(batch=attempt.batch_id):
        try:
            provider = ports.provider(shard.plan.provider, shard.plan.connection)
            provider.discard(batch_id, file_id=attempt.file_id, result_files=attempt.result_files if batch_id else ())
            ports.ledger.note_files_deleted(attempt.attempt_id, now=ports.clock.now())
        except NightbatchError as error:
            log.warning(
                "discard: files stay at %s for now, and are deleted by housekeeping: %s", shard.plan.provider, error
            )
            return False
        log.info("discard: the files at %s are deleted", shard.plan.provider)
    return True

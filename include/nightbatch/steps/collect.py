"""Step 6, collect: store the raw result files, whole and hashed, before anything is read from them."""

from __future__ import annotations

import hashlib

from nightbatch.core.batch import BatchState
from nightbatch.core.shard import ShardState
from nightbatch.logs import logger
from nightbatch.ports import Ports, RawFile, Shard

from .account import check_account
from .outcome import Moved, Outcome

log = logger(__name__)


def collect(ports: Ports, shard: Shard, state: BatchState) -> Outcome:
    """
    Download every result file of an ended batch into the store.

    Both files, in every terminal state: an expired or cancelled batch holds answers that were paid. A download
    that breaks off leaves nothing behind and is done again.
    """
    attempt = shard.current
    if attempt is None or shard.state is not ShardState.OPEN:
        return Moved()
    provider = ports.provider(shard.plan.provider, shard.plan.connection)
    check_account(provider, shard, attempt, has_answered=True)
    names, hashes = [], []
    # A folder of its own for each download: one that wakes up late must not write over what was hashed and judged.
    folder = f"{attempt.ref.folder}/attempt-{attempt.number}/{ports.clock.now():%Y%m%dT%H%M%S%f}"
    for file in provider.results(state):
        name, sha256 = _keep(ports, folder, file)
        names.append(name)
        hashes.append(sha256)
    ports.ledger.note_seen(attempt.attempt_id, state, now=ports.clock.now())
    ports.ledger.note_stored(attempt.attempt_id, names, hashes, now=ports.clock.now())
    log.info("collect: the batch is %s; result files stored: %d", state.vendor_status, len(names))
    return Moved()


def _keep(ports: Ports, folder: str, file: RawFile) -> tuple[str, str]:
    name = f"{folder}/{file.name}.jsonl"
    sha = hashlib.sha256()
    with ports.store.writer(name) as out:
        for chunk in file.chunks:
            sha.update(chunk)
            out.write(chunk)
    return name, sha.hexdigest()

"""Step 6, collect: store the raw result files, whole and hashed, before anything is read from them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from nightbatch.core.batch import BatchState
from nightbatch.core.lines import LineCount
from nightbatch.core.shard import ShardState
from nightbatch.errors import ProviderBusy
from nightbatch.logs import logger
from nightbatch.ports import Ports, Provider, RawFile, Shard

from .account import check_account
from .outcome import Moved, Outcome
from .telemetry import tell_turnaround

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
    # A folder of its own for each download: one that wakes up late must not write over what was hashed and judged.
    folder = f"{attempt.ref.folder}/attempt-{attempt.number}/{ports.clock.now():%Y%m%dT%H%M%S%f}"
    files = _believable(ports, provider, state, folder)
    ports.ledger.note_seen(attempt.attempt_id, state, now=ports.clock.now())
    names, hashes = [file.name for file in files], [file.sha256 for file in files]
    ports.ledger.note_stored(attempt.attempt_id, names, hashes, now=ports.clock.now())
    tell_turnaround(ports, shard, attempt, state)
    log.info("collect: the batch is %s; result files stored: %d", state.vendor_status, len(names))
    return Moved()


@dataclass(frozen=True)
class Stored:
    """One result file in the store."""

    name: str
    sha256: str
    lines: LineCount


def _believable(ports: Ports, provider: Provider, state: BatchState, folder: str) -> list[Stored]:
    """
    Store what can be taken for the vendor's own words.

    Rows that are in no file are bought again, so a file that something on the way has spoilt must not pass for whole:
    one with broken lines is fetched again, and taken with them only if it comes the same twice and not one of them
    is all there is. Raises ProviderBusy.
    """
    files = _download(ports, provider, state, folder)
    if not any(file.lines.broken for file in files):
        return files
    again = _download(ports, provider, state, f"{folder}-again")
    broken = sum(file.lines.broken for file in again)
    is_page = not any(file.lines.whole for file in again)
    is_same = [file.sha256 for file in files] == [file.sha256 for file in again]
    if broken and (is_page or not is_same):
        doing = f"reading the results of batch {state.batch_id}"
        raise ProviderBusy(provider.name, doing, cause=f"what came is broken in {broken:,} lines")
    return again


def _download(ports: Ports, provider: Provider, state: BatchState, folder: str) -> list[Stored]:
    return [keep(ports, folder, file) for file in provider.results(state)]


def keep(ports: Ports, folder: str, file: RawFile) -> Stored:
    """Store one result file whole, hashed, its lines counted."""
    name, sha, lines = f"{folder}/{file.name}.jsonl", hashlib.sha256(), LineCount()
    with ports.store.writer(name) as out:
        for chunk in file.chunks:
            sha.update(chunk)
            lines.feed(chunk)
            out.write(chunk)
    lines.end()
    return Stored(name, sha.hexdigest(), lines)

"""Step 8, load: merge the good answers of a shard, and of the records that ask the same, into the sink."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa

from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import ANSWER_SCHEMA, Ports, Run, Shard, SinkContext

from .outcome import Finished, Moved, Outcome
from .parquet import ROWS_AT_A_TIME, read_rows, to_batch
from .quality import checked_again
from .redact import putting_back
from .telemetry import tell_loaded

log = logger(__name__)

Copies = dict[str, list[tuple[str, datetime | None]]]
"""Fingerprint -> (key, window end) of the records that ask the same; no end for the run's own window."""

_COLUMNS = (
    "row",
    "kind",
    "key",
    "fingerprint",
    "answer",
    "model",
    "custom_id",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_usd",
)


def load(ports: Ports, job: Job, shard: Shard) -> Outcome:
    """Merge one collected shard; a second time changes nothing in the sink."""
    if shard.state is ShardState.LOADED:
        return Finished(shard.state.value)
    ref = shard.plan.ref
    context = context_of(ports.ledger.run(ref.run))
    rows = checked_again(ports, job, shard, answers(ports, job, shard))
    counts = ports.sink(job).merge(context, ref.name, rows)
    # A row that gave way to a newer answer is in its place too: the sink holds something at least as good.
    placed = counts.merged + counts.newer_kept
    if ports.ledger.note_loaded(ref, merged=placed, now=ports.clock.now()):
        tell_loaded(ports, shard, placed)
    log.info("load: %s answers merged, %s give way to newer ones", f"{counts.merged:,}", f"{counts.newer_kept:,}")
    return Moved()


def context_of(run: Run) -> SinkContext:
    """Say what a load of this run is about."""
    return SinkContext(run.job, run.run, run.window, run.generation)


def answers(ports: Ports, job: Job, shard: Shard) -> Iterator[pa.RecordBatch]:
    """Stream the shard's good answers, each followed by its copies for the records that ask the same."""
    copies = duplicates_of(ports, shard.plan.ref.run, _good_fingerprints(ports, shard))
    rows: list[tuple[Any, ...]] = []
    put_back, version = putting_back(ports, job, shard), job.prompt_version  # which hashes the prompt each time
    for number, kind, key, fingerprint, said, *rest in read_rows(ports.store, shard.verdicts_name, _COLUMNS):
        if kind != VerdictKind.GOOD:
            continue
        row = [key, fingerprint, put_back(number, said), *rest]
        # One answer may have a million copies.
        for answer in _answer_rows(version, shard, row, copies):
            rows.append(answer)
            if len(rows) >= ROWS_AT_A_TIME:
                yield to_batch(rows, ANSWER_SCHEMA)
                rows = []
    if rows:
        yield to_batch(rows, ANSWER_SCHEMA)


def _answer_rows(version: str, shard: Shard, row: list[Any], copies: Copies) -> Iterator[tuple[Any, ...]]:
    key, fingerprint, answer, model, custom_id, *tokens, cost = row
    plan = shard.plan
    where = (plan.provider, model, version, plan.ref.round, custom_id)
    yield (key, fingerprint, answer, *where, None, *tokens, cost)
    for copy, _ in copies.get(fingerprint, ()):
        # The answer was paid once, so its copies cost nothing.
        yield (copy, fingerprint, answer, *where, key, 0, 0, 0, cost * 0)


def _good_fingerprints(ports: Ports, shard: Shard) -> set[str]:
    rows = read_rows(ports.store, shard.verdicts_name, ("kind", "fingerprint"))
    return {fingerprint for kind, fingerprint in rows if kind == VerdictKind.GOOD}


def duplicates_of(ports: Ports, run: str, fingerprints: set[str]) -> Copies:
    """Give the records that ask the same as these questions. Memory: those that match."""
    sealed = ports.ledger.sealed(run, 0)
    name = sealed.facts.get("duplicates_name", "") if sealed else ""
    found: Copies = {}
    if name and fingerprints:
        for key, fingerprint, end in read_rows(ports.store, name, ("key", "fingerprint", "window_end")):
            if fingerprint in fingerprints:
                found.setdefault(fingerprint, []).append((key, end))
    return found

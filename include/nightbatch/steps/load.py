"""Step 8, load: merge the good answers of a shard, and of the records that ask the same, into the sink."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa

from nightbatch.core.arrow import number_array, repeated_text_array, text_array
from nightbatch.core.shard import ShardState
from nightbatch.core.verdict import VerdictKind
from nightbatch.job import Job
from nightbatch.logs import logger
from nightbatch.ports import ANSWER_SCHEMA, Ports, Run, Shard, SinkContext

from .outcome import Finished, Moved, Outcome
from .parquet import ROWS_AT_A_TIME, read_batches, read_rows, to_batch
from .quality import checked_again
from .redact import PutBack, putting_back
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
    """Stream the shard's good answers, and behind each batch its copies for the records that ask the same."""
    copies = _copies(ports, shard)
    put_back, version = putting_back(ports, job, shard), job.prompt_version  # which hashes the prompt each time
    for verdicts in read_batches(ports.store, shard.verdicts_name, _COLUMNS):
        good = _answers_of(verdicts, shard, version, put_back)
        yield good
        if copies:
            yield from _copies_of(good, copies)


def _answers_of(verdicts: pa.RecordBatch, shard: Shard, version: str, put_back: PutBack | None) -> pa.RecordBatch:
    """Turn verdicts into answers, whole columns at a time."""
    import pyarrow.compute as pc

    (good_word,) = text_array([VerdictKind.GOOD.value])  # a Python value as the argument would import pandas
    good = verdicts.filter(pc.equal(verdicts.column("kind"), good_word))
    count, said = good.num_rows, good.column("answer")
    if put_back is not None:
        rows = zip(good.column("row").to_pylist(), said.to_pylist(), strict=True)
        said = text_array([put_back(row, answer) for row, answer in rows])
    made = {
        "answer": said,
        "provider": repeated_text_array([shard.plan.provider] * count),
        "prompt_version": repeated_text_array([version] * count),
        "round": number_array([shard.plan.ref.round] * count, pa.int32()),
        "duplicate_of": pa.nulls(count, pa.string()),
    }
    columns = [made[name] if name in made else good.column(name) for name in ANSWER_SCHEMA.names]
    return pa.record_batch(columns, schema=ANSWER_SCHEMA)


def _copies_of(good: pa.RecordBatch, copies: Copies) -> Iterator[pa.RecordBatch]:
    """Give the copies of a batch's answers; the answer was paid once, so they cost nothing."""
    rows: list[tuple[Any, ...]] = []
    columns = (good.column(name).to_pylist() for name in ANSWER_SCHEMA.names)
    for key, fingerprint, *where, _, _, _, _, cost in zip(*columns, strict=True):
        # One answer may have a million copies.
        for copy, _ in copies.get(fingerprint, ()):
            rows.append((copy, fingerprint, *where, key, 0, 0, 0, cost * 0))
            if len(rows) >= ROWS_AT_A_TIME:
                yield to_batch(rows, ANSWER_SCHEMA)
                rows = []
    if rows:
        yield to_batch(rows, ANSWER_SCHEMA)


def _copies(ports: Ports, shard: Shard) -> Copies:
    if not _duplicates_name(ports, shard.plan.ref.run):
        return {}
    rows = read_rows(ports.store, shard.verdicts_name, ("kind", "fingerprint"))
    good = {fingerprint for kind, fingerprint in rows if kind == VerdictKind.GOOD}
    return duplicates_of(ports, shard.plan.ref.run, good)


def duplicates_of(ports: Ports, run: str, fingerprints: set[str]) -> Copies:
    """Give the records that ask the same as these questions. Memory: those that match."""
    found: Copies = {}
    if (name := _duplicates_name(ports, run)) and fingerprints:
        for key, fingerprint, end in read_rows(ports.store, name, ("key", "fingerprint", "window_end")):
            if fingerprint in fingerprints:
                found.setdefault(fingerprint, []).append((key, end))
    return found


def _duplicates_name(ports: Ports, run: str) -> str:
    sealed = ports.ledger.sealed(run, 0)
    return str(sealed.facts.get("duplicates_name", "")) if sealed else ""

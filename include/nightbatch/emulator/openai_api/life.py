"""The life of an OpenAI batch: validating, in_progress, finalizing, and its end."""

from __future__ import annotations

from pathlib import Path

from nightbatch.emulator.answers import ANSWERED, Kind
from nightbatch.emulator.clock import now_s
from nightbatch.emulator.openai_api.dialect import Checked, OpenAIDialect, check
from nightbatch.emulator.rows import Cut, Execution, Results
from nightbatch.emulator.store import Batch, StoredFile
from nightbatch.emulator.world import World

OUTPUT_LIFE_S = 30 * 24 * 60 * 60
"""Result files expire 30 days after completion. Source: the texts of openai 3.54.0."""

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


async def live(world: World, batch: Batch, *, token_limit_fault: bool) -> None:
    """Take a batch from validating to its end."""
    try:
        await _live(world, batch, token_limit_fault)
    finally:
        world.store.enqueued.release(batch)


async def _live(world: World, batch: Batch, token_limit_fault: bool) -> None:
    seconds = world.settings.window_seconds if world.is_stuck(batch, "validating") else world.settings.validate_seconds
    cancelled = await world.pause(batch, seconds)
    if world.is_stuck(batch, "validating"):
        await _finish(world, batch, Cut(0, Kind.CANCELLED if cancelled else Kind.EXPIRED))
        return
    checked = await world.in_thread(lambda: check(batch.input_path, batch.endpoint, world.settings.limits))
    _learn(batch, checked)
    if checked.errors:
        _fail(batch, checked)
    elif token_limit_fault or not enqueue(world, batch):
        checked.wrong("token_limit_exceeded", token_limit_message(world, batch))
        _fail(batch, checked)
    else:
        await _run(world, batch, checked)


async def _run(world: World, batch: Batch, checked: Checked) -> None:
    if not batch.changed.is_set():
        batch.reach("in_progress", now_s())
    names = {"custom_id": checked.first_custom_id, "metadata": batch.metadata}
    file = world.store.files.find(batch.input_file_id, batch.scope)
    world.make_late(batch, names | {"filename": file.filename if file else ""})
    await _finish(world, batch, await world.work(batch))


def _learn(batch: Batch, checked: Checked) -> None:
    batch.rows, batch.models, batch.input_tokens = checked.rows, tuple(checked.models), checked.input_tokens


def _fail(batch: Batch, checked: Checked) -> None:
    batch.errors, batch.rows = checked.errors, 0
    batch.reach("failed", now_s())


def enqueue(world: World, batch: Batch) -> bool:
    """Count a batch's prompt tokens as enqueued, if its model's limit allows it."""
    model = batch.models[0] if batch.models else ""
    return world.store.enqueued.take(batch, world.settings.token_limit(model))


def token_limit_message(world: World, batch: Batch) -> str:
    """Word the refusal. Source: openai/openai-python#2084."""
    model = batch.models[0] if batch.models else ""
    limit = world.settings.token_limit(model) or 90_000
    return (
        f"Enqueued token limit reached for {model} in organization {batch.account.organization}. Limit: {limit:,} "
        "enqueued tokens. Please try again once some in_progress batches have been completed."
    )


async def _finish(world: World, batch: Batch, cut: Cut | None) -> None:
    """Execute the rows, put their files in place, and enter the last status."""
    if cut is None or cut.kind is Kind.EXPIRED:
        batch.reach("finalizing", now_s())
    else:
        await world.pause_after_cancel()
    results = await world.in_thread(_execution(world, batch, cut).run)
    batch.output_file_id = _keep(world, batch, results.files.get("output"), "output")
    batch.error_file_id = _keep(world, batch, results.files.get("error"), "error")
    _count(batch, results)
    if cut and cut.kind is Kind.CANCELLED:
        batch.reach("cancelled", now_s())
    else:
        batch.reach("expired" if results.counts[Kind.EXPIRED] else "completed", now_s())


def _execution(world: World, batch: Batch, cut: Cut | None) -> Execution:
    return Execution(
        batch,
        world.answerer("openai", batch.account, batch.faults),
        OpenAIDialect(batch.id, batch.endpoint, batch.created_at, batch.faults),
        {name: world.store.new_path(f"{batch.id}_{name}.jsonl") for name in ("output", "error")},
        world.stop,
        cut,
        world.concurrency,
    )


def _count(batch: Batch, results: Results) -> None:
    """Count rows as OpenAI does: those that never ran are neither completed nor failed."""
    never = sum(results.counts[kind] for kind in (Kind.EXPIRED, Kind.CANCELLED, Kind.MISSING))
    completed = sum(results.counts[kind] for kind in ANSWERED)
    batch.counts.update(results.counts)
    batch.counts["completed"] = completed
    batch.counts["failed"] = results.counts.total() - completed - never
    batch.usage = results.usage


def _keep(world: World, batch: Batch, path: Path | None, name: str) -> str | None:
    """Make a result file known; without one, return what an absent id looks like."""
    if path is None:
        if name != "error" or not batch.faults.zero_byte_error_file:
            return "" if batch.faults.blank_file_id else None
        path = world.store.new_path(f"{batch.id}_{name}.jsonl")
        path.touch()
    life = batch.output_expires_after or OUTPUT_LIFE_S
    now = now_s()
    file = StoredFile(world.store.ids.next("file-"), batch.scope, path, path.name, "batch_output", now, now + life)
    world.store.files.put(file)
    return file.id

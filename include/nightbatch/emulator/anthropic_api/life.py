"""The life of a message batch: in_progress, canceling, ended."""

from __future__ import annotations

from nightbatch.emulator.answers import ANSWERED, Kind
from nightbatch.emulator.anthropic_api.dialect import AnthropicDialect
from nightbatch.emulator.clock import now_s
from nightbatch.emulator.rows import Cut, Execution, Results
from nightbatch.emulator.store import Batch
from nightbatch.emulator.world import World


async def live(world: World, batch: Batch) -> None:
    """Take a batch from its creation to its end."""
    cut = await world.work(batch)
    if cut and cut.kind is Kind.CANCELLED:
        await world.pause_after_cancel()
    results = await world.in_thread(_execution(world, batch, cut).run)
    batch.results_path = results.files.get("results")
    _count(batch, results)
    batch.reach("ended", now_s())


def _execution(world: World, batch: Batch, cut: Cut | None) -> Execution:
    return Execution(
        batch,
        world.answerer("anthropic", batch.account, batch.faults),
        AnthropicDialect(batch.id),
        {"results": world.store.new_path(f"{batch.id}_results.jsonl")},
        world.stop,
        cut,
        world.concurrency,
    )


def _count(batch: Batch, results: Results) -> None:
    """Count rows as Anthropic does; rows that a fault has lost count as succeeded."""
    batch.counts.update(results.counts)
    batch.counts["succeeded"] = sum(results.counts[kind] for kind in (*ANSWERED, Kind.MISSING))
    batch.counts["canceled"] = results.counts[Kind.CANCELLED]
    ended = batch.counts["succeeded"] + batch.counts["canceled"] + batch.counts["expired"]
    batch.counts["errored"] = results.counts.total() - ended
    batch.usage = results.usage

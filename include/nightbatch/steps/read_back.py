"""Read questions back out of a shard's sealed files, as they were before anything was added to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nightbatch.core.request import Messages
from nightbatch.core.shard import ShardPlan
from nightbatch.job import Job
from nightbatch.ports import Ports, Shard, Store

from .fill import Carried
from .lanes import open_lane
from .parquet import columns_of, read_batches, read_rows


def reader_of(ports: Ports, job: Job, plan: ShardPlan) -> Callable[[bytes], Messages]:
    """Give what reads a shard's lines, without the hint of an earlier round; `job` is the one that was sealed."""
    encoder = open_lane(ports, job, plan.choice, max_output_tokens=plan.max_output_tokens).encoder

    def read_back(line: bytes) -> Messages:
        messages = encoder.decode(line)
        if not plan.hint:
            return messages
        return Messages(messages.system, messages.user.removesuffix(f"\n\n{plan.hint}"))

    return read_back


def carried_by(store: Store, shard: Shard) -> Iterator[Carried]:
    """Stream what a shard's index keeps of each request, in order; an older version kept no originals."""
    name = shard.plan.index_name
    there = [column for column in Carried._fields if column in columns_of(store, name)]
    yield from (Carried(*row) for row in read_rows(store, name, there))


def has_originals(store: Store, shard: Shard) -> bool:
    """Say whether anything was redacted in the questions of a shard."""
    name, column = shard.plan.index_name, "originals"
    if column not in columns_of(store, name):
        return False
    return any(batch.column(column).null_count < batch.num_rows for batch in read_batches(store, name, (column,)))

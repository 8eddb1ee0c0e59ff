"""Read questions back out of a sealed request file, as they were before anything was added to them."""

from __future__ import annotations

from collections.abc import Callable

from nightbatch.core.request import Messages
from nightbatch.core.shard import ShardPlan
from nightbatch.job import Job
from nightbatch.ports import Ports

from .lanes import open_lane


def reader_of(ports: Ports, job: Job, plan: ShardPlan) -> Callable[[bytes], Messages]:
    """Give what reads a shard's lines, without the hint of an earlier round; `job` is the one that was sealed."""
    encoder = open_lane(ports, job, plan.choice, max_output_tokens=plan.max_output_tokens).encoder

    def read_back(line: bytes) -> Messages:
        messages = encoder.decode(line)
        if not plan.hint:
            return messages
        return Messages(messages.system, messages.user.removesuffix(f"\n\n{plan.hint}"))

    return read_back

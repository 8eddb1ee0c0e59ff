"""Short ways to a shard in a certain state, for tests of single steps."""

from __future__ import annotations

from hypothesis import settings

from nightbatch import flow
from nightbatch.core.ids import ShardRef
from nightbatch.core.money import Usage
from nightbatch.core.result import Outcome, Result
from nightbatch.job import Job
from nightbatch.ports import Shard
from nightbatch.steps.outcome import Moved
from nightbatch.steps.submit import submit
from nightbatch.steps.wait import wait
from tests.memory_stack import NIGHT, Stack, job_of

UNHURRIED = settings(deadline=None, max_examples=40)
"""For properties on a machine that has other things to do."""
USAGE = Usage(input_tokens=10, output_tokens=5)


def answered(text: str) -> Result:
    """Give a good answer."""
    return Result("", Outcome.ANSWERED, text, usage=USAGE, model="echo-1")


def stack_of(count: int) -> Stack:
    """Put up an installation with so many records: k0 asks "text 0", and so on."""
    return Stack([(f"k{number}", f"text {number}") for number in range(count)])


def sealed(stack: Stack, job: Job | None = None) -> Shard:
    """Prepare, and give the first shard."""
    plan = flow.prepare(stack.ports(), job or job_of(), NIGHT)
    return stack.ledger.shard(plan.shards[0].ref)


def opened(stack: Stack, job: Job | None = None) -> Shard:
    """Prepare, and send the first shard."""
    job = job or job_of()
    shard = sealed(stack, job)
    assert submit(stack.ports(), job, shard) == Moved()
    return stack.ledger.shard(shard.plan.ref)


def stored(stack: Stack, job: Job | None = None) -> Shard:
    """Prepare, send the first shard, and store its results."""
    shard = opened(stack, job)
    assert wait(stack.ports(), shard) == Moved()
    return stack.ledger.shard(shard.plan.ref)


def again(stack: Stack, ref: ShardRef) -> Shard:
    """Look at a shard."""
    return stack.ledger.shard(ref)

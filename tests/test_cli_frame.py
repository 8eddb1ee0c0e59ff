"""What every command shares."""

import pytest

from nightbatch.cli_frame import run_named
from nightbatch.errors import JobInvalid
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack


def test_a_run_is_found_by_its_name_and_by_its_job() -> None:
    stack = Stack([])
    first = stack.ledger.open_run("reviews", NIGHT, now=stack.clock.now())
    stack.clock.sleep(60)
    second = stack.ledger.open_run("reviews", NEXT_NIGHT, now=stack.clock.now())

    assert run_named(stack.ledger, first.run) == first
    assert run_named(stack.ledger, "reviews") == second


def test_a_run_that_is_not_there_is_answered_with_what_is() -> None:
    stack = Stack([])
    stack.ledger.open_run("reviews", NIGHT, now=stack.clock.now())

    with pytest.raises(JobInvalid, match=r"no run or job 'revews'.*Jobs with runs: reviews"):
        run_named(stack.ledger, "revews")

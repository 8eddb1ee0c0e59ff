"""An overlap: late records are found, and what was asked in the window before is not sent, or paid, again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.core.result import Outcome, Result
from nightbatch.core.window import Window
from nightbatch.errors import RunIncomplete, RunOverlaps
from nightbatch.ports import Chunk, Ports
from nightbatch.steps.ask_again import Ask
from nightbatch.steps.settle import Books
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of

BEFORE_END = NIGHT.end - timedelta(hours=1)
JOB = job_of(
    source={"files": "memory/records.jsonl", "key": "id", "time_column": "at", "overlap": "2h"},
    answer={"schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    rounds=0,
)


@dataclass
class Late:
    """A source with times, to which records come late."""

    rows: list[tuple[str, str, datetime]] = field(default_factory=list)
    identity: str = "late"

    def read(self, window: Window) -> Iterator[Chunk]:
        found = [(key, text) for key, text, at in self.rows if window.start <= at < window.end]
        yield from [Chunk(("id", "text"), list(found))] if found else []


@pytest.fixture
def source() -> Late:
    return Late([("early", '{"n": 1}', NIGHT.start), ("end", '{"n": 2}', BEFORE_END), ("bad", "no json", BEFORE_END)])


@pytest.fixture
def stack() -> Stack:
    return Stack([])


def ports(stack: Stack, source: Late) -> Ports:
    return stack.ports(source=lambda: source)


def night(stack: Stack, source: Late, window: Window, **options: Any) -> Books:
    return flow.run(ports(stack, source), JOB, window, flow.Options(**options))


def test_a_record_that_comes_late_is_asked_and_those_before_are_not(stack: Stack, source: Late) -> None:
    """Neither the answered one nor the dead letter; a record that changed meanwhile is."""
    first = night(stack, source, NIGHT)
    assert (first.good, first.dead_rows) == (2, 1)
    source.rows += [("late", '{"n": 3}', BEFORE_END), ("next", '{"n": 4}', NEXT_NIGHT.start)]

    second = night(stack, source, NEXT_NIGHT)

    assert (second.pulled, second.unchanged, second.requests, second.good) == (4, 2, 2, 2)
    assert set(stack.answers()) == {"early", "end", "late", "next"}


def test_a_record_of_the_overlap_that_changed_is_asked_again(stack: Stack, source: Late) -> None:
    night(stack, source, NIGHT)
    source.rows[1] = ("end", '{"n": 20}', BEFORE_END)
    source.rows[2] = ("bad", '{"n": 30}', BEFORE_END)

    second = night(stack, source, NEXT_NIGHT)

    assert (second.requests, second.good, second.unchanged) == (2, 2, 0)


def test_refresh_asks_everything_that_it_reads(stack: Stack, source: Late) -> None:
    night(stack, source, NIGHT)

    assert night(stack, source, NEXT_NIGHT, refresh=True).requests == 2


def test_the_next_night_waits_for_the_one_whose_end_it_reads_again(stack: Stack, source: Late) -> None:
    """What is in flight there is not in the sink yet, and would be paid twice."""
    flow.prepare(ports(stack, source), JOB, NIGHT)

    with pytest.raises(RunOverlaps):
        flow.prepare(ports(stack, source), JOB, NEXT_NIGHT)
    flow.run(ports(stack, source), JOB, NIGHT)
    assert flow.prepare(ports(stack, source), JOB, NEXT_NIGHT).facts["counts"]["requests"] == 0


def test_an_earlier_night_waits_for_the_one_that_reads_its_end(stack: Stack, source: Late) -> None:
    flow.prepare(ports(stack, source), JOB, NEXT_NIGHT)

    with pytest.raises(RunOverlaps):
        flow.prepare(ports(stack, source), JOB, NIGHT)


def test_a_dead_letter_that_is_pending_again_is_not_taken_for_asked(stack: Stack, source: Late) -> None:
    """Its second chance ended without an answer, so the night that reads it again must not drop it."""
    night(stack, source, NIGHT)
    answer, stack.vendor.answer = stack.vendor.answer, lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        night(stack, source, NIGHT, retry=Ask(("all",), "a test"))
    stack.vendor.answer = answer

    second = night(stack, source, NEXT_NIGHT)

    assert second.requests == 1

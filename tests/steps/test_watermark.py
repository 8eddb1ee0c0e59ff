"""A watermark: each run reads what none has read, late records are found, and nothing is lost or paid twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from nightbatch import flow
from nightbatch.core.gaps import Gap
from nightbatch.core.result import Outcome, Result
from nightbatch.core.window import Window
from nightbatch.errors import BadSource, RunFailed, RunIncomplete, RunOverlaps
from nightbatch.ports import Chunk, Ports
from nightbatch.steps.absence import Sighting, missing_message
from nightbatch.steps.reads import reads
from nightbatch.steps.settle import Books
from tests.memory_stack import NIGHT, Stack, job_of

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
JOB = job_of(
    source={"files": "memory/records.jsonl", "key": "id", "watermark": {"column": "at", "grace": "2h"}},
    answer={"schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
    rounds=0,
)


def window(number: int) -> Window:
    """Give a night, counted from the first one."""
    return Window(NIGHT.start + number * DAY, NIGHT.end + number * DAY)


@dataclass
class Added:
    """A source to which records are only added; those without a time are in every window, as a query gives them."""

    rows: list[tuple[str, str, datetime | None]] = field(default_factory=list)
    reads: list[Window] = field(default_factory=list)
    is_down: bool = False
    identity: str = "added"

    def read(self, window: Window) -> Iterator[Chunk]:
        if self.is_down:
            raise BadSource("added", problem="it is down", remedy="Wait")
        self.reads.append(window)
        found = [row for row in self.rows if row[2] is None or window.start <= row[2] < window.end]
        yield from [Chunk(("id", "text", "at"), list(found))] if found else []

    def add(self, key: str, at: datetime | None, text: str = "") -> None:
        self.rows.append((key, text or f'{{"n": {len(self.rows)}}}', at))


@pytest.fixture
def source() -> Added:
    return Added()


@pytest.fixture
def stack() -> Stack:
    return Stack([])


def ports(stack: Stack, source: Added) -> Ports:
    return stack.ports(source=lambda: source)


def night(stack: Stack, source: Added, number: int, **options: Any) -> Books:
    """Run a night two hours after its end."""
    stack.clock.set(max(stack.clock.now(), window(number).end + 2 * HOUR))
    return flow.run(ports(stack, source), JOB, window(number), flow.Options(**options))


def test_each_run_reads_what_is_new_and_a_late_record_is_found_and_paid_once(stack: Stack, source: Added) -> None:
    source.add("early", NIGHT.start)
    source.add("end", NIGHT.end - SECOND)
    assert night(stack, source, 0).good == 2
    source.add("late", NIGHT.end - HOUR)
    source.add("next", window(1).start + HOUR)

    second = night(stack, source, 1)

    assert source.reads == [NIGHT.earlier_by(2 * HOUR), window(1).earlier_by(2 * HOUR)]
    assert (second.pulled, second.unchanged, second.requests) == (3, 1, 2)
    assert sum(stack.vendor.billed.values()) == len(stack.answers()) == 4


def test_a_record_at_the_very_edge_of_two_windows_is_read_by_the_later_one_and_paid_once(
    stack: Stack, source: Added
) -> None:
    source.add("edge", NIGHT.end)

    assert [night(stack, source, number).requests for number in (0, 1, 2)] == [0, 1, 0]
    assert sum(stack.vendor.billed.values()) == 1


def test_nights_without_a_run_are_read_by_the_next_one(stack: Stack, source: Added) -> None:
    """Also one whose run never had a plan, since its source was down."""
    night(stack, source, 0)
    source.add("lost night", window(1).start + HOUR)
    source.add("down night", window(2).start + HOUR)
    source.is_down = True
    with pytest.raises(BadSource):
        night(stack, source, 2)
    with pytest.raises(RunFailed):
        flow.fail_unplanned(ports(stack, source), JOB, window(2))
    source.is_down = False

    found = night(stack, source, 3)

    assert source.reads[-1] == Window(window(1).start - 2 * HOUR, window(3).end)
    assert (found.pulled, found.good) == (2, 2)
    assert stack.ledger.spans("reviews")[-1].covers == Window(window(1).start, window(3).end)
    night(stack, source, 4)
    assert source.reads[-1] == window(4).earlier_by(2 * HOUR)


def test_what_was_left_pending_is_taken_along_and_not_read_again(stack: Stack, source: Added) -> None:
    source.add("pending", NIGHT.start)
    source.add("both", NIGHT.end - HOUR)
    answer, stack.vendor.answer = stack.vendor.answer, lambda messages, _: Result("", Outcome.EXPIRED)
    with pytest.raises(RunIncomplete):
        night(stack, source, 0)
    stack.vendor.answer = answer

    second = night(stack, source, 1)

    # The one within the grace is read anew, and takes the place of what is pending of it.
    assert (second.pulled, second.from_pending, second.superseded, second.requests) == (1, 2, 1, 2)
    assert set(stack.answers()) == {"pending", "both"}


def test_a_dead_letter_within_the_grace_or_a_lost_night_is_not_paid_again(stack: Stack, source: Added) -> None:
    source.add("bad", NIGHT.end - HOUR, "no json")
    assert night(stack, source, 0).dead_rows == 1

    assert night(stack, source, 1).requests == 0
    assert stack.vendor.billed == {"no json": 1}


def test_a_failed_run_has_been_read_and_is_told_of_its_rows_are_dead_letters(stack: Stack, source: Added) -> None:
    """They are not lost: `retry` sends them again, and force plans the window anew, lost nights before it included."""
    night(stack, source, 0)
    source.add("bad", window(1).start, "no json")
    strict = JOB.model_copy(update={"max_dead_share": 0.0})
    stack.clock.set(window(2).end + HOUR)
    with pytest.raises(RunFailed):
        flow.run(ports(stack, source), strict, window(2))

    assert night(stack, source, 3).pulled == 0
    source.rows[0] = ("bad", '{"n": 1}', window(1).start)
    forced = night(stack, source, 2, force="a test")

    assert source.reads[-1] == Window(window(1).start - 2 * HOUR, window(2).end)
    assert (forced.pulled, forced.good) == (1, 1)


def test_a_window_of_the_past_is_read_by_itself_and_sends_only_what_is_not_known(stack: Stack, source: Added) -> None:
    for number in (0, 1):
        source.add(f"night {number}", window(number).start + HOUR)
    night(stack, source, 1)

    backfilled = night(stack, source, 0)

    assert source.reads == [window(1).earlier_by(2 * HOUR), NIGHT.earlier_by(2 * HOUR)]
    assert backfilled.good == 1
    assert reads(stack.ledger, JOB, window(2)) == window(2).earlier_by(2 * HOUR)
    assert night(stack, source, 0, force="a test").requests == 0


def test_with_a_start_the_first_run_reads_from_there(stack: Stack, source: Added) -> None:
    job = JOB.model_copy(update={"start": NIGHT.start.date()})
    source.add("old", NIGHT.start)

    assert flow.look_ahead(ports(stack, source), job, window(2)).counts.requests == 1
    assert source.reads == [Window(NIGHT.start - 2 * HOUR, window(2).end)]


def test_runs_follow_one_another_however_far_apart_their_windows_are(stack: Stack, source: Added) -> None:
    """What is in flight in one is not in the sink yet, and the other could read it too."""
    source.add("old", NIGHT.start)
    flow.prepare(ports(stack, source), JOB, window(9))

    with pytest.raises(RunOverlaps, match="has held what this one would read"):
        flow.prepare(ports(stack, source), JOB, window(2))


def test_what_is_added_after_a_run_began_before_its_windows_end_is_left_to_the_next(
    stack: Stack, source: Added
) -> None:
    stack.clock.set(NIGHT.start + 12 * HOUR)
    flow.run(ports(stack, source), JOB, NIGHT)
    source.add("afternoon", NIGHT.start + 13 * HOUR)

    assert night(stack, source, 1).good == 1
    assert source.reads[-1].start == NIGHT.start + 10 * HOUR


def test_a_first_look_moves_no_watermark(stack: Stack, source: Added) -> None:
    for number in range(3):
        source.add(f"k{number}", NIGHT.start + HOUR)
    night(stack, source, 0, limit=1)

    assert night(stack, source, 0).pulled == 3
    assert night(stack, source, 1).pulled == 0


def test_a_record_without_a_time_is_a_dead_letter_of_every_run_and_never_lost_in_silence(
    stack: Stack, source: Added
) -> None:
    source.add("timeless", None)

    for number in (0, 1):
        books = night(stack, source, number)
        assert (books.pulled, books.unrenderable, books.requests) == (1, 1, 0)
        assert books.dead_rows == 1
    [letter] = [row for row in stack.sink.dead.values() if row["run"].endswith("20261121T000000Z/g1")]
    assert letter["detail"] == "its at is null, so no run can tell if it is new"


def test_another_column_begins_anew_and_what_is_known_is_not_paid_again(stack: Stack, source: Added) -> None:
    source.add("a", NIGHT.start)
    night(stack, source, 0)
    job = job_of(
        source={"files": "memory/r.jsonl", "key": "id", "watermark": {"column": "added", "grace": "0s"}},
        start=str(NIGHT.start.date()),
        answer=JOB.answer.model_dump(by_alias=True),
    )

    found = flow.look_ahead(ports(stack, source), job, window(3))

    assert source.reads[-1] == Window(NIGHT.start, window(3).end)
    assert (found.counts.pulled, found.counts.unchanged) == (1, 1)


def test_who_is_told_of_a_night_without_a_run_reads_that_the_next_one_reads_it() -> None:
    gap = Gap((window(1),), is_open=False)
    message = missing_message("event", [Sighting(JOB, (gap,), "it was paused")], now=window(3).end)

    assert message.happens_next == (
        "Windows that went by are not run by themselves. "
        "The next run of reviews reads what was added in them, skipped ones included."
    )

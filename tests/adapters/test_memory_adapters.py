"""The adapters in memory keep the promises of their ports."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from tests.messages import message_of

from nightbatch.adapters.clock import FixedClock, SystemClock
from nightbatch.adapters.memory import MemoryNotifier, MemorySink, MemorySource, StaticPrices
from nightbatch.core.money import Price, Rate
from nightbatch.core.window import Window
from nightbatch.errors import BadSink, StorageUnavailable
from nightbatch.ports import ANSWER_SCHEMA, DEAD_SCHEMA, Chunk, MergeCounts, SinkContext

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TODAY = Window(NOON, NOON + DAY)
LAST_WEEK = Window(NOON - 7 * DAY, NOON - 6 * DAY)
MESSAGE = message_of(event_id="e1")


def about(window: Window = TODAY, *, job: str = "job", generation: int = 1) -> SinkContext:
    return SinkContext(job, f"{job}-{window.key}-{generation}", window, generation)


def answers(**texts: str) -> pa.RecordBatch:
    rows = [{"key": key, "fingerprint": f"f-{text}", "answer": text} for key, text in texts.items()]
    return pa.RecordBatch.from_pylist(rows, schema=ANSWER_SCHEMA)


def held(sink: MemorySink) -> dict[str, str]:
    return {key: row["answer"] for key, row in sink.answers.items()}


def test_a_merge_done_twice_changes_nothing() -> None:
    sink = MemorySink()
    first = sink.merge(about(), "r0-s000", [answers(a="1", b="2")])
    again = sink.merge(about(), "r0-s000", [answers(a="1", b="2")])

    assert first == again == MergeCounts(offered=2, merged=2, newer_kept=0)
    assert held(sink) == {"a": "1", "b": "2"}


def test_an_older_window_never_overwrites_a_newer_answer() -> None:
    sink = MemorySink()
    sink.merge(about(TODAY), "r0-s000", [answers(a="new")])
    counts = sink.merge(about(LAST_WEEK, generation=9), "r0-s000", [answers(a="old", b="old")])

    assert counts == MergeCounts(offered=2, merged=1, newer_kept=1)
    assert held(sink) == {"a": "new", "b": "old"}


def test_a_later_generation_of_a_window_wins_over_an_earlier_one() -> None:
    sink = MemorySink()
    sink.merge(about(generation=2), "r0-s000", [answers(a="second")])
    sink.merge(about(generation=1), "r0-s000", [answers(a="first")])

    assert held(sink) == {"a": "second"}


def test_a_merge_whose_rows_break_off_changes_nothing() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield answers(a="1")
        raise RuntimeError

    sink = MemorySink()
    with pytest.raises(RuntimeError):
        sink.merge(about(), "r0-s000", broken())

    assert held(sink) == {}


def test_a_sink_belongs_to_one_job() -> None:
    sink = MemorySink()
    sink.prepare(about())
    sink.prepare(about())
    with pytest.raises(BadSink, match="answers of job job, and this is job other"):
        sink.prepare(about(job="other"))


def test_known_gives_the_fingerprint_of_every_answer() -> None:
    sink = MemorySink()
    assert list(sink.known()) == []
    sink.merge(about(), "p", [answers(**{f"k{number:04}": "x" for number in range(2500)})])

    chunks = list(sink.known())

    assert [len(chunk) for chunk in chunks] == [1000, 1000, 500]
    assert chunks[0][0] == ("k0000", "f-x", about().window.end)


def test_dead_letters_are_keyed_by_run_and_key() -> None:
    sink = MemorySink()
    batch = pa.RecordBatch.from_pylist([{"key": "a", "reason": "refused"}], schema=DEAD_SCHEMA)

    assert [sink.bury(about(), "p", [batch]) for _ in range(2)] == [1, 1]
    sink.bury(about(LAST_WEEK), "p", [batch])

    assert len(sink.dead) == 2
    assert sink.dead[about().run, "a"]["reason"] == "refused"


def test_a_source_gives_what_it_was_handed_and_notes_who_asked() -> None:
    chunk = Chunk(("id",), [(1,)])
    source = MemorySource([chunk, Chunk(("id",), [])])
    by_window = MemorySource(lambda window: [chunk] if window == TODAY else [])

    assert list(source.read(TODAY)) == list(source.read(LAST_WEEK)) == [chunk]
    assert source.reads == [TODAY, LAST_WEEK]
    assert list(by_window.read(TODAY)) == [chunk]
    assert list(by_window.read(LAST_WEEK)) == []


def test_a_notifier_fails_as_often_as_it_is_told_to() -> None:
    notifier = MemoryNotifier("mail")
    notifier.failures.append(StorageUnavailable("mail", cause="down"))
    with pytest.raises(StorageUnavailable):
        notifier.send(MESSAGE)
    notifier.send(MESSAGE)

    assert notifier.channel == "mail"
    assert notifier.messages == [MESSAGE]


def test_a_fixed_clock_moves_only_when_told() -> None:
    clock = FixedClock(NOON.astimezone(timezone(timedelta(hours=3))))
    assert clock.now() == NOON
    assert clock.now().tzinfo is UTC

    clock.sleep(90)
    clock.sleep(0)
    assert clock.now() == NOON + timedelta(seconds=90)
    assert clock.slept_s == [90, 0]

    clock.set(NOON)
    clock.advance(DAY)
    assert clock.now() == NOON + DAY
    with pytest.raises(ValueError, match="zone"):
        clock.set(datetime(2026, 1, 1))  # noqa: DTZ001 -- what is refused


def test_the_systems_clock_is_aware_and_goes_on() -> None:
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0.01)
    clock.sleep(-1)

    assert clock.now() >= before + timedelta(seconds=0.01)
    assert before.tzinfo is UTC


def test_a_price_that_was_not_handed_in_is_unknown() -> None:
    rate = Rate(Decimal(1), Decimal(2), Decimal(1), Decimal(1), "test")
    prices = StaticPrices({("openai", "small"): Price(rate, rate)})

    assert prices.price("openai", "small", at=NOON).batch == rate
    unknown = prices.price("openai", "large", at=NOON)
    assert (unknown.batch, unknown.realtime) == (None, None)
    assert "openai large" in unknown.note

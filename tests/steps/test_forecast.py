"""A forecast: as long as the real line makes a job wait, learned from real batches, and told with what would help."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from nightbatch import flow
from nightbatch.adapters.memory import MemorySource
from nightbatch.adapters.memory_vendor import MemoryProvider
from nightbatch.adapters.registry import open_ports, settings_from
from nightbatch.core.batch import BatchState
from nightbatch.core.capacity import ASSUMED, Verdict, lasts
from nightbatch.core.queue import Kind, Limit, QueueRules
from nightbatch.core.window import Window
from nightbatch.emulator import EmulatorSettings, running
from nightbatch.job import Job
from nightbatch.ports import Chunk, Connection, Settings
from nightbatch.steps.forecast import turnaround_of
from nightbatch.steps.forecast_words import forecast_json, forecast_rows, span, warnings
from nightbatch.steps.planning import Options
from tests.memory_stack import NEXT_NIGHT, NIGHT, Stack, job_of

HOUR = timedelta(hours=1)
TWO_AT_A_TIME = QueueRules((Limit(Kind.BATCHES, 2),))


@dataclass
class SlowProvider(MemoryProvider):
    """Ends each batch an hour after it was made."""

    ends_at_once: bool = False

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch."""
        state = super().poll(batch_id)
        assert state.created_utc is not None
        is_over = self.vendor.clock.now() >= state.created_utc + HOUR
        return self.vendor.end(batch_id) if is_over else state


def slow_stack(count: int, rules: QueueRules = TWO_AT_A_TIME) -> Stack:
    stack = Stack([(f"k{number:02d}", f"text {number}") for number in range(count)])
    stack.provider = SlowProvider(stack.vendor, queue=rules)
    return stack


def test_a_night_takes_as_long_as_was_foreseen() -> None:
    """Three shards of an hour, two at a time; with an hour's turnaround assumed, and then with what it was."""
    stack = slow_stack(9)
    settings = Settings("sqlite://", "memory://", poll_from_s=300, poll_to_s=300)
    foreseen = flow.look_ahead(stack.ports(), job_of(rounds=0), NIGHT).forecast.capacity
    start = stack.clock.now()

    flow.run(stack.ports(settings=settings), job_of(rounds=0), NIGHT)

    took = stack.clock.now() - start
    looks = 2 * 2 * timedelta(seconds=300)  # a batch that ended, and a place that is free, are seen at the next look
    assert (foreseen.turnaround, foreseen.room.at_once, foreseen.waves) == (ASSUMED, 2, 2)
    assert foreseen.typical - foreseen.ours == 2 * HOUR <= took <= 2 * HOUR + looks
    stack.records = [(f"n{number:02d}", f"new text {number}") for number in range(9)]
    learned = flow.look_ahead(stack.ports(), job_of(), NEXT_NIGHT).forecast
    assert (learned.capacity.turnaround.batches, learned.learned_from) == (3, "this job")
    assert HOUR <= learned.capacity.turnaround.typical <= HOUR + timedelta(seconds=300)
    assert took <= learned.capacity.slow + looks


def test_other_jobs_teach_a_job_that_has_no_batch_yet_but_not_about_other_models() -> None:
    stack = slow_stack(3)
    flow.run(stack.ports(), job_of(), NIGHT)

    found, whose = turnaround_of(stack.ledger, "mails", provider="openai", model="echo-1")

    assert (found.batches, whose) == (1, "other jobs")
    assert turnaround_of(stack.ledger, "reviews", provider="openai", model="big-1") == (ASSUMED, "")
    assert turnaround_of(stack.ledger, "reviews", provider="anthropic", model="echo-1") == (ASSUMED, "")


def test_a_job_that_cannot_meet_its_deadline_is_told_what_would() -> None:
    """Seven shards, two at a time, in three hours: only with three at a time, or with six of them."""
    stack = slow_stack(21)
    job = job_of(deadline={"after": "190m"})

    found = flow.look_ahead(stack.ports(), job, NIGHT).forecast

    assert found.verdict is Verdict.LATE
    assert found.available == timedelta(hours=1, minutes=10)  # it is two o'clock already
    in_its_night = flow.look_ahead(stack.ports(), job, Window(NIGHT.start - 24 * HOUR, NIGHT.start)).forecast
    assert in_its_night.available == timedelta(hours=3, minutes=10)
    way = in_its_night.way_out
    assert way is not None
    assert (way.raised, way.rows) == (((TWO_AT_A_TIME.limits[0], 3),), 18)
    assert list(warnings(job, in_its_night)) == [
        "The deadline cannot be met: 21 rows take about 4 h 1 min, and there are 3 h 10 min. "
        "Any one of these would do:",
        "- a higher tier or a larger limit: 3 batches (now 2); then say so under `queue` in the connection's extra",
        "- a later deadline: 4 h 1 min after the start",
        "- fewer rows: 18 can be answered in time",
        "- real time for 3 rows: leave them out with `deferrable`, and ask about them outside of nightbatch",
    ]


def test_no_limit_helps_where_one_batch_takes_longer_than_there_is() -> None:
    found = flow.look_ahead(slow_stack(21).ports(), job_of(deadline={"after": "150m"}), NIGHT).forecast

    said = list(warnings(job_of(), found))

    assert "- a model or a vendor whose batches are quicker; no limit helps where one batch takes longer" in said[1]
    assert said[-1].startswith("- real time for 21 rows")
    assert len(said) == 4


def test_a_deadline_that_only_quick_batches_meet_is_told_as_such() -> None:
    found = flow.look_ahead(slow_stack(3).ports(), job_of(deadline={"after": "6h"}), NIGHT).forecast

    assert dict(forecast_rows(job_of(), found))["deadline (SLA)"] == (
        "2026-11-21 06:00 UTC, 4 h after the start: in time unless batches are slow"
    )
    assert list(warnings(job_of(), found)) == [
        "Only a deadline 24 h 1 min after the start can be met when every batch is slow."
    ]


def test_what_is_foreseen_is_said_in_words_and_in_numbers() -> None:
    stack = slow_stack(7, QueueRules((Limit(Kind.ROWS, 4), Limit(Kind.CREATIONS, 2))))
    found = flow.look_ahead(stack.ports(), job_of(canary={"rows": 1}), NIGHT).forecast

    assert dict(forecast_rows(job_of(), found))["at the vendor"] == (
        "4 of 7 shards at once, so 2 times over, since 4 requests may wait; 2 may be made in an hour; "
        "the canary goes alone"
    )
    assert json.loads(json.dumps(forecast_json(found)))["shards_at_once"] == 4
    over = replace(found, capacity=replace(found.capacity, shards=replace(found.capacity.shards, count=1_025)))
    assert "raise max_map_length" in next(warnings(job_of(), over))
    nothing = flow.look_ahead(slow_stack(0).ports(), job_of(), NIGHT).forecast
    assert list(forecast_rows(job_of(), nothing)) == list(warnings(job_of(), nothing)) == []


def test_as_many_workers_are_counted_as_the_source_has_parts() -> None:
    """As many as there really are, not as many as may be; and one where only the first records are read."""
    stack, job = slow_stack(9), job_of(source={"files": "memory/records.jsonl", "key": "id", "parts": 4})

    def processes(job: Job, chunks: int, options: Options | None = None) -> tuple[int, str]:
        source = MemorySource([Chunk(("id", "text"), [record]) for record in stack.records[:chunks]])
        found = flow.look_ahead(stack.ports(source=lambda: source), job, NIGHT, options).forecast
        assert forecast_json(found)["parts"] == found.capacity.shards.parts
        return found.capacity.shards.parts, dict(forecast_rows(job, found))["processes"]

    assert processes(job_of(), 9) == (1, "1 worker slot, 1 triggerer")
    said = "worker slots ({0} read the source side by side, 1 load answers), 1 triggerer"
    assert processes(job, 9) == (4, f"4 {said.format(4)}")
    assert processes(job, 2) == (2, f"2 {said.format(2)}")
    assert processes(job, 9, Options(limit=5)) == (1, "1 worker slot, 1 triggerer")


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(seconds=0), "0 s"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(minutes=60, seconds=21), "61 min"),
        (timedelta(hours=2, seconds=1), "2 h 1 min"),
        (timedelta(hours=24), "24 h"),
    ],
)
def test_a_length_of_time_is_never_said_to_be_shorter_than_it_is(length: timedelta, said: str) -> None:
    assert span(length) == said


def test_the_emulator_at_speed_takes_as_long_as_the_model_says(tmp_path: Path) -> None:
    """Six batches of an hour each, three at a time, in a second."""
    records = "\n".join(json.dumps({"id": f"k{number}", "text": f"text {number}"}) for number in range(12))
    (tmp_path / "records.jsonl").write_text(records)
    with running(EmulatorSettings(batch_seconds=3_600, speed=3_600)) as url:
        extra = {"queue": {"batches": 3}}
        connection = Connection("c", "openai", host=f"{url}/v1", password="sk-emulator", extra=extra)
        job = _emulated(tmp_path)
        environ = {"NIGHTBATCH_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db", "NIGHTBATCH_STAGING_URI": str(tmp_path)}
        polls = {"NIGHTBATCH_POLL_FROM_S": "0.1", "NIGHTBATCH_POLL_TO_S": "0.1"}
        ports = open_ports(job, settings_from({**environ, **polls}), lambda _: connection)
        foreseen = flow.look_ahead(ports, job, NIGHT).forecast.capacity
        start = datetime.now(UTC)

        books = flow.run(ports, job, NIGHT)

        took = datetime.now(UTC) - start
        headers = {"Authorization": "Bearer sk-emulator"}
        made = httpx.get(f"{url}/emulator/state", headers=headers).json()["creations"]
        turnaround, _ = turnaround_of(ports.ledger, job.name, provider="openai", model="gpt-5-mini")
    assert (foreseen.shards.count, foreseen.room.at_once, foreseen.waves) == (6, 3, 2)
    assert (books.merged, sum(made.values())) == (12, 6)
    assert turnaround.batches == 6
    two_waves = lasts(foreseen.shards, foreseen.room, timedelta(seconds=1))
    assert two_waves == timedelta(seconds=2) <= took
    # What is ours comes on top, on a machine that others use too.
    assert timedelta(seconds=1) <= turnaround.typical
    assert took <= lasts(foreseen.shards, foreseen.room, turnaround.slow) + timedelta(seconds=30)


def _emulated(folder: Path) -> Job:
    return Job.model_validate(
        {
            "name": "tickets",
            "source": {"files": f"{folder}/records.jsonl", "key": "id"},
            "prompt": {"user": "{{ text }}"},
            "models": [{"provider": "openai", "model": "gpt-5-mini", "connection": "c", "max_output_tokens": 100}],
            "sink": {"files": f"{folder}/answers"},
            "shard": {"max_rows": 2},
            "rounds": 0,
        }
    )

"""The trigger waits and tells; it decides nothing, writes nothing and never cancels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from airflow.sdk._shared.module_loading import import_string

from nightbatch import __version__
from nightbatch.adapters.ledger_tables import attempts
from nightbatch.adapters.providers.openai import OpenAIProvider
from nightbatch.adapters.registry import open_provider
from nightbatch.core.batch import BatchState, BatchStatus, decide
from nightbatch.core.ids import Label
from nightbatch.core.request import Endpoint, Messages, RequestSpec
from nightbatch.emulator import DEFAULT_KEY
from nightbatch.orchestration import trigger as triggers
from nightbatch.orchestration.trigger import FIRST_LOOK_S, ShardTrigger
from nightbatch.ports import Connection, Settings
from nightbatch.steps.lanes import body_of
from nightbatch.steps.wait import next_poll
from tests.orchestration.night import NIGHT, Night

SHIPPED_FIRST_LOOK_S = FIRST_LOOK_S
"""Read before any test makes it shorter."""
LONG = 3_600.0


def sent(night: Night) -> str:
    """Send a batch of one row and give its id."""
    host = f"{night.vendor}/v1"
    provider = open_provider(
        "openai", Connection("vendor", "openai", host=host, password=DEFAULT_KEY), request_timeout_s=30
    )
    spec = RequestSpec(Endpoint.CHAT, "gpt-5-mini", max_output_tokens=10)
    encoder = provider.encoder(spec)
    line = encoder.envelope.line("nb_00000000_000000000000_0_0_0", body_of(encoder, Messages("", "text")))
    file_id = provider.upload(iter([line]), size_bytes=len(line), name="input.jsonl")
    label = Label("0" * 32, "0" * 12, 0, 0, 1, "0" * 64)
    return provider.create(file_id=file_id, lines=iter([line]), endpoint=Endpoint.CHAT, label=label).batch_id


def watching(batch_id: str, **changes: Any) -> ShardTrigger:
    """Make a trigger that waits for a batch."""
    now = datetime.now(UTC).isoformat()
    given: dict[str, Any] = {"until": now, "created": now, "poll_from_s": 0.05, "poll_to_s": 0.2}
    given |= {"provider": "openai", "connection": "vendor", "batch_id": batch_id}
    return ShardTrigger(**{**given, **changes})


async def fired(trigger: ShardTrigger, within_s: float = 30) -> dict[str, Any]:
    """Give what the trigger fires with."""
    async with asyncio.timeout(within_s):
        event = await anext(trigger.run())
    payload: dict[str, Any] = event.payload
    return payload


def requests(night: Night, operation: str) -> int:
    """Count the calls of one kind that reached the vendor."""
    return sum(count for name, count in night.vendor_state()["requests"].items() if name.endswith(operation))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """What the trigger sleeps, recorded and not slept; the sixth ends the test."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)
        if len(made) == 6:
            raise asyncio.CancelledError

    monkeypatch.setattr(triggers, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    yield made


@pytest.mark.parametrize(
    "trigger",
    [
        ShardTrigger(until="2026-11-21T02:00:00+00:00"),
        watching("batch_1", poll_from_s=30.0, poll_to_s=300.0, request_timeout_s=600.0),
        watching("batch_1", about="job=night run=night/g1 shard=r0-s000"),
        watching("batch_1", labels={"job_name": "night", "model": "gpt-5-mini"}),
        watching("batch_1", away_after_s=60.0, is_away=True),
    ],
)
def test_a_trigger_survives_being_written_down(trigger: ShardTrigger) -> None:
    """Another triggerer makes it anew from a path and JSON."""
    path, arguments = trigger.serialize()

    again = import_string(path)(**json.loads(json.dumps(arguments)))

    assert isinstance(again, ShardTrigger)
    assert again.serialize() == (path, arguments)


def test_what_a_trigger_is_made_of_holds_no_secret(night: Night) -> None:
    assert DEFAULT_KEY not in json.dumps(watching("batch_1").serialize())


def test_it_fires_when_the_batch_has_ended(night: Night) -> None:
    batch = sent(night)

    payload = asyncio.run(fired(watching(batch)))

    assert (payload["reason"], payload["batch_id"]) == ("batch is completed", batch)
    assert datetime.now(UTC) - datetime.fromisoformat(payload["seen_utc"]) < timedelta(seconds=10)
    assert requests(night, "retrieve_batch") >= 1


def test_it_does_not_fire_while_the_batch_runs(night: Night) -> None:
    batch = sent(night)
    night.faults(stuck="in_progress")
    stuck = sent(night)

    with pytest.raises(TimeoutError):
        asyncio.run(fired(watching(stuck), within_s=1.5))
    assert asyncio.run(fired(watching(batch)))["reason"] == "batch is completed"


def test_it_tolerates_looks_that_fail(night: Night) -> None:
    batch = sent(night)
    night.faults(http_5xx=7, on="retrieve_batch")

    payload = asyncio.run(fired(watching(batch)))

    assert payload["reason"] == "batch is completed"
    assert requests(night, "retrieve_batch") > 7


def test_it_wakes_the_task_after_many_looks_in_a_row_failed(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's own log then says what is wrong, and it waits on."""
    monkeypatch.setattr(triggers, "MAX_FAILED_LOOKS", 2)
    batch = sent(night)
    night.faults(http_5xx=1_000, on="retrieve_batch")

    assert asyncio.run(fired(watching(batch)))["reason"] == "2 looks in a row failed"


def test_it_wakes_the_task_when_people_are_to_hear_that_the_vendor_does_not_answer(night: Night) -> None:
    batch = sent(night)
    night.faults(http_5xx=1_000, on="retrieve_batch")
    began = datetime.now(UTC)

    payload = asyncio.run(fired(watching(batch, away_after_s=0.5)))

    since = datetime.fromisoformat(payload["failing_since_utc"])
    assert "looks in a row failed" in payload["reason"]
    assert began <= since <= datetime.now(UTC) - timedelta(seconds=0.5)


def test_it_wakes_a_task_that_counts_an_outage_when_a_look_works(night: Night) -> None:
    """Else people would hear of the end only when the batch ends."""
    night.faults(stuck="in_progress", http_5xx=5, on="retrieve_batch")
    batch = sent(night)

    payload = asyncio.run(fired(watching(batch, is_away=True)))

    assert (payload["failing_since_utc"], "the vendor answers again" in payload["reason"]) == ("", True)


def test_it_wakes_the_task_with_the_reason_when_the_account_is_in_trouble(night: Night) -> None:
    batch = sent(night)
    night.faults(http_401=1_000)

    assert "the account at openai cannot be used" in asyncio.run(fired(watching(batch)))["reason"]


def test_it_wakes_the_task_when_the_connection_is_gone(night: Night) -> None:
    payload = asyncio.run(fired(watching("batch_1", connection="nowhere")))

    assert "connection nowhere: Airflow has none with this id" in payload["reason"]


def test_a_batch_that_is_not_found_is_waited_for_until_it_is_no_blip(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TimeoutError):
        asyncio.run(fired(watching("batch_unheard_of"), within_s=1))

    monkeypatch.setattr(triggers, "decide", partial(decide, grace=timedelta(seconds=0.3)))

    assert "not found for" in asyncio.run(fired(watching("batch_unheard_of")))["reason"]


def test_it_never_cancels_a_batch(night: Night) -> None:
    """Clearing, marking and killing end in `cleanup` or `on_kill`, or in nothing at all."""
    night.faults(stuck="in_progress")
    batch = sent(night)
    trigger = watching(batch)

    async def clear_while_it_waits() -> None:
        task = asyncio.create_task(fired(trigger))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await trigger.on_kill()
        await trigger.cleanup()

    asyncio.run(clear_while_it_waits())

    assert requests(night, "retrieve_batch") > 0
    assert requests(night, "cancel_batch") == requests(night, "delete_batch") == requests(night, "delete_file") == 0
    assert [batch["status"] for batch in night.batches()] == ["in_progress"]


def test_the_pauses_between_looks_grow_with_the_batchs_age_within_their_bounds() -> None:
    settings = Settings("", "", poll_from_s=30, poll_to_s=300)
    by_age = {
        minutes: [
            next_poll(settings, batch_id=f"batch_{n}", age=timedelta(minutes=minutes)).total_seconds()
            for n in range(200)
        ]
        for minutes in (0, 1, 20, 600)
    }

    for minutes, middle in ((0, 30), (1, 30), (20, 120), (600, 300)):
        assert 0.8 * middle <= min(by_age[minutes]) < 0.85 * middle
        assert 1.15 * middle < max(by_age[minutes]) <= 1.2 * middle
    assert all(len(set(pauses)) > 150 for pauses in by_age.values())


def test_it_looks_first_after_a_while_and_then_within_the_bounds(night: Night, pauses: list[float]) -> None:
    night.faults(stuck="in_progress")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(fired(watching(sent(night), poll_from_s=30.0, poll_to_s=300.0)))

    assert all(0.8 * 30 <= pause <= 300 for pause in pauses)
    assert len(set(pauses)) >= 1


def test_failing_looks_are_made_less_and_less_often(night: Night, pauses: list[float]) -> None:
    batch = sent(night)
    night.faults(http_5xx=1_000, on="retrieve_batch")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(fired(watching(batch, poll_from_s=10.0, poll_to_s=60.0)))

    assert pauses == sorted(pauses)
    assert pauses[-1] == 60


def test_no_trigger_fires_before_airflow_has_seen_that_its_task_waits(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3.3.2 fails the task otherwise, now and then."""
    assert SHIPPED_FIRST_LOOK_S >= 8
    monkeypatch.setattr(triggers, "FIRST_LOOK_S", 0.7)
    batch = sent(night)
    began = datetime.now(UTC)
    past = (began - timedelta(hours=1)).isoformat()

    for trigger in (watching(batch), ShardTrigger(until=past)):
        began = datetime.now(UTC)
        asyncio.run(fired(trigger))
        assert datetime.now(UTC) - began >= timedelta(seconds=0.7)


def test_waiting_for_a_time_fires_at_that_time(night: Night) -> None:
    until = datetime.now(UTC) + timedelta(seconds=1)

    payload = asyncio.run(fired(ShardTrigger(until=until.isoformat())))

    assert payload == {"reason": "the time has come", "triggerer": __version__}
    assert timedelta(0) <= datetime.now(UTC) - until < timedelta(seconds=5)
    assert night.vendor_state()["requests"].keys() <= {"openai other"}


def test_a_vendor_that_hangs_does_not_hold_up_other_triggers(night: Night) -> None:
    """They share one event loop; a look is made in a thread."""
    batch = sent(night)
    night.faults(hang=1, hang_seconds=1.5, on="retrieve_batch")
    gaps: list[float] = []

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            gaps.append(loop.time() - before)

    async def both() -> None:
        ticking = asyncio.create_task(tick())
        assert (await fired(watching(batch)))["reason"] == "batch is completed"
        ticking.cancel()

    asyncio.run(both())

    assert len(gaps) > 20


def test_a_blip_after_a_long_wait_is_not_taken_for_a_batch_that_vanished(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trigger saw the batch a moment ago; the ledger, for which it does not write, last heard of it hours ago."""
    night.fill([("k0", "text", "2026-11-20")])
    real_watch, real_poll = ShardTrigger._watch_batch, OpenAIProvider.poll
    waits: list[str] = []
    looks: list[BatchStatus] = []

    async def hours_pass(trigger: ShardTrigger) -> str:
        waits.append(await real_watch(trigger))
        with sa.create_engine(night.env["NIGHTBATCH_LEDGER_URL"]).begin() as connection:
            long_ago = datetime.now(UTC) - timedelta(hours=6)
            connection.execute(sa.update(attempts).values(last_seen_utc=long_ago, created_utc=long_ago))
        return waits[-1]

    def one_blip(provider: OpenAIProvider, batch_id: str) -> BatchState:
        state = real_poll(provider, batch_id)
        if waits and BatchStatus.NOT_FOUND not in looks:
            state = BatchState(batch_id, BatchStatus.NOT_FOUND, "404")
        looks.append(state.status)
        return state

    monkeypatch.setattr(ShardTrigger, "_watch_batch", hours_pass)
    monkeypatch.setattr(OpenAIProvider, "poll", one_blip)

    ended = night.run(night.dag(), NIGHT)

    assert (ended.state, len(waits), BatchStatus.NOT_FOUND in looks) == ("success", 2, True)
    assert ended.tries["round_0.batch[0]"] == 1

"""Triggers that wait at one connection are told by one listing, and notice nothing else of each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from nightbatch.emulator import DEFAULT_KEY, Account, EmulatorSettings, running
from nightbatch.errors import ProviderBusy
from nightbatch.orchestration import looks as sharing
from nightbatch.orchestration import trigger as triggers
from nightbatch.orchestration.looks import shared_looks
from nightbatch.orchestration.trigger import ShardTrigger

OTHER_KEY = "sk-other"
COUNT = 8
LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]},
}


class Vendor:
    """An emulated vendor with two accounts, and what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address

    def connection(self, name: str, key: str) -> str:
        return json.dumps({"conn_type": "openai", "host": f"{self.address}/v1", "password": key})

    def call(self, method: str, path: str, *, key: str = DEFAULT_KEY, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.request(method, self.address + path, headers=headers, **more).raise_for_status().json()

    def faults(self, **faults: Any) -> None:
        self.call("PUT", "/emulator/faults", json=faults)

    def made(self, count: int = COUNT, *, key: str = DEFAULT_KEY) -> list[str]:
        """Make so many batches of one row."""
        file = {"file": ("a.jsonl", json.dumps(LINE))}
        sent = self.call("POST", "/v1/files", key=key, data={"purpose": "batch"}, files=file)["id"]
        asked = {"input_file_id": sent, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return [self.call("POST", "/v1/batches", key=key, json=asked)["id"] for _ in range(count)]

    @property
    def asked(self) -> dict[str, int]:
        told = self.call("GET", "/emulator/state")["requests"]
        return {what: int(told.get(f"openai {what}", 0)) for what in ("list_batches", "retrieve_batch")}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """A vendor; lists are asked where more than three wait, and at least two ask."""
    monkeypatch.setattr(triggers, "FIRST_LOOK_S", 0.05)
    monkeypatch.setattr(sharing, "MANY", 3)
    monkeypatch.setattr(sharing, "FEW", 1)
    accounts = (Account(DEFAULT_KEY), Account(OTHER_KEY, organization="org-other"))
    with running(EmulatorSettings(batch_seconds=0.3, accounts=accounts)) as address:
        vendor = Vendor(address)
        monkeypatch.setenv("AIRFLOW_CONN_VENDOR", vendor.connection("vendor", DEFAULT_KEY))
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", vendor.connection("other", OTHER_KEY))
        yield vendor
    assert sharing._shared == {}


def watching(batch_id: str, **changes: Any) -> ShardTrigger:
    now = datetime.now(UTC).isoformat()
    given: dict[str, Any] = {"until": now, "created": now, "poll_from_s": 0.3, "poll_to_s": 1.0}
    given |= {"provider": "openai", "connection": "vendor", "batch_id": batch_id}
    return ShardTrigger(**{**given, **changes})


async def fired(trigger: ShardTrigger) -> dict[str, Any]:
    payload: dict[str, Any] = (await anext(trigger.run())).payload
    return payload


async def all_fired(*made: ShardTrigger, within_s: float = 20) -> list[dict[str, Any]]:
    async with asyncio.timeout(within_s):
        return await asyncio.gather(*map(fired, made))


def company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks wait so long for each other that all come together."""
    monkeypatch.setattr(triggers, "PATIENCE", 1.0)


def test_many_that_wait_are_told_by_lists(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    company(monkeypatch)
    batches = vendor.made()

    payloads = asyncio.run(all_fired(*map(watching, batches)))

    assert [(payload["reason"], payload["batch_id"]) for payload in payloads] == [
        ("batch is completed", batch_id) for batch_id in batches
    ]
    assert vendor.asked["list_batches"] >= 1
    assert sum(vendor.asked.values()) < COUNT


def test_few_that_wait_are_polled(vendor: Vendor) -> None:
    asyncio.run(all_fired(*map(watching, vendor.made(3))))

    assert (vendor.asked["list_batches"], vendor.asked["retrieve_batch"] >= 3) == (0, True)


def test_no_batch_is_looked_at_before_its_turn(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others of the connection are, and the listing shows all of them."""
    company(monkeypatch)
    batches = vendor.made()
    patient = watching(batches[0], poll_from_s=60.0, poll_to_s=60.0)

    async def both() -> None:
        waits = asyncio.create_task(fired(patient))
        await all_fired(*map(watching, batches[1:]))
        assert (waits.done(), patient.last_seen) == (False, None)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(both())


def test_what_no_list_holds_is_polled_and_only_a_poll_says_that_it_is_not_there(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    company(monkeypatch)
    vendor.faults(list_lag_seconds=60)
    hidden = vendor.made(4)

    payloads = asyncio.run(all_fired(*map(watching, hidden)))

    assert {payload["reason"] for payload in payloads} == {"batch is completed"}
    assert vendor.asked["list_batches"] >= 1
    assert vendor.asked["retrieve_batch"] >= 4


def test_a_list_that_fails_is_a_failed_look_of_each_whose_turn_it_was_and_then_they_are_polled(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    company(monkeypatch)
    told: list[str] = []
    monkeypatch.setattr(triggers, "tell_failed_look", lambda _, error: told.append(f"{error}"))
    batches = vendor.made()
    vendor.faults(http_5xx=1_000, on="list_batches")

    payloads = asyncio.run(all_fired(*map(watching, batches)))

    assert {payload["reason"] for payload in payloads} == {"batch is completed"}
    assert 2 <= len(told) <= COUNT
    assert all("listing batches" in each and "503" in each for each in told)
    assert vendor.asked["retrieve_batch"] >= COUNT
    assert vendor.asked["list_batches"] == 3, "one walk, which the SDK repeated twice"


def test_people_are_told_of_a_vendor_whose_lists_and_polls_fail(vendor: Vendor) -> None:
    batches = vendor.made()
    vendor.faults(http_5xx=10_000)

    payloads = asyncio.run(all_fired(*(watching(batch_id, away_after_s=0.5) for batch_id in batches)))

    assert all("looks in a row failed" in payload["reason"] for payload in payloads)
    assert all(payload["failing_since_utc"] for payload in payloads)


def test_where_only_the_list_is_refused_each_is_polled_and_none_wakes(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key may be allowed to read a batch and not to list them."""
    company(monkeypatch)
    batches = vendor.made()
    vendor.faults(http_401=1_000, on="list_batches")

    payloads = asyncio.run(all_fired(*map(watching, batches)))

    assert {payload["reason"] for payload in payloads} == {"batch is completed"}
    assert vendor.asked["list_batches"] == 1


def test_an_account_in_trouble_wakes_each_with_the_same_words_as_a_poll(vendor: Vendor) -> None:
    batches = vendor.made()
    vendor.faults(http_401=10_000)

    payloads = asyncio.run(all_fired(*map(watching, batches)))

    assert all("the account at openai cannot be used" in payload["reason"] for payload in payloads)


def test_connections_are_never_shared(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each account lists its own batches only; with the other's key nothing would be found."""
    company(monkeypatch)
    ours, theirs = vendor.made(), vendor.made(key=OTHER_KEY)

    payloads = asyncio.run(
        all_fired(*map(watching, ours), *(watching(batch_id, connection="other") for batch_id in theirs))
    )

    assert {payload["reason"] for payload in payloads} == {"batch is completed"}
    assert vendor.asked["list_batches"] >= 2
    assert sum(vendor.asked.values()) < COUNT


def test_a_trigger_that_is_cancelled_harms_no_other(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the one whose asking began the walk, while it waits for the list."""
    company(monkeypatch)
    batches = vendor.made()
    vendor.faults(hang=1, hang_seconds=0.5, on="list_batches")

    async def clear_some() -> list[dict[str, Any]]:
        tasks = [asyncio.create_task(fired(watching(batch_id))) for batch_id in batches]
        while vendor_walks() == 0:
            await asyncio.sleep(0.02)
        for task in tasks[:6]:
            task.cancel()
        ended = await asyncio.gather(*tasks[:6], return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended)
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks[6:])

    def vendor_walks() -> int:
        return sum(looks._walk is not None for looks in sharing._shared.values())

    assert {payload["reason"] for payload in asyncio.run(clear_some())} == {"batch is completed"}


def test_a_key_that_was_changed_is_used_at_the_next_look(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    [batch_id] = vendor.made(1, key=OTHER_KEY)

    async def look_twice() -> list[str]:
        with shared_looks("openai", "vendor", request_timeout_s=10.0) as looks:
            states = [await looks.look(batch_id, created=datetime.now(UTC), patience_s=0)]
            monkeypatch.setenv("AIRFLOW_CONN_VENDOR", vendor.connection("vendor", OTHER_KEY))
            states.append(await looks.look(batch_id, created=datetime.now(UTC), patience_s=0))
            return [state.vendor_status for state in states]

    before, after = asyncio.run(look_twice())

    assert (before, after != "404") == ("404", True)


def test_one_walk_at_a_time_is_made_and_the_next_begins_when_it_ends(
    vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that hangs must not take every thread of the triggerer."""
    at_once: list[int] = []
    under_way = 0
    real: Callable[..., Any] = sharing.look_by_list

    def counted(*given: Any) -> Any:
        nonlocal under_way
        under_way += 1
        at_once.append(under_way)
        try:
            return real(*given)
        finally:
            under_way -= 1

    monkeypatch.setattr(sharing, "look_by_list", counted)
    batches = vendor.made()
    vendor.faults(hang=1, hang_seconds=0.3, on="list_batches")

    async def look_all() -> list[Any]:
        now = datetime.now(UTC)
        with ExitStack() as stack:
            several = [stack.enter_context(shared_looks("openai", "vendor", request_timeout_s=10)) for _ in batches]
            looks = several[0]
            first = [asyncio.create_task(looks.look(one, created=now, patience_s=0)) for one in batches[:4]]
            await asyncio.sleep(0.1)
            then = [looks.look(one, created=now, patience_s=0) for one in batches[4:]]
            return await asyncio.gather(*first, *then, return_exceptions=True)

    told = asyncio.run(look_all())

    assert not [each for each in told if isinstance(each, ProviderBusy)]
    assert at_once == [1, 1]

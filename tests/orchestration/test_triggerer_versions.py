"""A triggerer that was not restarted after a deploy is told of, and no run is lost by it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string

from nightbatch import __version__
from nightbatch.orchestration import trigger as triggers
from nightbatch.orchestration import versions
from nightbatch.orchestration.trigger import ShardTrigger
from tests.orchestration.night import NIGHT, Night
from tests.orchestration.test_trigger import fired, sent, watching

FIRST_PATH = "nightbatch.orchestration.trigger.ShardTrigger"
FIRST_ARGUMENTS = {
    "until": "2026-11-21T02:00:00+00:00",
    "provider": "openai",
    "connection": "vendor",
    "batch_id": "batch_1",
    "created": "2026-11-21T01:00:00+00:00",
    "poll_from_s": 30.0,
    "poll_to_s": 300.0,
    "request_timeout_s": 60.0,
    "about": "job=night",
}
"""What the first version wrote into Airflow's database. Never changed: triggers wait there over a deploy."""


def test_what_the_first_version_wrote_down_is_still_a_trigger() -> None:
    trigger = import_string(FIRST_PATH)(**FIRST_ARGUMENTS)

    path, arguments = trigger.serialize()

    assert path == FIRST_PATH
    assert FIRST_ARGUMENTS.items() <= arguments.items()


def test_arguments_of_a_later_version_are_passed_over_and_passed_on() -> None:
    """Airflow fails the task otherwise; and the triggerer that takes over may be the newer one."""
    trigger = import_string(FIRST_PATH)(**FIRST_ARGUMENTS, version="0.2.0", patience={"s": 5})

    assert trigger.serialize()[1] == {**FIRST_ARGUMENTS, "version": "0.2.0", "patience": {"s": 5}}


def test_a_triggerer_of_another_version_says_so_and_goes_on(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    log = SimpleNamespace(warning=lambda text, *values: said.append(text % values), info=lambda *_: None)
    monkeypatch.setattr(ShardTrigger, "log", log)

    payload = asyncio.run(fired(watching(sent(night), version="0.2.0", about="job=night")))

    assert payload["reason"] == "batch is completed"
    [warning] = said
    assert warning.startswith(f"a task of nightbatch 0.2.0 waits here, and this triggerer runs {__version__}")
    assert warning.endswith(" [job=night]")


def test_a_triggerer_that_runs_what_is_no_longer_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "version", lambda name: "0.2.0")

    assert versions.triggerer_problem(__version__).startswith("nightbatch 0.2.0 is installed, and this triggerer still")


def test_all_is_quiet_where_all_are_of_one_version() -> None:
    assert versions.triggerer_problem(__version__) == ""


def test_a_run_ends_well_over_a_triggerer_that_cannot_watch(
    night: Night, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its code is of before the deploy and fails on what it is asked; the tasks look by themselves."""
    night.fill([("k0", "one", "2026-11-20"), ("k1", "two", "2026-11-20")])

    async def old_code(trigger: ShardTrigger) -> Any:
        raise KeyError("a provider that is not known yet")

    monkeypatch.setattr(ShardTrigger, "_watch_batch", old_code)
    monkeypatch.setattr(triggers, "__version__", "0.0.9")

    with caplog.at_level(logging.WARNING):
        ended = night.run(night.dag(), NIGHT)

    assert (ended.state, sorted(night.answers())) == ("success", ["k0", "k1"])
    assert ended.tries["round_0.batch[0]"] == 1
    assert f"the triggerer runs nightbatch 0.0.9, and this task {__version__}" in caplog.text


def test_it_fires_when_the_task_would_look_again_and_not_at_once(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else task and triggerer would wake each other all night."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(triggers, "asyncio", SimpleNamespace(sleep=sleep, to_thread=asyncio.to_thread))
    until = datetime.fromtimestamp(datetime.now(UTC).timestamp() + 100, tz=UTC).isoformat()

    payload = asyncio.run(fired(watching("batch_1", provider="not known yet", until=until)))

    assert payload["reason"] == "the triggerer could not watch the batch (KeyError), and this task looks itself"
    assert 90 < slept[-1] <= 100

"""A vendor that is away while a run waits in the triggerer: told once, with its end, without a worker or a try."""

from __future__ import annotations

import pytest

from nightbatch.adapters.providers import calls
from nightbatch.demo.services.slack import SlackSink
from tests.orchestration.night import Night

NOTIFY = {"slack_connection": "slack_alerts", "on": ["failed", "report"]}


def announced(sink: SlackSink) -> list[str]:
    return [str(message.payload["text"]).partition(":")[0] for message in sink.messages()]


def test_a_vendor_that_is_away_is_told_once_with_its_end_and_spends_no_try(
    night: Night, slack_sink: SlackSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIGHTBATCH_AWAY_AFTER_S", "0.6")
    monkeypatch.setattr(calls, "READ_RETRIES", 0)
    night.fill([("k0", "text 0", "2026-11-20"), ("k1", "text 1", "2026-11-20")])
    night.faults(http_5xx=8, on="retrieve_batch")

    ended = night.run(night.dag(notify=NOTIFY, shard={"max_rows": 10}))

    assert announced(slack_sink) == ["Vendor does not answer", "It is over", "Run report"]
    assert (ended.state, ended.tries["round_0.batch[0]"]) == ("success", 1)
    assert night.answers() == {"k0": "text 0", "k1": "text 1"}

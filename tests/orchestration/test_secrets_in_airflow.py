"""What Airflow keeps of a run, its XCom, asset events and task logs, holds no secret and no record's text."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from nightbatch.emulator import Account
from tests.orchestration.night import NEXT_NIGHT, NIGHT, QUERY

KEY = "sk-planted-Zq81kTn5vV"
TEXT = "Zebrafinch complains about invoice 4711"
RECORDS = [(f"k{number}", f"{TEXT} ({number})", "2026-11-20") for number in range(5)]


def test_xcom_asset_events_and_task_logs_hold_no_secret_and_no_text(
    make_night: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    night = make_night(accounts=(Account(KEY, "org-planted", "night"),), faults="permanent=0.3, truncated=0.3")
    connection = json.dumps({"conn_type": "openai", "host": f"{night.vendor}/v1", "password": KEY})
    monkeypatch.setenv("AIRFLOW_CONN_VENDOR", connection)
    caplog.set_level(logging.DEBUG, logger="nightbatch")
    caplog.set_level(logging.INFO)
    night.fill(RECORDS)

    good = night.run(night.dag())
    # PostgreSQL quotes the value that is no number, in an error that ends the task.
    bad = night.run(
        night.dag(
            source={
                "query": QUERY.replace("body from", "body::int as body from"),
                "connection": "warehouse",
                "key": "id",
            }
        ),
        {**NIGHT, "force": True},
    )
    night.sql("alter table answers add constraint short check (length(answer) < 3) not valid")
    refused = night.run(night.dag(), {**NIGHT, "force": True, "refresh": True})
    monkeypatch.setenv("AIRFLOW_CONN_VENDOR", connection.replace(KEY, f"{KEY}-revoked"))
    locked_out = night.run(night.dag(), NEXT_NIGHT)

    assert (bad.state, refused.state) == ("failed", "failed")
    assert len(night.answers()) > 0
    runs = (good, bad, refused, locked_out)
    kept = {
        "XCom": str([ended.xcoms for ended in runs]),
        "asset events": str([ended.asset_events for ended in runs]),
        "task logs": caplog.text + "".join(capfd.readouterr()),
    }
    assert "planted" not in kept["XCom"]
    assert "night/20261120" in kept["XCom"]
    assert "PostgreSQL says" in kept["task logs"]
    for place, content in kept.items():
        for secret in (KEY, TEXT, str(urlsplit(night.warehouse).password)):
            at = content.find(secret)
            assert secret not in content, f"in {place}: {content[max(0, at - 300) : at + 60]}"

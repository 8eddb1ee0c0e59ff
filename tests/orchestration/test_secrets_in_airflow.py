"""What Airflow keeps of a run, its XCom, asset events and task logs, holds no secret and no record's text."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pyarrow.parquet as pq
import pytest

from nightbatch.emulator import Account
from tests.orchestration.night import NEXT_NIGHT, NIGHT, QUERY

KEY = "sk-planted-Zq81kTn5vV"
TEXT = "Zebrafinch complains about invoice 4711"
ORIGINAL = "invoice 4711"
"""What the job redacts."""
TEXT_OF = {f"k{number}": f"{TEXT} ({number})" for number in range(5)}
RECORDS = [(key, text, "2026-11-20") for key, text in TEXT_OF.items()]


def uploads(url: str, key: str) -> Iterator[str]:
    """Give every file that the vendor holds."""
    with httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}) as vendor:
        for file in vendor.get("/files").json()["data"]:
            yield vendor.get(f"/files/{file['id']}/content").text


def holders(folder: Path) -> set[str]:
    """Name the files of a run that hold what was redacted."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    read = [
        (file.name, str(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_text())
        for file in files
    ]
    return {name for name, content in read if ORIGINAL in content}


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

    redact = {"patterns": {"invoice": r"invoice \d+"}}
    good = night.run(night.dag(redact=redact, delete_vendor_files=False))
    answers, sent = night.answers(), "".join(uploads(night.vendor, KEY))
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
    assert len(answers) > 0
    assert all(answer in TEXT_OF.values() for answer in answers.values()), "each original is put back"
    assert ("Zebrafinch" in sent, "4711" in sent) == (True, False)
    assert holders(night.folder / "staging" / good.xcoms["prepare", "run"]) == {"index.parquet"}
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
        for secret in (KEY, TEXT, ORIGINAL, str(urlsplit(night.warehouse).password)):
            at = content.find(secret)
            assert secret not in content, f"in {place}: {content[max(0, at - 300) : at + 60]}"

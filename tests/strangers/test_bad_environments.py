"""A machine that is not as it should be, from the command line: a sentence with what to do, and nothing is spent."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys

import pytest

from nightbatch.adapters.providers import calls
from nightbatch.demo.services.slack import SlackSink
from tests.servers import slack_sink
from tests.strangers.desk import Desk, desk, faulty, parrot, spent

__all__ = ["desk", "parrot", "slack_sink"]


def typed(desk: Desk, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Carry a command out in a process of its own, whose environment is what it is about."""
    return subprocess.run(
        [sys.executable, "-m", "nightbatch.cli", *words],
        cwd=desk.folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("place", ["below a file", "where nothing can be made"])
def test_a_data_folder_that_cannot_be_written_is_told(
    desk: Desk, parrot: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = spent(parrot)
    desk.records("one")
    desk.put("file", "x")
    home = {"below a file": desk.folder / "file" / "data", "where nothing can be made": "/proc/nightbatch"}[place]
    monkeypatch.setenv("NIGHTBATCH_HOME", str(home))

    ended = desk.run()

    assert (ended.code, str(home) in ended.answer["message"]) == (2, True), ended
    assert spent(parrot) == before


def test_a_home_that_cannot_be_written_is_not_needed(desk: Desk) -> None:
    desk.records("one")

    ended = typed(desk, "run", "tickets.yaml", "--json", HOME="/proc/nobody")

    assert (ended.returncode, desk.answers()) == (0, {"k0": "one"}), ended


def test_a_ledger_of_a_newer_version_is_left_alone(desk: Desk, parrot: str) -> None:
    desk.records("one")
    assert desk.type("status").code == 0
    before = spent(parrot)
    with sqlite3.connect(desk.folder / ".nightbatch" / "ledger.sqlite") as ledger:
        ledger.execute("update nb_alembic_version set version_num = 'r9999'")
        ledger.execute("update nb_meta set value = 'r9999' where name = 'works_from'")

    ended = desk.run()

    assert (ended.code, ended.answer["error"]) == (2, "LedgerMismatch"), ended
    assert spent(parrot) == before


def test_a_port_that_is_taken_is_told(desk: Desk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = typed(desk, "emulator", "serve", "--port", str(port))

    assert (ended.returncode, str(port) in ended.stderr, "Traceback" in ended.stderr) == (2, True, False), ended


def test_a_machine_in_another_zone_takes_the_same_window(desk: Desk) -> None:
    desk.job(more='timezone: Europe/Berlin\nschedule: "0 22 * * *"')
    desk.records("one")

    windows = {
        json.loads(typed(desk, "plan", "tickets.yaml", "--json", TZ=zone).stdout)["window"]
        for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles")
    }

    assert len(windows) == 1, windows


def test_without_a_network_nothing_is_asked_and_a_sentence_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.records("one")
    connection = {"conn_type": "openai", "host": "http://127.0.0.1:9/v1", "password": "sk-emulator"}
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(connection))

    ended = desk.type("try", "tickets.yaml", "-n", "1")

    assert (ended.code, "openai did not answer in 3 tries" in str(ended.answer["trials"])) == (75, True), ended


def test_a_vendor_that_is_away_while_a_run_waits_is_told_with_its_end(
    desk: Desk, parrot: str, slack_sink: SlackSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "READ_RETRIES", 0)
    monkeypatch.setenv("NIGHTBATCH_AWAY_AFTER_S", "0.3")
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_ALERTS", slack_sink.airflow_connection())
    desk.job(more="notify: {slack_connection: slack_alerts, on: [failed]}")
    desk.records("one")

    with faulty(parrot, http_5xx=6, on="retrieve_batch"):
        ended = desk.run()

    told, over = (str(message.payload) for message in slack_sink.messages())
    assert (ended.code, desk.answers()) == (0, {"k0": "one"}), ended
    assert "Vendor does not answer: openai has not answered for" in told
    assert "1 rows in 1 shards of 1 run of 1 job wait for it" in told
    assert "It is over: openai answers again through the connection openai_default" in over


def test_a_try_without_an_answer_does_not_look_like_a_good_one(desk: Desk) -> None:
    desk.put("records.jsonl", "")
    nothing = desk.type("try", "tickets.yaml")
    desk.put("records.jsonl", json.dumps({"id": "a", "text": " "}) + "\n")
    bad = desk.type("try", "tickets.yaml")
    desk.records(" ", "hello")
    one_is_answered = desk.type("try", "tickets.yaml")

    assert [(it.code, len(it.answer["trials"])) for it in (nothing, bad, one_is_answered)] == [(1, 0), (1, 1), (0, 2)]

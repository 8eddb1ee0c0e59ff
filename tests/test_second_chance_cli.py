"""Dead letters sent again, and runs cancelled, from the command line, on real servers: killed and typed again."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.test_night_cli import RECORDS, Desk, bucket_night, warehouse_night, window

pytest_plugins = ["tests.servers"]

KEYS = {key for key, _ in RECORDS}


@contextmanager
def night(request: pytest.FixtureRequest, folder: Path, job: str, **vendor: Any) -> Iterator[Desk]:
    """Put up a desk whose vendor does nothing wrong until it is told to."""
    postgres = request.getfixturevalue("postgres_server")
    if job == "night_sentiment":
        desk = warehouse_night(folder, postgres, **vendor)
    else:
        desk = bucket_night(folder, request.getfixturevalue("s3_server"), postgres, **vendor)
    with desk as put_up:
        faults(put_up)
        yield put_up


def faults(desk: Desk, **wanted: Any) -> None:
    """Put these faults, and no others, in force."""
    headers = {"Authorization": "Bearer sk-emulator"}
    httpx.put(f"{desk.vendor}/emulator/faults", headers=headers, json=wanted, timeout=10).raise_for_status()


def ledger(desk: Desk, query: str) -> Any:
    with psycopg.connect(desk.environ["NIGHTBATCH_LEDGER_URL"]) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]  # a query of this file


@contextmanager
def typed(desk: Desk, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Begin a command, and leave it to nobody in the end."""
    process = desk.type(*words, "--json")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(is_time: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not is_time():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def answered(desk: Desk) -> set[str]:
    return {row["sentence_id"] for row in desk.sink() if "nb_reason" not in row}


def dead(desk: Desk) -> dict[str, str]:
    return {row["sentence_id"]: row["nb_reason"] for row in desk.sink() if "nb_reason" in row}


def ending(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=120)
    assert out.strip(), err
    return process.returncode, json.loads(out)


def test_dead_letters_are_shown_with_their_price_and_sent_again_killed_or_not(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with night(request, tmp_path, "night_sentiment") as desk:
        faults(desk, permanent=0.3)
        books = desk.json("run", "night_sentiment.yaml", *window())
        buried = dead(desk)
        assert set(buried.values()) == {"invalid_request"}
        assert answered(desk) == KEYS - set(buried)

        told = desk.json("retry", "night_sentiment")

        (group,) = told["letters"]
        assert (told["run"], group["reason"], group["rows"]) == (books["run"], "invalid_request", len(buried))
        assert 0 < float(group["expected_usd"]) < float(group["worst_usd"]) < 0.1
        assert told["letters"] == books["letters"]

        # Its plan is sealed, and its upload hangs: nothing is sent when it dies.
        faults(desk, hang=1, hang_seconds=30, on="upload_file")
        words = ("retry", books["run"], "--reason", "invalid_request", "--job", "night_sentiment.yaml")
        before = desk.batches
        desk.kill_when(lambda: bool(ledger(desk, "select 1 from nb_attempts where run like '%/g2'")), *words)
        faults(desk)

        retried = desk.json(*words)

        assert (retried["state"], retried["from_dead"], retried["good"]) == ("complete", len(buried), len(buried))
        assert (answered(desk), dead(desk)) == (KEYS, {})
        assert desk.batches == before + -(-len(buried) // 20)

        again = desk.json(*words)

        assert {**again, "seconds": 0} == {**retried, "seconds": 0}
        assert ledger(desk, "select count(*) from nb_runs") == [(2,)]


@pytest.mark.parametrize("job", ["night_sentiment", "night_topics"])
def test_a_cancelled_run_keeps_what_is_paid_and_its_other_rows_are_dead_letters(
    request: pytest.FixtureRequest, tmp_path: Path, job: str
) -> None:
    with night(request, tmp_path, job, batch_seconds=120) as desk:
        desk.json("status")
        with typed(desk, "run", f"{job}.yaml", *window()) as running:
            wait_for(lambda: open_batches(desk) == 3, running)

            told = desk.json("cancel", job)

            assert [batch["rows"] for batch in told["batches"]] == [20, 20, 16]
            assert (told["loaded"], told["drops"]) == (0, True)
            assert ledger(desk, "select count(*) from nb_runs where cancelled_utc is not null") == [(0,)]

            code, ended = ending(desk.type("cancel", job, "--yes", "--json"))
            ending(running)

        assert (code, ended["error"], ended["books"]["state"]) == (0, "RunCancelled", "failed")
        kept = answered(desk)
        assert ended["books"]["dead"] == {"cancelled": len(KEYS) - len(kept)}
        batches = desk.state()["batches"]
        assert (sum(batch["billed_rows"] for batch in batches), len(batches)) == (len(kept), 3)


def open_batches(desk: Desk) -> int:
    ((count,),) = ledger(desk, "select count(*) from nb_attempts where state = 'open'")
    return int(count)

"""Anthropic keeps no name with a batch: a lost one is found among others, and nobody else's is taken or touched."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from nightbatch.demo.services.waiting import wait_until
from tests.faults.cell import Cell
from tests.faults.stage import RECORDS, ROW_FAULTS, Stage, Stages, check

LOST = "create reply in flight"


def foreign(stage: Stage, *, rows: int, seconds: float = 0) -> str:
    """Make a batch of somebody else's in the same workspace."""
    params = {"model": "claude-haiku-4-5", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello."}]}
    requests = [{"custom_id": f"theirs-{row}", "params": params} for row in range(rows)]
    reply = httpx.post(
        f"{stage.server.url}/v1/messages/batches",
        json={"requests": requests},
        headers={"x-api-key": stage.key, "X-Emulator-Faults": f"late_seconds={seconds}, late_match=theirs"},
        timeout=30,
    )
    batch_id: str = reply.raise_for_status().json()["id"]
    return batch_id


def check_beside(stage: Stage, twin: Any, books: dict[str, Any], cell: Cell, theirs: set[str]) -> None:
    """Check a night beside other people's batches, which all run to their end, though it may be over before them."""
    real = stage.batches

    def others() -> list[dict[str, Any]]:
        return [batch for batch in real() if batch["id"] in theirs]

    wait_until(lambda: all(batch["status"] == "ended" for batch in others()), what="their end", timeout_s=60)
    assert [batch["good_rows"] for batch in others()] == [batch["rows"] for batch in others()]
    stage.batches = lambda: [batch for batch in real() if batch["id"] not in theirs]  # type: ignore[method-assign]
    check(stage, twin, books, cell)


@pytest.mark.parametrize("nth", [2, 3])
def test_a_lost_batch_is_found_beside_others_of_its_run(stages: Stages, cell: Cell, nth: int) -> None:
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        stage.die(f"{LOST} #{nth}")

        check(stage, twin, stage.night(), cell)


def test_two_lost_batches_are_each_found_for_their_own_shard(stages: Stages, cell: Cell) -> None:
    """The second is of another size: of two that could not be told apart, one would have waited."""
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        # Under way so long that the second process finds the first one's batch open, and only holds it.
        stage.connect(faults=f"{ROW_FAULTS['anthropic']}, late_seconds=12, late_match=nb_")
        stage.die(LOST)
        stage.connect()
        stage.die(LOST)
        assert stage.ask("select rows from nb_attempts where state = 'sending' order by rows") == [(2,), (4,)]

        check(stage, twin, stage.night(), cell)


@pytest.mark.parametrize("seconds", [0, 4])
def test_a_strangers_batch_of_the_same_size_is_neither_taken_nor_touched(
    stages: Stages, cell: Cell, seconds: float
) -> None:
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        theirs = {foreign(stage, rows=4, seconds=seconds)}
        stage.die(LOST)
        theirs |= {foreign(stage, rows=4, seconds=seconds), foreign(stage, rows=2, seconds=seconds)}

        check_beside(stage, twin, stage.night(), cell, theirs)


def test_a_stranger_does_not_hide_that_nothing_was_made(stages: Stages, cell: Cell) -> None:
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        stage.die("after the commit of note_sending")
        theirs = {foreign(stage, rows=4)}

        check_beside(stage, twin, stage.night(), cell, theirs)


def test_two_ledgers_in_one_workspace_never_take_each_others_batches(stages: Stages, cell: Cell) -> None:
    with stages.put_up("anthropic") as one, stages.put_up("anthropic", workspace=one.workspace) as other:
        for stage in (one, other):
            stage.connect(faults="")
            stage.die(LOST)
        both = [one.begin_night(), other.begin_night()]
        books = [running.end().books for running in both]

        batches = one.batches()
        cell.record(
            expected=2 * len(RECORDS),
            loaded=len(one.rows()) + len(other.rows()),
            batches=len(batches),
            billed=sum(batch["billed_rows"] for batch in batches),
        )
        assert [(book["state"], book["batches"], book["merged"]) for book in books] == [("complete", 3, 11)] * 2
        assert one.digest() == other.digest()
        ids = [stage.ask("select batch_id from nb_attempts where batch_id is not null") for stage in (one, other)]
        assert not set(ids[0]) & set(ids[1])
        assert {batch_id for found in ids for (batch_id,) in found} == {batch["id"] for batch in batches}
        assert cell.billed == sum(book["good"] for book in books)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_a_lost_batch_is_found_on_a_later_page_of_the_listing(stages: Stages, cell: Cell, vendor: str) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        stage.die(f"{LOST} #3")
        theirs = {foreign(stage, rows=1) for _ in range(7)} if vendor == "anthropic" else set()
        books = stage.begin_night(at="reads listings in pages of 2").end().books

        check_beside(stage, twin, books, cell, theirs)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_a_batch_that_the_listing_shows_late_is_waited_for(stages: Stages, cell: Cell, vendor: str) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        stage.environ["NIGHTBATCH_LISTING_LAG_S"] = "4"
        normal = stage.environ["AIRFLOW_CONN_VENDOR"]
        stage.environ["AIRFLOW_CONN_VENDOR"] = normal.replace("transient", "list_lag_seconds=3.8, transient")
        stage.die(LOST)
        stage.environ["AIRFLOW_CONN_VENDOR"] = normal

        check(stage, twin, stage.night(), cell)

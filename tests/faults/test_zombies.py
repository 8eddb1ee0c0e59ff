"""Two live attempts at one run: frozen processes that wake up late, and runs that begin together."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from tests.faults.cell import Cell
from tests.faults.stage import DAY, RECORDS, ROW_FAULTS, Stages, check

VENDORS = ("openai", "anthropic")
WITHIN = {
    "pack": "mid-Parquet of a plan",
    "submit": "create reply in flight",
    "wait": "poll reply in flight",
    "collect": "mid-download",
    "validate": "mid-Parquet of verdicts",
    "load": "mid-COPY",
    "retry": "mid-Parquet of dead letters",
    "settle": "after the commit of settle",
}
"""Each step that writes, and a point inside it at which nobody else need wait for a lock."""
CELLS = [(step, moment) for step in WITHIN for moment in ("before", "at", "after")]


@pytest.mark.parametrize("number", range(len(CELLS)), ids=lambda number: f"{CELLS[number][1]} {CELLS[number][0]}")
def test_a_zombie_wakes_up_beside_its_successor(stages: Stages, cell: Cell, number: int) -> None:
    """The zombie froze just before a step; it wakes up when its successor stands before it, in it, or is done."""
    step, moment = CELLS[number]
    vendor = VENDORS[(number // 3 + number) % 2]
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        zombie = stage.freeze(f"before {step}")
        if moment == "after":
            stage.night()
        else:
            successor = stage.freeze(f"before {step}" if moment == "before" else WITHIN[step])
        zombie.wake()
        assert zombie.end().books
        if moment != "after":
            successor.wake()
            assert successor.end().books

        check(stage, twin, stage.night(), cell)


@pytest.mark.parametrize("vendor", VENDORS)
def test_two_who_hold_the_same_rows_in_the_warehouse_wait_for_each_other(
    stages: Stages, cell: Cell, vendor: str
) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        zombie = stage.freeze("between merge and commit")
        successor = stage.begin_night()
        zombie.wake()
        assert zombie.end().books
        assert successor.end().books

        check(stage, twin, stage.night(), cell)


def test_rows_that_a_frozen_process_holds_in_the_warehouse_are_taken_from_it(stages: Stages, cell: Cell) -> None:
    """It wakes up only when its successor is done; a minute passes before that by default, and a second here."""
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        stage.environ["AIRFLOW_CONN_ANSWERS"] += "?options=-c%20idle_in_transaction_session_timeout%3D1s"
        zombie = stage.freeze("between merge and commit")
        stage.night()
        zombie.wake()
        assert zombie.end().books

        check(stage, twin, stage.night(), cell)


@pytest.mark.parametrize("vendor", VENDORS)
def test_two_runs_over_one_window_begin_together(stages: Stages, cell: Cell, vendor: str) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        both = [stage.begin_night(), stage.begin_night()]
        for running in both:
            assert running.end().books

        check(stage, twin, stage.night(), cell)


def test_a_run_over_an_overlapping_window_waits_and_pays_for_nothing_again(stages: Stages, cell: Cell) -> None:
    twin = stages.twin("openai")
    with stages.put_up("openai") as stage:
        first = stage.freeze("poll reply in flight")
        half_a_day = timedelta(hours=12)
        window = ("--from", (DAY - half_a_day).isoformat(), "--to", (DAY + half_a_day).isoformat())
        second = stage.begin_night(window=window)
        first.wake()
        assert first.end().books
        books = second.end().books

        batches = stage.batches()
        cell.record(
            expected=len(RECORDS),
            loaded=len({row[1] for row in stage.rows()}),
            batches=len(batches),
            billed=sum(batch["billed_rows"] for batch in batches),
        )
        assert (books["state"], books["unchanged"], books["good"]) == ("complete", twin.books["merged"], 0)
        assert cell.loaded == cell.expected
        assert cell.billed == twin.billed


def test_frozen_in_a_create_call_beyond_all_limits_the_late_batch_is_cancelled_told_and_booked(
    stages: Stages, cell: Cell
) -> None:
    """What cannot be promised at Anthropic: two batches exist. The second is found out, and costs what it costs."""
    twin = stages.twin("anthropic")
    with stages.put_up("anthropic") as stage:
        # The zombie's batch would take a minute; cancelled, it ends at once, with rows that never ran.
        stage.connect(faults=f"{ROW_FAULTS['anthropic']}, late_seconds=60, late_match=nb_")
        zombie = stage.freeze("mid-create")
        stage.connect()
        assert stage.night()["state"] == "complete"
        before = stage.batches()
        zombie.wake()
        ended = zombie.end()

        batches = stage.batches()
        (late,) = [batch for batch in batches if batch not in before]
        (spent,) = stage.ask("select coalesce(sum(usd), 0) from nb_money where kind = 'actual'")[0]
        cell.record(
            expected=len(RECORDS),
            loaded=len(stage.rows()),
            batches=len(batches),
            billed=sum(batch["billed_rows"] for batch in batches),
        )
        assert "made too late" in ended.err
        assert stage.digest() == twin.digest
        assert len(batches) == twin.batches + 1
        assert (late["status"], late["rows_by_ending"].get("cancelled", 0) > 0) == ("ended", True)
        books = stage.night()
        assert (books["state"], books["doubles"]) == ("complete", 1)
        assert Decimal(books["cost_usd"]) == twin.cost
        assert spent == twin.cost + Decimal(books["doubles_usd"])
        assert stage.money()[0] == 0, "its reserve has returned"
        assert stage.ask(f"select state from nb_attempts where batch_id = '{late['id']}'") == [("ended",)]
        for channel, events in stage.told().items():
            assert set(events) == {*twin.events, f"{books['run']}:paid_twice:{late['id']}"}, channel
            assert max(events.values()) <= 2, channel


@pytest.mark.parametrize(
    ("vendor", "point"),
    [("openai", "before the create call"), ("openai", "mid-create"), ("anthropic", "before the create call")],
)
def test_frozen_at_a_create_call_beyond_all_limits_it_makes_nothing_when_it_wakes_up(
    stages: Stages, cell: Cell, vendor: str, point: str
) -> None:
    """At OpenAI its file was deleted meanwhile; at Anthropic it looks at the clock as long as it has more to send."""
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        zombie = stage.freeze(point)
        stage.night()
        zombie.wake()
        assert zombie.end().books

        check(stage, twin, stage.night(), cell)

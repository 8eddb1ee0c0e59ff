"""The world misbehaving, batch by batch: every answer that was paid is read, and only what has none is sent again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.faults.conftest import Cell
from tests.faults.world import PutUp, both_vendors, put_up

__all__ = ["put_up"]


# --- full queues ----------------------------------------------------------------------------------------------


@both_vendors
def test_a_queue_that_is_full_at_create_makes_the_shard_wait_and_uses_up_no_round(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "token_limit_at_create=2", job="rounds: 0") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


def test_a_queue_that_is_full_after_validation_makes_the_shard_wait_and_uses_up_no_round(
    cell: Cell, put_up: PutUp
) -> None:
    with put_up("openai", "token_limit_after_validation=2", job="rounds: 0") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=3)

        assert [batch["status"] for batch in desk.batches] == ["failed", "failed", "completed"]


# --- batches that do not end, or end otherwise ----------------------------------------------------------------


@both_vendors
def test_a_status_that_nobody_knows_counts_as_running_and_is_told_once(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "status_word=pondering, status_seconds=60", batch_seconds=2) as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert ending.said.count("'pondering'") == 1


@both_vendors
def test_answers_of_an_expired_batch_are_loaded_and_only_the_other_rows_are_sent_again(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "expired=0.5", rows=12, shard_rows=12) as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=2)

        assert 0 < ending.books["sent_again"]["expired"] < 12
        first, second = desk.batches
        assert first["billed_rows"] + second["billed_rows"] == 12


@both_vendors
def test_answers_of_a_batch_that_was_cancelled_in_the_console_are_loaded_and_the_rest_is_sent_again(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, rows=12, shard_rows=12, batch_seconds=8) as desk:
        command = desk.begin_run()
        desk.wait_until(lambda: desk.batches and desk.batches[0]["status"] == "in_progress", command)
        started = desk.batches[0]["created_at"]
        desk.wait_until(lambda: datetime.now(UTC).timestamp() > started + 3, command)
        desk.cancel(desk.batches[0]["id"])
        ending = desk.ended(command)
        desk.check_whole(cell, ending, batches=2)

        assert set(ending.books["sent_again"]) == {"cancelled"}


def test_a_batch_that_failed_as_a_whole_is_told_with_its_reason_and_sent_when_the_job_is_mended(
    cell: Cell, put_up: PutUp
) -> None:
    with put_up("openai", model="no-such-model") as desk:
        failed = desk.run()
        refused = desk.batches
        file = desk.folder / "world.yaml"
        file.write_text(file.read_text().replace("no-such-model", "gpt-5-mini"))
        desk.check_whole(cell, desk.run(), batches=2)

        assert (failed.code, failed.books["pending"]) == (1, {"request_refused": 4})
        assert "model_not_found" in failed.answer["message"]
        assert [batch["billed_rows"] for batch in refused] == [0]


# --- result files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", ["null", "empty"])
def test_a_batch_with_only_an_error_file_gives_a_dead_letter_for_every_row(
    cell: Cell, put_up: PutUp, blank: str
) -> None:
    with put_up("openai", f"permanent=1, blank_file_id={int(blank == 'empty')}") as desk:
        ending = desk.run()
        desk.record(cell, expected=0)

        assert (ending.code, ending.books["dead"]) == (0, {"invalid_request": 4})
        assert (cell.loaded, cell.batches, cell.billed) == (0, 1, 0)
        assert (desk.batches[0]["status"], ending.books["pending"]) == ("completed", {})


@pytest.mark.parametrize("more", ["", ", zero_byte_error_file=1, transient=0", ", errors_in_output=1"])
def test_both_files_of_a_batch_are_read_wherever_its_errors_stand(cell: Cell, put_up: PutUp, more: str) -> None:
    with put_up("openai", f"transient=0.5{more}", rows=12, shard_rows=12) as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1 if "transient=0," in f"{more}," else 2)


@both_vendors
def test_answers_that_an_ended_batch_does_not_show_yet_are_waited_for_and_not_bought_again(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "hidden_results_seconds=2") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert ending.books["sent_again"] == {}


@both_vendors
def test_a_row_that_comes_twice_and_rows_that_nobody_sent_are_counted_and_change_no_answer(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "duplicate=1, unknown=1") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert ending.books["odd"] == {"repeated rows": 4, "unknown custom_ids": 4}


@both_vendors
def test_rows_that_are_in_no_file_are_sent_again_and_counted_as_missing(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "missing=0.5", rows=12, shard_rows=12) as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=2)

        assert set(ending.books["sent_again"]) == {"missing"}


@both_vendors
def test_rows_in_another_order_find_their_records_and_counters_that_lie_hide_no_failed_row(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "shuffle=1, counters_lie=1, transient=0.5", rows=12, shard_rows=12) as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=2)

        assert set(ending.books["sent_again"]) == {"transient_error"}

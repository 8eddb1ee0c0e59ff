"""The world misbehaving, account by account: sending stops, no row is lost, one message says why, and it goes on."""

from __future__ import annotations

import pytest

from nightbatch.demo.services.slack import SlackSink
from tests.faults.conftest import Cell
from tests.faults.world import KEY, OTHER_KEY, ROTATED_KEY, Ending, PutUp, World, both_vendors, put_up

__all__ = ["put_up"]

TOLD = "notify: {slack_connection: slack, on: [failed]}"


def told(desk: World, slack: SlackSink, ending: Ending, *words: str) -> None:
    """Exactly one message reached people, and it and the command say why; and one that it is over."""
    message, over = slack.messages()
    assert str(over.payload["text"]).startswith("It is over")
    said = str(message.payload)
    for word in words:
        assert word in ending.answer["message"], ending
        assert word in said, said
    assert KEY not in said + ending.answer["message"] + ending.said


@both_vendors
def test_no_credit_at_create_stops_sending_after_the_first_shard_and_goes_on_when_run_again(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str
) -> None:
    faults = "credit_error_requests=1000, on=create_batch"
    with put_up(vendor, faults, rows=8, shard_rows=2, job=TOLD) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        stopped = desk.run()
        asked = desk.requests["create_batch"]
        desk.faults()
        desk.check_whole(cell, desk.run(), batches=4)

        assert (stopped.code, stopped.books["pending"], stopped.books["state"]) == (
            1,
            {"account_trouble": 8},
            "incomplete",
        )
        assert asked == 1
        told(desk, slack_sink, stopped, "cannot be used", "insufficient_quota" if vendor == "openai" else "credit")


@both_vendors
def test_no_credit_in_the_rows_of_a_batch_stops_the_shards_behind_it_and_goes_on_when_run_again(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str
) -> None:
    with put_up(vendor, "credit_error=1", rows=6, shard_rows=2, job=TOLD, batch_seconds=0.1) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        stopped = desk.run()
        before = desk.batches
        desk.faults()
        again = desk.run()
        desk.check_whole(cell, again, batches=len(before) + 3)

        assert (stopped.code, stopped.books["pending"]) == (1, {"account_trouble": 6})
        assert sum(batch["billed_rows"] for batch in before) == 0
        told(desk, slack_sink, stopped, "cannot be used")


@both_vendors
@pytest.mark.parametrize("when", ["retrieve_batch", "download"])
def test_a_key_revoked_while_a_batch_is_under_way_loses_nothing_and_one_more_run_ends_the_night(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str, when: str
) -> None:
    with put_up(vendor, f"http_401=1000, on={when}", job=TOLD) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        stopped = desk.run()
        before = len(desk.batches)
        desk.faults()
        desk.check_whole(cell, desk.run(), batches=1)

        assert (stopped.code, stopped.books["state"], stopped.books["in_flight"]) == (1, "open", 4)
        assert before == 1
        told(desk, slack_sink, stopped, "the key was refused")


@both_vendors
def test_a_key_revoked_between_two_shards_keeps_what_is_not_sent_and_one_more_run_ends_the_night(
    cell: Cell, put_up: PutUp, slack_sink: SlackSink, vendor: str
) -> None:
    with put_up(vendor, rows=6, shard_rows=2, job=TOLD, batch_seconds=3) as desk:
        desk.environ["AIRFLOW_CONN_SLACK"] = slack_sink.airflow_connection()
        command = desk.begin_run()
        desk.wait_until(lambda: desk.batches, command)
        desk.faults("http_401=100000")
        stopped = desk.ended(command)
        desk.faults()
        desk.check_whole(cell, desk.run(), batches=3)

        assert stopped.code == 1
        told(desk, slack_sink, stopped, "the key was refused")


@both_vendors
def test_a_new_key_of_the_same_account_just_goes_on(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, batch_seconds=2) as desk:
        command = desk.begin_run()
        desk.wait_until(lambda: desk.ask_ledger("select 1 from nb_attempts where state = 'open'"), command)
        command.kill()
        desk.use_key(ROTATED_KEY)
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_a_lost_create_is_not_declared_absent_by_another_accounts_listing(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    faults = "create_timeout_after_success=1, hang_seconds=30"
    with put_up(vendor, faults, batch_seconds=0.5) as desk:
        command = desk.begin_run()
        desk.wait_until(lambda: desk.batches, command)
        command.kill()
        desk.use_key(OTHER_KEY)
        stopped = desk.run()
        before = len(desk.batches)
        desk.use_key(KEY)
        desk.check_whole(cell, desk.run(), batches=1)

        assert (stopped.code, before) == (1, 1)
        assert "org-other" in stopped.answer["message"]


@both_vendors
def test_a_key_of_another_account_finds_no_batch_and_pays_for_none_and_the_right_key_ends_the_night(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    """There the batch is not found however often one looks: that says nothing about where it was made."""
    with put_up(vendor, batch_seconds=2) as desk:
        command = desk.begin_run()
        desk.wait_until(lambda: desk.ask_ledger("select 1 from nb_attempts where state = 'open'"), command)
        command.kill()
        desk.use_key(OTHER_KEY)
        stopped = [desk.run() for _ in range(2)]
        before = len(desk.batches)
        desk.use_key(KEY)
        desk.check_whole(cell, desk.run(), batches=1)

        assert ([ending.code for ending in stopped], before) == ([1, 1], 1)
        assert all("org-other" in ending.answer["message"] for ending in stopped)

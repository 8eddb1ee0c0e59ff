"""The world misbehaving, request by request: what cannot be read is asked again, and nothing is paid twice."""

from __future__ import annotations

import time

import pytest

from tests.faults.conftest import Cell
from tests.faults.world import PutUp, both_vendors, put_up

__all__ = ["put_up"]


@both_vendors
def test_a_429_without_retry_after_delays_the_night_and_loses_no_row(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "http_429=5") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_a_429_with_retry_after_is_waited_for_as_long_as_the_vendor_asks(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "http_429=1, http_429_retry_after=4, on=create_batch") as desk:
        command = desk.begin_run()
        desk.wait_until(lambda: desk.requests.get("create_batch", 0) >= 1, command)
        began = time.monotonic()
        desk.wait_until(lambda: desk.requests["create_batch"] >= 2, command)
        waited_s = time.monotonic() - began
        desk.check_whole(cell, desk.ended(command), batches=1)

        assert waited_s > 2, "without Retry-After it asks again after a fifth of a second"


@both_vendors
def test_a_storm_of_5xx_delays_the_night_and_pays_nothing_twice(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "http_5xx_share=0.4") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_a_vendor_that_hangs_is_given_up_after_the_timeout_and_asked_again(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    faults = "hang=3, hang_seconds=4, on=upload_file+create_batch+retrieve_batch+download"
    with put_up(vendor, faults) as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_connections_that_are_reset_delay_the_night_and_pay_nothing_twice(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "reset=3, on=upload_file+create_batch+retrieve_batch+download") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_bodies_that_drip_arrive_whole(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "slow_drip=1000, drip_bytes=200, drip_seconds=0.02") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_a_download_that_breaks_off_is_done_again_and_no_row_counts_as_missing(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "truncated_download=2") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert ending.books["sent_again"] == {}


@both_vendors
def test_a_download_that_came_garbled_is_done_again_and_no_row_counts_as_missing(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "garbled_download=1") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert (ending.books["sent_again"], ending.books["odd"]) == ({}, {})


@both_vendors
def test_a_garbled_reply_to_create_is_a_batch_that_is_found_and_not_made_again(
    cell: Cell, put_up: PutUp, vendor: str
) -> None:
    with put_up(vendor, "garbled=1, on=create_batch") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_garbled_looks_and_listings_are_made_again_and_prove_nothing(cell: Cell, put_up: PutUp, vendor: str) -> None:
    faults = "create_reset_after_success=1, garbled=4, on=create_batch+list_batches+retrieve_batch"
    with put_up(vendor, faults) as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
@pytest.mark.parametrize("where", ["create_batch", "list_batches+retrieve_batch", "download"])
def test_a_proxys_login_page_is_taken_for_no_account_no_batch_and_no_answers(
    cell: Cell, put_up: PutUp, vendor: str, where: str
) -> None:
    with put_up(vendor, f"login_page=3, on={where}") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert (ending.books["sent_again"], ending.books["odd"]) == ({}, {})


@both_vendors
def test_a_404_on_a_fresh_id_is_waited_out(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "not_found_seconds=2") as desk:
        desk.check_whole(cell, desk.run(), batches=1)


@both_vendors
def test_a_404_on_an_ended_batch_and_on_its_answers_is_waited_out(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "http_404=4, on=retrieve_batch+download") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

        assert ending.books["sent_again"] == {}

"""The world misbehaving, request by request: what cannot be read is asked again, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Cell
from tests.faults.world import VENDORS, World, world
from tests.servers import PostgresForTests

PutUp = Callable[..., AbstractContextManager[World]]

both_vendors = pytest.mark.parametrize("vendor", VENDORS)


@pytest.fixture
def put_up(postgres_server: PostgresForTests, tmp_path: Path) -> PutUp:
    """Put up a world of this test's own."""

    def put(vendor: str, faults: str = "", **more: Any) -> AbstractContextManager[World]:
        return world(tmp_path, postgres_server.new_database(), vendor, faults, **more)

    return put


@both_vendors
def test_a_429_without_retry_after_delays_the_night_and_loses_no_row(cell: Cell, put_up: PutUp, vendor: str) -> None:
    with put_up(vendor, "http_429=4") as desk:
        ending = desk.run()
        desk.check_whole(cell, ending, batches=1)

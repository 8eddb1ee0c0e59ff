"""Killed with SIGKILL at every named point and run again: the same rows, one batch a shard, each row billed once."""

from __future__ import annotations

import pytest

from tests.faults.cell import Cell
from tests.faults.stage import Stages, check
from tests.faults.victim import POINTS

VENDORS = ("openai", "anthropic")
WITH_FILES = {
    "mid-upload",
    "upload reply in flight",
    "before the commit of note_file",
    "after the commit of note_file",
}
"""Points that Anthropic has not: it takes requests in the create call itself."""
FORGOTTEN = {"upload reply in flight", "before the commit of note_file"}
"""Where a request file was uploaded and nobody knows its id; the vendor deletes it after 30 days, and no batch is."""
CELLS = [(point, vendor) for point in POINTS for vendor in VENDORS if vendor == "openai" or point not in WITH_FILES]


@pytest.mark.parametrize(("point", "vendor"), CELLS)
def test_killed(stages: Stages, cell: Cell, point: str, vendor: str) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        stage.die(point)

        check(stage, twin, stage.night(), cell, forgotten=point in FORGOTTEN)


ONLY_IN_ROUND_0 = {
    "before pull",
    "before render",
    "before pack",
    "before the commit of open_run",
    "after the commit of open_run",
    # No row of round 1 is bad here, so that nothing is packed or buried after it.
    "mid-Parquet of a plan",
    "mid-Parquet of dead letters",
}
LATER = [point for point in POINTS if point not in ONLY_IN_ROUND_0]
"""What happens in a retry round too. Pairwise: each point, and each vendor, but not each with each."""


@pytest.mark.parametrize("number", range(len(LATER)), ids=lambda number: LATER[number])
def test_killed_in_round_1(stages: Stages, cell: Cell, number: int) -> None:
    point = LATER[number]
    vendor = "openai" if point in WITH_FILES else VENDORS[number % 2]
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        stage.die(f"{point} in round 1")

        check(stage, twin, stage.night(), cell, forgotten=point in FORGOTTEN)


TWICE = [
    ("create reply in flight", "id in the store, not in the ledger"),
    ("after the commit of note_sending", "create reply in flight"),
    ("after the commit of begin", "after the commit of begin"),
    ("mid-download", "mid-download"),
    ("mid-Parquet of verdicts", "mid-COPY"),
    ("between merge and commit", "between merge and commit"),
    ("before the commit of seal in round 1", "before the commit of seal in round 1"),
    ("between burying and commit", "after the commit of settle"),
    ("before the commit of settle", "mail sent, not noted"),
]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("points", TWICE, ids=" and ".join)
def test_killed_twice_in_a_row(stages: Stages, cell: Cell, points: tuple[str, str], vendor: str) -> None:
    twin = stages.twin(vendor)
    with stages.put_up(vendor) as stage:
        for point in points:
            stage.die(point)

        check(stage, twin, stage.night(), cell)

"""Marks everything here `faults`, and ends the session with a table: what each cell sent, loaded, and paid."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.faults.cell import Cell
from tests.faults.stage import Stages, Vendor
from tests.servers import mail_sink, postgres_server, s3_server, slack_sink

__all__ = ["mail_sink", "postgres_server", "s3_server", "slack_sink"]

HERE = Path(__file__).parent
ONE_STAND = "test_airflow_cells.py"
LONGEST_S = 1_200
HAS_FAILED = pytest.StashKey[bool]()
COLUMNS = ("cell", "expected", "loaded", "batches", "billed", "seconds", "result")


class ByStand(LoadScopeScheduling):
    """Hands out cells one by one, but for those that share a running Airflow: they go to one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file if file.endswith(ONE_STAND) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByStand | None:
    """Take the place of `--dist loadscope`, by which one process would have all crashes."""
    return ByStand(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Iterator[Cell]:
    """Give the row of the table that this test fills in; its name is the test's, unless the test gives another."""
    row = Cell(_words(request.node.nodeid))
    yield row
    # Reports carry this from the processes of xdist to the one that prints.
    request.node.user_properties.append(("cell", asdict(row)))
    # A test that failed has said what is wrong.
    assert row.is_recorded or HAS_FAILED in request.node.stash, (
        "this cell recorded nothing, so its row of the table says nothing"
    )


@pytest.fixture(scope="session")
def vendor_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """The vendors, in a process of their own that is never killed."""
    server = Vendor(tmp_path_factory.mktemp("vendor"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stages(
    tmp_path_factory: pytest.TempPathFactory, vendor_server: Vendor, postgres_server: Any, s3_server: Any
) -> Stages:
    """Puts up a cell's own job, databases, bucket and workspace."""
    return Stages(tmp_path_factory.mktemp("stages"), vendor_server, postgres_server, s3_server)


def _words(nodeid: str) -> str:
    """Turn `tests/faults/test_a.py::test_this_and_that[openai-x]@group` into `this and that [openai-x]`."""
    name, _, parameters = nodeid.split("::")[-1].partition("[")
    words = name.removeprefix("test_").replace("_", " ")
    return f"{words} [{parameters.split(']')[0]}]" if parameters else words.split("@")[0]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and give it the time of a busy machine: the first ones start servers too."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LONGEST_S))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let no cell be skipped: what was not tried has not passed."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"no cell may be skipped: {report.longrepr}"
    if report.failed:
        item.stash[HAS_FAILED] = True
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    rows = [_row(reports) for reports in _reports(terminalreporter.stats)]
    if not rows:
        return
    terminalreporter.section("cells")
    for line in table(rows):
        terminalreporter.write_line(line)


def _reports(stats: dict[str, list[Any]]) -> list[list[pytest.TestReport]]:
    """Give what was reported of each test of this folder: of its set-up, call and teardown."""
    found: dict[str, list[pytest.TestReport]] = {}
    for reports in stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and "faults/" in report.nodeid:
                found.setdefault(report.nodeid, []).append(report)
    return [reports for _, reports in sorted(found.items())]


def _row(reports: list[pytest.TestReport]) -> tuple[str, ...]:
    """Give a test's row: all its phases took part in its time, and it is ok if it ended and none of them failed."""
    ended = [report for report in reports if report.when == "teardown"]
    cell = dict(ended[-1].user_properties).get("cell") if ended else None
    figures: Any = cell if isinstance(cell, dict) else {"name": _words(reports[0].nodeid)}
    counts = ["–" if figures.get(name) is None else f"{figures[name]:,}" for name in COLUMNS[1:5]]
    seconds = sum({report.when: report.duration for report in reports}.values())
    result = "FAILED" if any(report.failed for report in reports) else "ok" if ended else "not run to its end"
    return (figures["name"], *counts, f"{seconds:.1f}", result)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lay rows out under the names of their columns; figures stand to the right."""
    widths = [max(len(row[at]) for row in [COLUMNS, *rows]) for at in range(len(COLUMNS))]
    sides = "<>>>>><"
    lines = [
        "  ".join(f"{text:{side}{width}}" for text, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in [COLUMNS, *rows]
    ]
    good = sum(row[-1] == "ok" for row in rows)
    return [*lines, f"{good:,} of {len(rows):,} cells ok"]

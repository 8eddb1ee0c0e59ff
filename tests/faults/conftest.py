"""Marks everything here `faults`, and ends the session with a table: what each cell sent, loaded, and paid."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults.cell import Cell
from tests.faults.stage import Stages, Vendor
from tests.servers import mail_sink, postgres_server, s3_server, slack_sink

__all__ = ["mail_sink", "postgres_server", "s3_server", "slack_sink"]

HERE = Path(__file__).parent
LONGEST_S = 1_200
HAS_FAILED = pytest.StashKey[bool]()
COLUMNS = ("cell", "expected", "loaded", "batches", "billed", "seconds", "result")


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
    rows = [row for row in map(_row, _reports(terminalreporter.stats)) if row]
    if not rows:
        return
    terminalreporter.section("cells")
    for line in table(rows):
        terminalreporter.write_line(line)


def _reports(stats: dict[str, list[Any]]) -> list[pytest.TestReport]:
    """Give the last word on each test of this folder: its teardown, or where it failed before that."""
    found: dict[str, list[pytest.TestReport]] = {}
    for reports in stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and "faults/" in report.nodeid:
                found.setdefault(report.nodeid, []).append(report)
    return [_merged(reports) for _, reports in sorted(found.items())]


def _merged(reports: list[pytest.TestReport]) -> pytest.TestReport:
    """Put the phases of a test into one report: failed if one is, as long as all, with the figures of the last."""
    last = max(reports, key=lambda report: ("setup", "call", "teardown").index(report.when or "setup"))
    last.duration = sum(report.duration for report in reports)
    if any(report.failed for report in reports):
        last.outcome = "failed"
    return last


def _row(report: pytest.TestReport) -> tuple[str, ...]:
    row = dict(report.user_properties).get("cell")
    figures: Any = row if isinstance(row, dict) else {"name": _words(report.nodeid)}
    counts = ["–" if figures.get(name) is None else f"{figures[name]:,}" for name in COLUMNS[1:5]]
    return (figures["name"], *counts, f"{report.duration:.1f}", "ok" if report.passed else "FAILED")


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

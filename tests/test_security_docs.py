"""docs/security.md names a test for each threat, and the tests are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_threat_names_a_test() -> None:
    section = PAGE.split("## Threats", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][2:]

    assert len(rows) > 20
    assert [row for row in rows if not NAMED.search(row.rsplit("|", 2)[1])] == []


def test_every_test_that_is_named_is_there() -> None:
    named = NAMED.findall(PAGE)
    found = {(file, name) for file, name in named if f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")}

    assert set(named) - found == set()
    assert len(re.findall(r"`tests/[^`]*`", PAGE)) == len(named)

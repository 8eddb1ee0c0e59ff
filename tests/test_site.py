"""The site of the pages builds without a warning, has every page, and asks nothing of the network."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = runpy.run_path(str(ROOT / "docs" / "site.py"))


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere() -> None:
    assert SITE["main"]() == 0

    built = ROOT / ".site" / "html"
    texts = {file.relative_to(built).as_posix(): file.read_text("utf-8") for file in built.rglob("*.html")}
    loads = {
        address
        for text in texts.values()
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text)
        for address in re.findall(r"(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)", tag)
    }
    assert loads == set()
    assert {"index.html", "docs/index.html", "docs/runbook.html", "docs/adr/0001-custom-ids.html"} <= set(texts)


def test_every_page_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"(\S+\.md)$", menu, re.MULTILINE)

    assert sorted(named) == sorted(page.as_posix() for page in SITE["pages"]())

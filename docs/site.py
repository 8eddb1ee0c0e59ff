"""
Builds the site of these pages into `.site/html`: `make docs`.

Pages link to each other, to code and to pictures by relative paths, as GitHub reads them. So that the same links work
in the site, the pages are built from a copy in which every file has the place that it has here. A file that is no page
and no picture is shown as a page of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
PICTURES = {".png", ".svg"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def pages() -> list[Path]:
    """Name every page, relative to the project."""
    return [Path(name) for name in PAGES] + sorted(it.relative_to(ROOT) for it in (ROOT / "docs").rglob("*.md"))


def copy_pages(to: Path) -> None:
    """Write the copy that the site is built from."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(ROOT / "docs" / "assets", to / "docs" / "assets")
    for page in pages():
        _write(to / page, LINK.sub(lambda link, page=page: _shown(link[1], page, to), (ROOT / page).read_text("utf-8")))


def _shown(link: str, page: Path, to: Path) -> str:
    """Bring what a link leads to into the copy, and give the link to it."""
    target = Path(os.path.normpath(page.parent / link))
    if "://" in link or target.suffix == ".md" or not (ROOT / target).is_file():
        return link
    if target.suffix in PICTURES:
        (to / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / target, to / target)
        return link
    shown = target.with_name(f"{target.name.lstrip('.')}.md")
    fence = f"````{LANGUAGES.get(target.suffix, 'text')}"
    _write(to / shown, f"# {target.name}\n\n`{target}`\n\n{fence}\n{(ROOT / target).read_text('utf-8')}\n````\n")
    return os.path.relpath(shown, page.parent)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def main() -> int:
    """Build the site; a warning is an error."""
    copy_pages(ROOT / ".site" / "pages")
    command = [Path(sys.executable).with_name("zensical"), "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 - a fixed command


if __name__ == "__main__":
    sys.exit(main())

"""A person at a browser: signs in to Airflow, opens pages, fills forms and takes pictures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

PROJECT = Path(__file__).parents[2]
PICTURES = PROJECT / ".ui"
"""Where all pictures go; `README=1 make test-ui` puts those of the README into its folder too."""
README_PICTURES = PROJECT / "docs/assets"
SCREEN = {"width": 1440, "height": 900}
SLOW_MS = 30_000
"""How long a page may take on a busy machine."""


class Person:
    """Somebody who has signed in."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def opens(self, path: str) -> None:
        """Go to a page of the UI."""
        self.page.goto(path)

    def presses(self, button: str) -> None:
        """Press a button by the words on it."""
        self.page.get_by_role("button", name=button, exact=True).first.click()

    def form(self) -> Locator:
        """Give the dialog that is open."""
        return self.page.get_by_role("dialog").first

    def chooses(self, field: Locator, moment: datetime) -> None:
        """Fill a field of date and time, by typing into what opens below it."""
        field.click()
        popover = self.page.locator("[role=dialog]").last
        popover.get_by_placeholder("YYYY/MM/DD").fill(f"{moment:%Y/%m/%d}")
        popover.get_by_placeholder("HH:mm").fill(f"{moment:%H:%M}")
        popover.get_by_placeholder("HH:mm").press("Enter")
        self.page.keyboard.press("Escape")

    def sees(self, text: str | re.Pattern[str]) -> Locator:
        """Wait until a text stands on the screen, without scrolling; give where."""
        found = self.page.get_by_text(text).first
        expect(found).to_be_in_viewport(timeout=SLOW_MS)
        return found

    def takes_picture(self, name: str, *, for_readme: bool = False, down_to: float = SCREEN["height"]) -> None:
        """Keep what the screen shows, for people to look at; the README's down to a height in pixels."""
        PICTURES.mkdir(exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")
        if for_readme and os.environ.get("README"):
            file = README_PICTURES / f"airflow-{name}.png"
            self.page.screenshot(path=file, clip={"x": 0, "y": 0, "width": SCREEN["width"], "height": down_to})
            if pngquant := shutil.which("pngquant"):
                subprocess.run([pngquant, "--force", "--output", file, file], check=True)


@contextmanager
def signed_in(address: str, *, user: str, password: str) -> Iterator[Person]:
    """Open Debian's Chromium at Airflow's first page, and sign in."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    assert chromium, "there is no Chromium on PATH: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root, as in a container, has no sandbox of Chromium's; all pages are our own, on loopback.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(base_url=address, viewport=SCREEN, timezone_id="UTC")
        context.set_default_timeout(SLOW_MS)
        page = context.new_page()
        page.goto("/")
        page.fill("input[name=username]", user)
        page.fill("input[name=password]", password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "login" not in url)
        yield Person(page)
        browser.close()

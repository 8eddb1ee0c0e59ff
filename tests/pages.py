"""
Runs the fenced blocks of a page in order, as a reader would type them, and compares what they print with the page.

- A block with a title is a file: it is written.
- A block of `bash` is typed. Lines that begin with `nightbatch` run in this process, which saves a second each; all
  others go to bash. The block must end with 0, or with what `<!-- exits with N -->` before it says.
- A block of `text` is what the block before it printed, or a part of it: spaces, line breaks and the lines of boxes
  do not count, and `…` stands for anything.
- A block after `<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from nightbatch.cli import app

FENCE = re.compile(r"(?:^<!-- (?P<note>.+?) -->\n)?^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
BOXES = re.compile(r"[─-╿]")  # the Unicode block of box drawing


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    text: str
    note: str

    @property
    def title(self) -> str:
        """Give the name of the file that it is; empty for what is no file."""
        found = re.search(r'title="(.+?)"', self.kind)
        return found[1] if found else ""

    @property
    def is_left_out(self) -> bool:
        """Say whether the page says why it is not run."""
        return self.note.startswith("not run: ")

    @property
    def exit_code(self) -> int:
        """Give what it must end with."""
        found = re.fullmatch(r"exits with (\d+)", self.note)
        return int(found[1]) if found else 0


def blocks_of(page: Path) -> Iterator[Block]:
    """Give the blocks of a page in order."""
    text = re.sub(r"^ +(?=```)", "", page.read_text("utf-8"), flags=re.MULTILINE)
    for found in FENCE.finditer(text):
        yield Block(found["kind"].strip(), found["text"], (found["note"] or "").strip())


class Reader:
    """Somebody who types what a page says, in the current folder."""

    def __init__(self, instead: Mapping[str, str]) -> None:
        """`instead` replaces what is another in a test, like the address of the vendor."""
        self._instead = instead
        self._printed = ""

    def read(self, block: Block) -> None:
        """Do what a block says. Raises AssertionError where the page is wrong."""
        if block.is_left_out:
            return
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.kind == "bash":
            self._type(block)
        elif block.kind == "text":
            self._compare(block.text)

    def _type(self, block: Block) -> None:
        self._printed, code = "", 0
        for line in block.text.splitlines():
            for here, there in self._instead.items():
                line = line.replace(here, there)  # noqa: PLW2901 - the line as it is in a test
            if line.strip():
                assert code == 0, f"{block.text}\nwent wrong before its last line:\n{self._printed}"
                code = self._do(line)
        assert code == block.exit_code, f"{block.text}\nended with {code}:\n{self._printed}"

    def _do(self, line: str) -> int:
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            os.environ.update(word.split("=", 1) for word in words[1:])
            return 0
        if words[0] == "nightbatch":
            result = CliRunner().invoke(app, words[1:])
            self._printed += result.output
            return result.exit_code
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
        self._printed += done.stdout + done.stderr
        return done.returncode

    def _compare(self, expected: str) -> None:
        at, printed = 0, _plain(self._printed)
        for line in expected.splitlines():
            wanted = re.compile(".*?".join(re.escape(part.strip()) for part in _plain(line).split("…")))
            found = wanted.search(printed, at)
            assert found, f"{line!r} is not printed, or not in this order:\n{self._printed}"
            at = found.end()


def _plain(text: str) -> str:
    return " ".join(BOXES.sub(" ", text).split())

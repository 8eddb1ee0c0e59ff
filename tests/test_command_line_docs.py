"""docs/command-line.md is what the program says of itself. `python tests/test_command_line_docs.py` writes it."""

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from nightbatch.cli import app
from nightbatch.emulator.command import app as emulator

PAGE = Path(__file__).parent.parent / "docs" / "command-line.md"
INTRO = """\
A job is named by its file, or by its name in `include/jobs`; a run by its own name, or by its job's for the latest.
Exit codes: 0 done, 1 failed or incomplete, 2 the configuration, the source or the sink is wrong, 3 a window has no run
(where `--exit-code` asks for it), 70 a bug, 75 try again later, 130 stopped by Ctrl-C. Each error's name leads to its
entry in the [runbook](runbook.md); variables of the environment are explained in [.env.example](../.env.example).

This page is written from the program by `python tests/test_command_line_docs.py`, and a test holds it to the code.
"""


def written() -> str:
    """Write the page: typer's own pages of both programs, one after the other, with a table of the commands on top."""
    command = typer.main.get_command(app)
    rows = [
        f"| [`{name}`](#nightbatch-{name}) | {(one.help or '').splitlines()[0]} |"
        for name, one in command.commands.items()  # type: ignore[attr-defined]  # a group has commands
    ]
    table = "\n".join(["| command | what it does |", "| --- | --- |", *rows])
    sections = [*_sections(app, "nightbatch"), *_sections(emulator, "nightbatch emulator")]
    return "\n\n".join(["# The command line", INTRO.strip(), table, *sections]) + "\n"


def _sections(program: typer.Typer, name: str) -> list[str]:
    command = typer.main.get_command(program)
    context = command.context_class(command, info_name=name)
    text = get_docs_for_click(obj=command, ctx=context, name=name)
    return [section.strip() for section in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]]


def test_the_page_of_the_command_line_is_what_the_program_says() -> None:
    """Wrong? `python tests/test_command_line_docs.py` mends it."""
    assert PAGE.read_text(encoding="utf-8") == written()


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")

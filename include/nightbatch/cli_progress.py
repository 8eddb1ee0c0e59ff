"""What the command line shows while it works, all on stderr: log lines, a bar a phase, plain lines for a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from nightbatch.logs import ids_text

if TYPE_CHECKING:
    from nightbatch.flow import Progress as FlowProgress

T = TypeVar("T")


class _ToStderr(logging.Handler):
    """Writes to what stderr is now, since a progress bar stands in for it while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        is_ours = record.name.startswith("nightbatch")
        ids = "" if is_ours else ids_text()
        sys.stderr.write(
            f"{datetime.fromtimestamp(record.created, UTC):%H:%M:%S} {record.levelname} {record.getMessage()}{ids}\n"
        )


def log_lines(*, verbose: bool = False) -> None:
    """Show warnings on stderr, and with `verbose` what each step does."""
    handler = _ToStderr()
    root, ours = logging.getLogger(), logging.getLogger("nightbatch")
    root.handlers = [other for other in root.handlers if not isinstance(other, _ToStderr)] + [handler]
    ours.setLevel(logging.INFO if verbose else logging.WARNING)


@contextmanager
def spinner(text: str, *, quiet: bool) -> Iterator[None]:
    """Show that something takes a while."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(text):
        yield


def each(items: Iterable[T], text: str, *, quiet: bool) -> Iterator[T]:
    """Show that the next of these items takes a while, until it is there."""
    iterator = iter(items)
    while True:
        with spinner(text, quiet=quiet):
            item = next(iterator, None)
        if item is None:
            return
        yield item


@contextmanager
def bars(*, quiet: bool) -> Iterator[Callable[[FlowProgress], None]]:
    """Show a bar a phase on stderr; plain lines where it is no terminal."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bars() as watch:
            yield watch
    else:
        yield _plain_lines()


def _plain_lines() -> Callable[[FlowProgress], None]:
    last = ""

    def watch(step: FlowProgress) -> None:
        nonlocal last
        line = f"{step.phase}: {', '.join(filter(None, (_done(step), step.note)))}"
        if line != last:
            sys.stderr.write(line + "\n")
            last = line

    return watch


def _done(step: FlowProgress) -> str:
    if step.total is not None:
        return f"{step.done:,}/{step.total:,} shards"
    return f"{step.done:,} records" if step.phase == "prepare" else ""


@contextmanager
def _bars() -> Iterator[Callable[[FlowProgress], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[done]}"),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[note]}",
            style="dim",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
    )
    tasks: dict[str, Any] = {}
    said: set[str] = set()
    with Progress(*columns, console=Console(stderr=True), expand=True) as shown:

        def watch(step: FlowProgress) -> None:
            if step.phase not in tasks:
                for task in shown.tasks:
                    # What ran without a known end has ended when the next thing begins.
                    shown.update(task.id, total=task.completed if task.total is None else task.total)
                tasks[step.phase] = shown.add_task(step.phase, total=step.total, done="", note="")
            is_over = step.total is not None and step.done >= step.total
            note = "" if is_over else step.note
            if step.phase == "waits" and note not in said:
                # For whom it waits is a whole sentence, and would be cut beside a bar.
                said.add(note)
                shown.console.print(note, markup=False, highlight=False)
            note = "" if step.phase == "waits" else note
            shown.update(tasks[step.phase], completed=step.done, done=_done(step), note=note)

        yield watch

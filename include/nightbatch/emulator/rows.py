"""Executes a batch: reads its requests one by one from disk, and writes its results to disk as it goes."""

from __future__ import annotations

import itertools
import random
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from nightbatch.emulator.answers import ANSWERED, PROBLEMS, Answer, Answerer, Kind, Problem
from nightbatch.emulator.asks import Ask, BadRequest
from nightbatch.emulator.store import Batch, Usage


class Stopped(Exception):
    """The emulator is shutting down."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch; `ask` is None when its body cannot be read, and `problem` says why."""

    index: int
    custom_id: str
    ask: Ask | None
    problem: Problem | None = None


class Dialect(Protocol):
    """How one vendor writes rows."""

    def read(self, line: bytes) -> tuple[str, Callable[[], Ask]]:
        """Return a line's custom_id, and a function that reads its body or raises BadRequest."""

    def problem(self, error: BadRequest) -> Problem:
        """Word why a body cannot be read."""

    def write(self, row: Row, answer: Answer) -> tuple[str, bytes]:
        """Return which file a result belongs to, and its line without the line end."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a batch stopped early: rows from `rows` on were not executed, because of `kind`."""

    rows: int
    kind: Kind


@dataclass(slots=True)
class Results:
    """What an execution left: its files that have any line, rows by how they ended, and tokens."""

    files: dict[str, Path] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)


@dataclass(slots=True)
class Execution:
    """One batch being executed. Memory does not grow with the batch, except 8 bytes a row to shuffle it.

    Attributes:
        paths: Where to write each of the vendor's result files, by name.
        stop: Set when the emulator shuts down.
        concurrency: Rows answered at the same time; 1 for executors that compute.
    """

    batch: Batch
    answerer: Answerer
    dialect: Dialect
    paths: dict[str, Path]
    stop: threading.Event
    cut: Cut | None = None
    concurrency: int = 1

    def run(self) -> Results:
        """Execute all rows. Blocking: for a thread."""
        results = Results()
        with ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}
            for row, answer in self._answered(stack):
                self._tally(answer, results)
                for name, line in self._lines(row, answer):
                    if name not in files:
                        files[name] = stack.enter_context(self.paths[name].open("wb"))
                        results.files[name] = self.paths[name]
                    files[name].write(line + b"\n")
        return results

    def _answered(self, stack: ExitStack) -> Iterator[tuple[Row, Answer]]:
        rows = self._rows(stack)
        if self.concurrency == 1:
            yield from ((row, self._answer(row)) for row in rows)
            return
        pool = stack.enter_context(ThreadPoolExecutor(self.concurrency))
        while chunk := list(itertools.islice(rows, self.concurrency * 8)):
            yield from zip(chunk, pool.map(self._answer, chunk), strict=True)

    def _rows(self, stack: ExitStack) -> Iterator[Row]:
        source = stack.enter_context(self.batch.input_path.open("rb"))
        order = _shuffled(source, self.answerer.seed) if self.batch.faults.shuffle else enumerate(source)
        for index, line in order:
            if self.stop.is_set():
                raise Stopped
            if not line.isspace():
                yield self._row(index, line)

    def _row(self, index: int, line: bytes) -> Row:
        custom_id, read = self.dialect.read(line)
        try:
            return Row(index, custom_id, read())
        except BadRequest as error:
            return Row(index, custom_id, None, self.dialect.problem(error))

    def _answer(self, row: Row) -> Answer:
        if self.cut and row.index >= self.cut.rows:
            return Answer(self.cut.kind, problem=PROBLEMS[self.batch.vendor][self.cut.kind])
        if row.ask is None:
            return Answer(Kind.INVALID, problem=row.problem)
        return self.answerer.answer(row.ask)

    def _lines(self, row: Row, answer: Answer) -> Iterable[tuple[str, bytes]]:
        if answer.kind is Kind.MISSING:
            return
        yield self.dialect.write(row, answer)
        if row.ask and self.answerer.hits(row.ask, "duplicate"):
            yield self.dialect.write(row, answer)
        if row.ask and self.answerer.hits(row.ask, "unknown"):
            yield self.dialect.write(Row(row.index, f"unknown-{row.index}", row.ask), answer)

    def _tally(self, answer: Answer, results: Results) -> None:
        results.counts[answer.kind] += 1
        if answer.kind in ANSWERED:
            results.usage.input_tokens += answer.input_tokens
            results.usage.cached_tokens += answer.cached_tokens
            results.usage.output_tokens += answer.output_tokens


def _shuffled(source: IO[bytes], seed: int) -> Iterator[tuple[int, bytes]]:
    """Read lines in an order that only the seed decides."""
    starts = array("Q", [0])
    for line in source:
        starts.append(starts[-1] + len(line))
    indexes = array("L", range(len(starts) - 1))
    random.Random(seed).shuffle(indexes)  # noqa: S311 (must be the same every time, not secret)
    for index in indexes:
        source.seek(starts[index])
        yield index, source.readline()

"""Every port but the ledger and the providers, in memory: for tests, for try-outs, and to read what a port means."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, BinaryIO, cast

import pyarrow as pa

from nightbatch.adapters.clock import FixedClock, SystemClock
from nightbatch.adapters.object_store_names import check_name
from nightbatch.core.money import Price
from nightbatch.core.parts import cut
from nightbatch.core.window import Window
from nightbatch.errors import BadSink, Transient
from nightbatch.ports import Chunk, GivenAnswer, HeldAnswer, MergeCounts, Message, SinkContext

__all__ = [
    "FixedClock",
    "MemoryNotifier",
    "MemorySink",
    "MemorySource",
    "MemoryStore",
    "StaticPrices",
    "SystemClock",
]

_KNOWN_CHUNK = 1000


class MemoryStore:
    """Files in a dict; safe between threads."""

    def __init__(self, base_uri: str = "memory://store") -> None:
        self._base_uri = base_uri.rstrip("/")
        self._lock = threading.Lock()
        self.files: dict[str, bytes] = {}
        """Name to content; a test may look, and break things."""

    def uri(self, name: str) -> str:
        """Give the full URI of a file."""
        return f"{self._base_uri}/{check_name(name)}"

    @contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        """Collect a file; it appears when the block ends well."""
        check_name(name)
        buffer = _Kept()
        yield cast(BinaryIO, buffer)
        with self._lock:
            self.files[name] = buffer.content()

    @contextmanager
    def reader(self, name: str) -> Iterator[BinaryIO]:
        """Open a file. Raises FileNotFoundError."""
        with io.BytesIO(self.read(name)) as file:
            yield file

    def read(self, name: str) -> bytes:
        """Read a file whole. Raises FileNotFoundError."""
        check_name(name)
        with self._lock:
            if name not in self.files:
                raise FileNotFoundError(f"{self._base_uri}/{name} is not there")
            return self.files[name]

    def write(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Write a file; with `if_absent`, say False and change nothing where it exists."""
        check_name(name)
        with self._lock:
            if if_absent and name in self.files:
                return False
            self.files[name] = bytes(content)
        return True

    def exists(self, name: str) -> bool:
        """Say whether the file is there."""
        check_name(name)
        with self._lock:
            return name in self.files

    def size_bytes(self, name: str) -> int:
        """Tell how large a file is. Raises FileNotFoundError."""
        return len(self.read(name))

    def names(self, prefix: str) -> Iterator[str]:
        """List the names of all files below a folder, sorted; an empty prefix lists all."""
        folder = f"{check_name(prefix.rstrip('/'))}/" if prefix.rstrip("/") else ""
        with self._lock:
            return iter(sorted(name for name in self.files if name.startswith(folder)))

    def delete(self, name: str) -> None:
        """Remove a file; nothing happens where it is not there."""
        check_name(name)
        with self._lock:
            self.files.pop(name, None)


class _Kept(io.BytesIO):
    """A buffer whose content outlives its closing."""

    _content: bytes | None = None

    def close(self) -> None:
        if not self.closed:
            self._content = self.getvalue()
        super().close()

    def content(self) -> bytes:
        return self._content if self._content is not None else self.getvalue()


class MemorySource:
    """Records that were handed in: the same for every window, or what a function says of one."""

    def __init__(
        self, chunks: Iterable[Chunk] | Callable[[Window], Iterable[Chunk]], *, identity: str = "memory://source"
    ) -> None:
        self._chunks = chunks if callable(chunks) else list(chunks)
        self._identity = identity
        self.reads: list[Window] = []
        """The windows that were read, in order."""

    def read(self, window: Window) -> Iterator[Chunk]:
        """Stream the records."""
        self.reads.append(window)
        chunks = self._chunks(window) if callable(self._chunks) else self._chunks
        yield from (chunk for chunk in chunks if chunk.rows)

    def parts(self, window: Window, *, most: int, least_bytes: int) -> list[dict[str, Any]]:
        """Cut the chunks into parts; their bytes are not asked."""
        chunks = list(self._chunks(window) if callable(self._chunks) else self._chunks)
        found = cut([len(chunk.rows) for chunk in chunks], most=most, least=1)
        return [{"from": part.start, "to": part.stop} for part in found]

    def read_part(self, window: Window, part: Mapping[str, Any], *, seen: dict[str, bool]) -> Iterator[Chunk]:
        """Stream the records of a part."""
        chunks = list(self._chunks(window) if callable(self._chunks) else self._chunks)
        yield from (chunk for chunk in chunks[part["from"] : part["to"]] if chunk.rows)

    @property
    def identity(self) -> str:
        """Name this source."""
        return self._identity


class MemorySink:
    """Answers and dead letters in dicts, merged by the same rules as a table; safe between threads."""

    def __init__(self, *, identity: str = "memory://sink") -> None:
        self._identity = identity
        self._lock = threading.Lock()
        self.job = ""
        """The job that this sink belongs to, once it was prepared."""
        self.answers: dict[str, dict[str, Any]] = {}
        """Key to the columns of `ANSWER_SCHEMA`, and `run`, `window`, `generation` and `part`."""
        self.dead: dict[tuple[str, str], dict[str, Any]] = {}
        """(run, key) to the columns of `DEAD_SCHEMA`, and `run`, `window`, `generation` and `part`."""

    def prepare(self, context: SinkContext) -> None:
        """Take the sink for a job. Raises BadSink where another has it."""
        with self._lock:
            if self.job and self.job != context.job:
                raise BadSink(
                    self._identity,
                    problem=f"it holds the answers of job {self.job}, and this is job {context.job}",
                    remedy="Give each job a sink of its own",
                )
            self.job = context.job

    def merge(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> MergeCounts:
        """Merge by key: a row gives way only to one of a window that ends as late, and a generation as high."""
        rows = _rows(context, part, batches)
        merged = 0
        with self._lock:
            for row in rows:
                held = self.answers.get(row["key"])
                if held is None or _rank(held) <= _rank(row):
                    self.answers[row["key"]] = row
                    merged += 1
            self._exhume(rows)
        return MergeCounts(offered=len(rows), merged=merged, newer_kept=len(rows) - merged)

    def bury(self, context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> int:
        """Write dead letters, keyed by run and key, but for those that an answer has overtaken."""
        rows = _rows(context, part, batches)
        with self._lock:
            left = [row for row in rows if not self._is_answered(row)]
            self.dead.update({(context.run, row["key"]): row for row in left})
        return len(rows)

    def _is_answered(self, letter: Mapping[str, Any]) -> bool:
        held = self.answers.get(letter["key"])
        return held is not None and _rank(held) >= _rank(letter)

    def _exhume(self, answers: list[dict[str, Any]]) -> None:
        ranks = {row["key"]: _rank(row) for row in answers}
        for place, letter in list(self.dead.items()):
            if letter["key"] in ranks and _rank(letter) <= ranks[letter["key"]]:
                del self.dead[place]

    def known(self) -> Iterator[list[tuple[str, str, datetime]]]:
        """Stream (key, fingerprint, window end) of every answer, sorted by key, in chunks."""
        with self._lock:
            rows = sorted((key, row["fingerprint"], row["window"].end) for key, row in self.answers.items())
        for start in range(0, len(rows), _KNOWN_CHUNK):
            yield rows[start : start + _KNOWN_CHUNK]

    def held(self, since: SinkContext) -> Iterator[list[HeldAnswer]]:
        """Stream the answers of this run and of those that are not older."""
        least = (since.window.end, since.generation)
        with self._lock:
            rows = [
                HeldAnswer(key, row["run"], row["fingerprint"], row["custom_id"], row["cost_usd"])
                for key, row in self.answers.items()
                if row["run"] == since.run or _rank(row) >= least
            ]
        for start in range(0, len(rows), _KNOWN_CHUNK):
            yield rows[start : start + _KNOWN_CHUNK]

    def given(self, field: str) -> Iterator[list[GivenAnswer]]:
        """Stream one field of every answer."""
        with self._lock:
            rows = [
                GivenAnswer(key, _field(row["answer"], field), row["prompt_version"], row["model"], row["cost_usd"])
                for key, row in self.answers.items()
            ]
        for start in range(0, len(rows), _KNOWN_CHUNK):
            yield rows[start : start + _KNOWN_CHUNK]

    @property
    def identity(self) -> str:
        """Name this sink."""
        return self._identity


def _field(answer: str, field: str) -> Any:
    if field == "answer":
        return answer
    return json.loads(answer).get(field)


def _rows(context: SinkContext, part: str, batches: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    """Read all batches before anything is changed, so that a failing one changes nothing."""
    about = {"run": context.run, "window": context.window, "generation": context.generation, "part": part}
    return [{**row, **about} for batch in batches for row in batch.to_pylist()]


def _rank(row: Mapping[str, Any]) -> tuple[datetime, int]:
    return row["window"].end, row["generation"]


class MemoryNotifier:
    """A channel that keeps what it was told, and fails when it is told to."""

    def __init__(self, channel: str = "memory") -> None:
        self.channel = channel
        self.messages: list[Message] = []
        self.failures: list[Transient] = []
        """What the next calls raise, first one first; nothing is delivered by them."""

    def send(self, message: Message) -> None:
        """Deliver, or raise what a test put into `failures`."""
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)


class StaticPrices:
    """Prices that were handed in, the same at every instant; a model that is not among them is unknown."""

    def __init__(self, prices: Mapping[tuple[str, str], Price]) -> None:
        self._prices = dict(prices)

    def price(self, provider: str, model: str, *, at: datetime) -> Price:
        """Give the rates of a model; both are None where it is unknown."""
        unknown = Price(batch=None, realtime=None, note=f"no price of {provider} {model} was handed in")
        return self._prices.get((provider, model), unknown)

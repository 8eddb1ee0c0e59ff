"""A vendor of batches in memory, and the provider that talks to it: for tests and try-outs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import Label
from nightbatch.core.money import Usage
from nightbatch.core.queue import QueueRules
from nightbatch.core.request import Endpoint, Envelope, Frame, Messages, RequestSpec
from nightbatch.core.result import ErrorKind, Finish, Outcome, Result
from nightbatch.core.shard import Limits
from nightbatch.errors import ProviderBusy
from nightbatch.ports import Clock, ListedBatch, RawFile

Answer = Callable[[Messages, int], Result]
"""Answers a question; the number says how often it was asked before, from 0."""


def echo(messages: Messages, _times: int) -> Result:
    """Answer with the question."""
    return Result("", Outcome.ANSWERED, messages.user, usage=Usage(input_tokens=10, output_tokens=5), model="echo-1")


@dataclass
class _Batch:
    state: BatchState
    label: Label
    lines: list[bytes]


@dataclass
class MemoryVendor:
    """Keeps batches, answers their rows once, and remembers what it billed."""

    clock: Clock
    answer: Answer = echo
    batches: dict[str, _Batch] = field(default_factory=dict)
    billed: dict[str, int] = field(default_factory=dict)
    """How often each question was answered, by its text."""
    discarded: set[str] = field(default_factory=set)
    """Ended batches whose rows were deleted."""
    before_create: Callable[[], None] = lambda: None
    """Called before a batch is made: a test raises here what a vendor would refuse with."""
    after_create: Callable[[], None] = lambda: None
    """Called when a batch is made and before its id is told: a test raises here to lose a reply."""

    def create(self, lines: list[bytes], label: Label) -> BatchState:
        """Make a batch."""
        self.before_create()
        now = self.clock.now()
        batch_id = f"batch_{len(self.batches)}"
        state = BatchState(batch_id, BatchStatus.RUNNING, "in_progress", rows_total=len(lines), created_utc=now)
        self.batches[batch_id] = _Batch(state, label, lines)
        self.after_create()
        return state

    def end(self, batch_id: str) -> BatchState:
        """End a batch; its rows are answered when its results are read first."""
        batch = self.batches[batch_id]
        if batch.state.status is BatchStatus.RUNNING:
            batch.state = replace(
                batch.state, status=BatchStatus.ENDED, vendor_status="ended", ended_utc=self.clock.now()
            )
            batch.lines = [self._answer_line(line) for line in batch.lines]
        return batch.state

    def _answer_line(self, line: bytes) -> bytes:
        request = json.loads(line)
        result = self.ask(Messages(request["body"]["system"], request["body"]["user"]))
        answered = {
            "custom_id": request["custom_id"],
            "outcome": result.outcome,
            "text": result.text,
            "finish": result.finish,
            "error_kind": result.error_kind,
            "error_code": result.error_code,
            "tokens": [
                result.usage.input_tokens,
                result.usage.output_tokens,
                result.usage.cached_tokens,
                result.usage.cache_write_tokens,
                result.usage.reasoning_tokens,
            ],
            "model": result.model,
        }
        return json.dumps(answered).encode() + b"\n"

    def ask(self, messages: Messages) -> Result:
        """Answer one question and bill it."""
        times = self.billed.get(messages.user, 0)
        self.billed[messages.user] = times + 1
        return self.answer(messages, times)


@dataclass
class _JsonEncoder:
    spec: RequestSpec

    envelope = Envelope(b'{"custom_id":"', b'","body":', b"}\n")

    def frame(self, system: str) -> Frame:
        values = {"model": self.spec.model, "cap": self.spec.max_output_tokens, "system": system}
        return Frame(json.dumps(values)[:-1].encode() + b', "user": ', b"}")

    def decode(self, line: bytes) -> Messages:
        body = json.loads(line)["body"]
        return Messages(body["system"], body["user"])


@dataclass
class MemoryProvider:
    """The Provider port over a `MemoryVendor`."""

    vendor: MemoryVendor
    name: str = "memory"
    limits: Limits = Limits(max_rows=50_000, max_bytes=200_000_000)
    endpoints: tuple[Endpoint, ...] = (Endpoint.CHAT,)
    budget_month_usd: Decimal | None = None
    found_by: Literal["label", "count"] = "label"
    queue: QueueRules = QueueRules()
    ends_at_once: bool = True

    def encoder(self, spec: RequestSpec) -> _JsonEncoder:
        """Give what encodes requests."""
        return _JsonEncoder(spec)

    def account(self) -> str:
        """Name the account."""
        return "memory-account"

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Take requests in the create call."""
        return None

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """Make a batch."""
        whole = b"".join(lines)
        return self.vendor.create([line for line in whole.split(b"\n") if line], label)

    def find(self, label: Label, *, rows: int, since: datetime, until: datetime) -> list[BatchState]:
        """Give the batches with this label, or with this number of rows."""
        if self.found_by == "label":
            return [batch.state for batch in self.vendor.batches.values() if batch.label == label]
        return [
            self.poll(batch.state.batch_id)
            for batch in list(self.vendor.batches.values())
            if batch.state.batch_id not in self.vendor.discarded
            and batch.state.rows_total == rows
            and since <= (batch.state.created_utc or since) <= until
        ]

    def listing(self, since: datetime, *, page_rows: int | None = None) -> Iterator[ListedBatch]:
        """Stream the vendor's batches, newest first."""
        for batch in reversed(list(self.vendor.batches.values())):
            batch_id, is_labelled = batch.state.batch_id, self.found_by == "label"
            if (batch.state.created_utc or since) >= since and (is_labelled or batch_id not in self.vendor.discarded):
                yield ListedBatch(self.poll(batch_id), batch.label if is_labelled else None)

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch."""
        if batch_id not in self.vendor.batches or (self.found_by == "count" and batch_id in self.vendor.discarded):
            return BatchState(batch_id, BatchStatus.NOT_FOUND, "not found")
        return self.vendor.end(batch_id) if self.ends_at_once else self.vendor.batches[batch_id].state

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream the results."""
        if state.batch_id in self.vendor.discarded:
            raise ProviderBusy(self.name, f"reading the results of batch {state.batch_id}", cause="404")
        yield RawFile("results", iter(self.vendor.batches[state.batch_id].lines))

    def parse(self, line: bytes) -> Result:
        """Read a line of results."""
        values = json.loads(line)
        if not isinstance(values, dict) or "custom_id" not in values:
            raise ValueError("this line is about no row")
        return Result(
            values["custom_id"],
            Outcome(values["outcome"]),
            values["text"],
            Finish(values["finish"]),
            ErrorKind(values["error_kind"]) if values["error_kind"] else None,
            values["error_code"],
            _usage(*values["tokens"]),
            values["model"],
        )

    def withdraw(self, file_id: str) -> None:
        """Nothing is uploaded, so there is nothing to delete."""

    def discard(self, batch_id: str | None, *, file_id: str | None, result_files: Sequence[str]) -> None:
        """Delete the rows of an ended batch."""
        if batch_id is not None and self.vendor.batches[batch_id].state.status is BatchStatus.ENDED:
            self.vendor.discarded.add(batch_id)

    def cancel(self, batch_id: str) -> None:
        """End a batch."""
        self.vendor.end(batch_id)

    def ask(self, body: bytes, *, endpoint: Endpoint) -> Result:
        """Answer in real time."""
        values = json.loads(body)
        return self.vendor.ask(Messages(values["system"], values["user"]))

    def batch_url(self, batch_id: str) -> str:
        """Give an address that leads nowhere."""
        return f"memory://vendor/{batch_id}"


def _usage(input_tokens: int, output_tokens: int, cached: int = 0, written: int = 0, reasoning: int = 0) -> Usage:
    return Usage(input_tokens, cached, written, output_tokens, reasoning)

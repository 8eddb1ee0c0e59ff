"""A vendor: what it reads and writes, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

from nightbatch.core.batch import BatchState
from nightbatch.core.ids import Label
from nightbatch.core.money import Price
from nightbatch.core.queue import QueueRules
from nightbatch.core.request import Endpoint, Envelope, Frame, Messages, RequestSpec
from nightbatch.core.result import Result
from nightbatch.core.shard import Limits


class Encoder(Protocol):
    """Turns messages into a vendor's requests, and back. Made once for a shard."""

    @property
    def envelope(self) -> Envelope:
        """What stands around custom_id and body in a line of a request file."""

    def frame(self, system: str) -> Frame:
        """
        Give what stands around the JSON string of the user's text in a body; asked once for a system message.

        Canonical, so that equal questions have equal bytes (fingerprints rest on it).
        """

    def decode(self, line: bytes) -> Messages:
        """Read the messages back out of a line."""


@dataclass(frozen=True)
class RawFile:
    """One result file at the vendor, as a stream of its bytes."""

    name: str
    """Safe as a file name: `output`, `error` or `results`."""
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class ListedBatch:
    """A batch in a vendor's listing, whoever made it."""

    state: BatchState
    label: Label | None = None
    """What it says of itself, in our words; None where it says nothing, or the vendor keeps no labels."""


class Provider(Protocol):
    """
    One account of one vendor's batch API. Errors of the vendor's SDK end here.

    Every method may raise ProviderBusy (nothing was created or changed), AccountTrouble, and what it names.
    """

    name: str
    limits: Limits
    endpoints: tuple[Endpoint, ...]
    budget_month_usd: Decimal | None
    """The most that all jobs of the account may spend in a month, as the connection says; None for no limit."""
    found_by: Literal["label", "count"]
    """How a lost batch is found: by its label in the vendor's metadata, or only by its time and number of rows."""
    queue: QueueRules
    """What may wait there: the vendor's defaults, and what the connection says instead."""

    def encoder(self, spec: RequestSpec) -> Encoder:
        """Give what encodes requests of this kind."""

    def account(self) -> str:
        """Name the account as the vendor does, else the connection's declared name; never by the key."""

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Send a request file ahead, streamed; None where the vendor takes requests in the create call."""

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """
        Create the batch: one call, the SDK's retries off, a hard timeout.

        Raises CreateUnclear where the reply was lost (timeout, reset, 5xx), QueueFull and RequestRefused where
        the vendor certainly made nothing (4xx).
        """

    def find(self, label: Label, *, rows: int, since: datetime, until: datetime) -> list[BatchState]:
        """
        Give every batch at the vendor that may be the one with this label, from a *complete* listing.

        `since` and `until` bound its creation. With `found_by == "label"` an item is certainly ours; with
        "count" it is a candidate until a custom_id in its results proves it. Empty means "certainly not listed".
        """

    def listing(self, since: datetime, *, page_rows: int | None = None) -> Iterator[ListedBatch]:
        """
        Stream every batch of the account that was made since then, whoever made it, from a *complete* listing.

        Newest first, where the vendor says so, and each in the state that a poll gives. A page is read when its first
        batch is asked for; it has the vendor's most, or `page_rows`. Memory: a page. Raises ProviderBusy in the middle
        where the listing cannot be read to its end.
        """

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch once. A 404 is the status NOT_FOUND, never an error."""

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream every result file of an ended batch; both output and error file where there are two."""

    def parse(self, line: bytes) -> Result:
        """Read one line of a result file. Raises ValueError for a line that is none."""

    def withdraw(self, file_id: str) -> None:
        """Delete an uploaded request file, so that a create that comes late must fail; absent is fine."""

    def discard(self, batch_id: str | None, *, file_id: str | None, result_files: Sequence[str]) -> None:
        """
        Delete what an attempt that is over left at the vendor: its request file and its result files.

        Where results are part of the batch, the ended batch itself goes. Absent is fine, and doing it again too.
        Only ever called when nothing will be read there any more; a batch that has not ended is never deleted.
        """

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch. Only ever called by a person's deliberate act."""

    def ask(self, body: bytes, *, endpoint: Endpoint) -> Result:
        """Ask one question in real time, at the full price."""

    def batch_url(self, batch_id: str) -> str:
        """Give the page where a person sees this batch at the vendor."""


class Prices(Protocol):
    """What models cost."""

    def price(self, provider: str, model: str, *, at: datetime) -> Price:
        """Give the rates in force at an instant; an unknown one is None, never a guess."""

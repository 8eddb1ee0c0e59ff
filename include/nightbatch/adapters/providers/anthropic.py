"""Anthropic's message batches: one create call that carries every request, one file of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from nightbatch.adapters.connections import check_type
from nightbatch.adapters.providers.account_budget import month_budget
from nightbatch.adapters.providers.anthropic_batches import Batch, Page, state_of
from nightbatch.adapters.providers.anthropic_encoder import AnthropicEncoder
from nightbatch.adapters.providers.anthropic_rows import parse_answer, parse_row
from nightbatch.adapters.providers.listing import DOING, listed
from nightbatch.adapters.providers.queue_limits import queue_rules
from nightbatch.adapters.providers.refusal import NotFound
from nightbatch.adapters.providers.wire import api_key, base_url, chunked
from nightbatch.core.batch import BatchState, BatchStatus
from nightbatch.core.ids import Label
from nightbatch.core.queue import Kind
from nightbatch.core.request import Endpoint, RequestSpec
from nightbatch.core.result import ErrorKind, Outcome, Result
from nightbatch.core.shard import Limits
from nightbatch.errors import CreateUnclear, ProviderBusy, RequestRefused
from nightbatch.ports import Connection, Encoder, ListedBatch, RawFile

if TYPE_CHECKING:
    import httpx2

    from nightbatch.adapters.providers.calls import Calls

T = TypeVar("T")

NAME = "anthropic"
UNREADABLE = "the reply was not the JSON it should be"
API = "https://api.anthropic.com"
_BATCHES = "/v1/messages/batches"

MAX_ROWS = 100_000
"""Requests in one batch. Source: platform.claude.com/docs/en/build-with-claude/batch-processing, copy of 2026-09-20."""
MAX_BYTES = 256_000_000 - 1_000
"""Bytes of one create call, less its frame. Source: the same page ("256 MB"; more is answered by 413)."""
QUEUE = {"requests": 200_000}
"""
What may wait, of all models together, in the lowest of today's tiers; higher ones have 300,000 and 500,000.
Source: platform.claude.com/docs/en/api/rate-limits, stored copies of 2026.
"""
PAGE_ROWS = 1_000
"""Largest page of a listing. Source: anthropic 2.12.0, `resources.messages.batches.Batches.list`, read 2026-11-22."""
CLOCK_SKEW = timedelta(minutes=2)
"""How far the vendor's clock may differ from ours. Too wide only costs a look at a stranger's batch."""


class AnthropicProvider:
    """
    One workspace of Anthropic.

    Batches carry no name and no metadata there, so a lost one is found by its time and number of rows. Nothing is
    sent, and the SDK is not even imported, until a method needs the vendor: encoding and parsing do not.
    """

    name = NAME
    limits = Limits(max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    endpoints: tuple[Endpoint, ...] = (Endpoint.MESSAGES,)
    found_by: Literal["label", "count"] = "count"

    def __init__(self, connection: Connection, *, request_timeout_s: float) -> None:
        check_type(connection, "anthropic")
        self._connection, self._request_timeout_s = connection, request_timeout_s
        self.budget_month_usd = month_budget(connection)
        self._base_url = base_url(connection, client_kwargs="anthropic_client_kwargs", default=API).removesuffix("/v1")
        self.queue = queue_rules(connection, QUEUE, full_by=Kind.ROWS, full_by_model=False)
        self._key = api_key(connection, client_kwargs="anthropic_client_kwargs", variable="ANTHROPIC_API_KEY")

    def encoder(self, spec: RequestSpec) -> Encoder:
        """Give what encodes requests of this kind."""
        return AnthropicEncoder(spec)

    def parse(self, line: bytes) -> Result:
        """Read one line of a result file. Raises ValueError for a line that names no row."""
        return parse_row(line)

    def account(self) -> str:
        """
        Name the organisation, and the workspace if the connection declares or the vendor reports one.

        From the header `anthropic-organization-id`, which comes with every reply; without it the declared account,
        else the connection.
        """
        return self._account

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Do nothing: the requests go into the create call."""
        return None

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """Create the batch, its requests streamed in bounded memory; the label has no place to go."""
        reply = self._calls.create(_BATCHES, content=chunked(_framed(lines)))
        try:
            return state_of(msgspec.json.decode(reply.content, type=Batch))
        except msgspec.DecodeError as error:
            raise CreateUnclear(NAME, cause=UNREADABLE) from error

    def find(self, label: Label, *, rows: int, since: datetime, until: datetime) -> list[BatchState]:
        """
        Give the candidates: batches created between `since` and `until` with this number of rows.

        Reads page after page until batches are older than `since` (with room for a wrong clock). A listing that is
        not newest first is read to its end; one that cannot be read to its end is an error.
        """
        first, last = since - CLOCK_SKEW, until + CLOCK_SKEW
        return [
            state_of(batch)
            for batch in listed(self._page, oldest=first, provider=NAME)
            if first <= batch.created_utc <= last and batch.request_counts.rows == rows
        ]

    def listing(self, since: datetime, *, page_rows: int | None = None) -> Iterator[ListedBatch]:
        """Stream the workspace's batches, read page after page until they are older than `since`."""
        read_page = partial(self._page, page_rows=page_rows)
        for batch in listed(read_page, oldest=since - CLOCK_SKEW, provider=NAME):
            if batch.created_utc >= since:
                yield ListedBatch(state_of(batch))

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch once."""
        doing = f"looking at batch {batch_id}"
        try:
            reply = self._calls.get(f"{_BATCHES}/{quote(batch_id, safe='')}", doing=doing)
        except NotFound:
            return BatchState(batch_id, BatchStatus.NOT_FOUND, "404")
        return state_of(_read(reply.content, Batch, doing))

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream the one result file, where there is one."""
        if state.result_files:
            yield RawFile("results", self._download(state.batch_id))

    def withdraw(self, file_id: str) -> None:
        """Do nothing: there are no request files here."""

    def discard(self, batch_id: str | None, *, file_id: str | None, result_files: Sequence[str]) -> None:
        """Delete the ended batch, since its requests and results are a part of it; one under way is refused (400)."""
        if batch_id is None:
            return
        try:
            self._calls.delete(f"{_BATCHES}/{quote(batch_id, safe='')}", doing=f"deleting batch {batch_id}")
        except NotFound:
            return

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; rows under way may still be answered, and are then billed."""
        self._calls.post(f"{_BATCHES}/{quote(batch_id, safe='')}/cancel", doing=f"cancelling batch {batch_id}")

    def ask(self, body: bytes, *, endpoint: Endpoint) -> Result:
        """Ask one question in real time, at the full price."""
        doing = "asking in real time"
        try:
            return parse_answer(self._calls.post("/v1/messages", doing=doing, content=body).content)
        except RequestRefused as refused:
            return Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code=refused.code)
        except ValueError as error:
            raise ProviderBusy(NAME, doing, cause=UNREADABLE) from error

    def batch_url(self, batch_id: str) -> str:
        """Give the workspace's list of batches in the vendor's console; a page of one batch is not documented."""
        parts = urlsplit(self._base_url)
        if parts.hostname == "api.anthropic.com":
            workspace = quote(str(self._connection.extra.get("workspace_id") or "default"), safe="")
            return f"https://platform.claude.com/workspaces/{workspace}/batches"
        return f"{parts.scheme}://{parts.netloc}"

    @cached_property
    def _calls(self) -> Calls:
        from nightbatch.adapters.providers.anthropic_client import open_calls

        return open_calls(
            self._connection, base_url=self._base_url, key=self._key, request_timeout_s=self._request_timeout_s
        )

    @cached_property
    def _account(self) -> str:
        doing = "asking for the account"
        reply = self._get(_BATCHES, doing, {"limit": 1})
        # A foreign reply, say of a proxy's login page, must not rename the account.
        _read(reply.content, Page, doing)
        headers = reply.headers
        self._calls.check_clock(headers)
        extra = self._connection.extra
        organization = headers.get("anthropic-organization-id")
        if not organization:
            return str(extra.get("account") or self._connection.conn_id)
        workspace = extra.get("workspace_id") or headers.get("anthropic-workspace-id")
        return f"{organization}/{workspace}" if workspace else organization

    def _page(self, after: str | None, *, page_rows: int | None = None) -> tuple[list[Batch], bool]:
        limit = min(page_rows or PAGE_ROWS, PAGE_ROWS)
        query: dict[str, object] = {"limit": limit, **({"after_id": after} if after else {})}
        page = _read(self._get(_BATCHES, DOING, query).content, Page, DOING)
        return page.data, page.has_more

    def _get(self, path: str, doing: str, query: dict[str, object]) -> httpx2.Response:
        try:
            return self._calls.get(path, doing=doing, query=query)
        except NotFound as absent:
            raise ProviderBusy(NAME, doing, cause=f"HTTP 404, {absent.refusal.code}") from absent

    def _download(self, batch_id: str) -> Iterator[bytes]:
        """Stream the results by the batch's id: the key goes to the connection's own address and nowhere else."""
        doing = f"reading the results of batch {batch_id}"
        try:
            yield from self._calls.stream(f"{_BATCHES}/{quote(batch_id, safe='')}/results", doing=doing)
        except NotFound as absent:
            # Seen for a while after a batch has ended (anthropic-sdk-python#1432); it does not mean "no answers".
            raise ProviderBusy(NAME, doing, cause="404, the results are not there (yet, or no longer)") from absent


def _framed(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Put lines, or chunks of lines, into the frame of a create call: every newline but the last is a comma."""
    yield b'{"requests":['
    separator = b""
    for piece in lines:
        yield separator + piece.removesuffix(b"\n").replace(b"\n", b",")
        separator = b"," if piece.endswith(b"\n") else b""
    yield b"]}"


def _read(content: bytes, kind: type[T], doing: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ProviderBusy(NAME, doing, cause=UNREADABLE) from error

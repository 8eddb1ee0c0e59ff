"""OpenAI's batch API, and every server that speaks it: a request file, a batch, two result files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
import orjson

from nightbatch.adapters.connections import check_type
from nightbatch.adapters.providers.account_budget import month_budget
from nightbatch.adapters.providers.listing import DOING, listed
from nightbatch.adapters.providers.openai_batches import Batch, File, Page, state_of
from nightbatch.adapters.providers.openai_encoder import PATHS, OpenAIEncoder
from nightbatch.adapters.providers.openai_rows import parse_answer, parse_row
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
    from nightbatch.adapters.providers.calls import Calls

T = TypeVar("T")

NAME = "openai"
UNREADABLE = "the reply was not the JSON it should be"
API = "https://api.openai.com/v1"

MAX_ROWS = 50_000
"""Requests in one file. Source: openai 3.54.0, `resources.batches.Batches.create`, read 2026-11-22."""
MAX_BYTES = 200_000_000
"""Bytes of one file. Source: openai 3.54.0, `resources.files.Files.create`, read 2026-11-22 ("200 MB")."""
QUEUE = {"creations_per_hour": 2_000}
"""
What may wait. Source: developers.openai.com/api/docs/guides/batch, stored copy of 2026.

Enqueued tokens are limited by model and usage tier, and only the account's own limits page says how: without
`queue.tokens` in the connection the first refusal teaches it.
"""
PAGE_ROWS = 100
"""Largest page of a listing. Source: openai 3.54.0, `types.batch_list_params`, read 2026-11-22."""
CLOCK_SKEW = timedelta(minutes=10)
"""How far the vendor's clock may be behind ours before a listing is cut off too early."""


class OpenAIProvider:
    """
    One project of OpenAI, or of a compatible server.

    Nothing is sent, and the SDK is not even imported, until a method needs the vendor: encoding and parsing do not.
    """

    name = NAME
    limits = Limits(max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    endpoints: tuple[Endpoint, ...] = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.EMBEDDINGS)
    found_by: Literal["label", "count"] = "label"

    def __init__(self, connection: Connection, *, request_timeout_s: float) -> None:
        check_type(connection, "openai")
        self._connection, self._request_timeout_s = connection, request_timeout_s
        self.budget_month_usd = month_budget(connection)
        self._base_url = base_url(connection, client_kwargs="openai_client_kwargs", default=API)
        self.queue = queue_rules(connection, QUEUE, full_by=Kind.TOKENS, full_by_model=True)
        self._key = api_key(connection, client_kwargs="openai_client_kwargs", variable="OPENAI_API_KEY")

    def encoder(self, spec: RequestSpec) -> Encoder:
        """Give what encodes requests of this kind."""
        return OpenAIEncoder(spec)

    def parse(self, line: bytes) -> Result:
        """Read one line of a result file. Raises ValueError for a line that names no row."""
        return parse_row(line)

    def account(self) -> str:
        """
        Name the organisation and project that the vendor reports, else the declared account, else the connection.

        The headers `openai-organization` and `openai-project` come with every reply (seen, not promised).
        """
        return self._account

    def upload(self, lines: Iterator[bytes], *, size_bytes: int, name: str) -> str | None:
        """Send a request file, streamed in bounded memory; each call makes a file of its own."""
        fields = {"purpose": "batch"}
        reply = self._calls.upload("/files", fields=fields, name=name, lines=chunked(lines), size_bytes=size_bytes)
        return _read(reply.content, File, "uploading a request file").id

    def create(self, *, file_id: str | None, lines: Iterator[bytes], endpoint: Endpoint, label: Label) -> BatchState:
        """Create the batch from an uploaded file; `lines` is not read."""
        body = {
            "input_file_id": file_id,
            "endpoint": PATHS[endpoint],
            "completion_window": "24h",
            "metadata": label.metadata(),
        }
        reply = self._calls.create("/batches", content=[orjson.dumps(body)])
        try:
            return state_of(msgspec.json.decode(reply.content, type=Batch))
        except msgspec.DecodeError as error:
            raise CreateUnclear(NAME, cause=UNREADABLE) from error

    def find(self, label: Label, *, rows: int, since: datetime, until: datetime) -> list[BatchState]:
        """
        Give the batches whose metadata holds the whole label.

        Reads page after page until batches are older than `since` (with room for a wrong clock). A listing that is
        not newest first is read to its end; one that cannot be read to its end is an error.
        """
        wanted = label.metadata().items()
        batches = listed(self._page, oldest=since - CLOCK_SKEW, provider=NAME)
        return [state_of(batch) for batch in batches if wanted <= (batch.metadata or {}).items()]

    def listing(self, since: datetime, *, page_rows: int | None = None) -> Iterator[ListedBatch]:
        """Stream the project's batches, read page after page until they are older than `since`."""
        read_page = partial(self._page, page_rows=page_rows)
        for batch in listed(read_page, oldest=since - CLOCK_SKEW, provider=NAME):
            if batch.created_utc >= since:
                yield ListedBatch(state_of(batch), Label.read(batch.metadata or {}))

    def poll(self, batch_id: str) -> BatchState:
        """Look at a batch once."""
        doing = f"looking at batch {batch_id}"
        try:
            reply = self._calls.get(f"/batches/{quote(batch_id, safe='')}", doing=doing)
        except NotFound:
            return BatchState(batch_id, BatchStatus.NOT_FOUND, "404")
        return state_of(_read(reply.content, Batch, doing))

    def results(self, state: BatchState) -> Iterator[RawFile]:
        """Stream the output file and the error file, as far as the batch has them."""
        for entry in state.result_files:
            name, _, file_id = entry.partition(":")
            yield RawFile(name, self._download(file_id))

    def withdraw(self, file_id: str) -> None:
        """Delete a request file; a create that names it fails from then on."""
        try:
            self._calls.delete(f"/files/{quote(file_id, safe='')}", doing=f"deleting file {file_id}")
        except NotFound:
            return

    def discard(self, batch_id: str | None, *, file_id: str | None, result_files: Sequence[str]) -> None:
        """Delete the request file and the result files; the batch itself stays, without rows."""
        for name in (file_id, *(entry.partition(":")[2] for entry in result_files)):
            if name:
                self.withdraw(name)

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; takes up to ten minutes there, and finished rows are kept and billed."""
        self._calls.post(f"/batches/{quote(batch_id, safe='')}/cancel", doing=f"cancelling batch {batch_id}")

    def ask(self, body: bytes, *, endpoint: Endpoint) -> Result:
        """Ask one question in real time, at the full price."""
        doing = "asking in real time"
        try:
            reply = self._calls.post(PATHS[endpoint].removeprefix("/v1"), doing=doing, content=body)
            return parse_answer(reply.content)
        except RequestRefused as refused:
            return Result("", Outcome.ERRORED, error_kind=ErrorKind.PERMANENT, error_code=refused.code)
        except ValueError as error:
            raise ProviderBusy(NAME, doing, cause=UNREADABLE) from error

    def batch_url(self, batch_id: str) -> str:
        """Give the batch's page on OpenAI's platform; of another server only its address is known."""
        parts = urlsplit(self._base_url)
        if parts.hostname == "api.openai.com":
            return f"https://platform.openai.com/batches/{quote(batch_id, safe='')}"
        return f"{parts.scheme}://{parts.netloc}"

    @cached_property
    def _calls(self) -> Calls:
        from nightbatch.adapters.providers.openai_client import open_calls

        return open_calls(
            self._connection, base_url=self._base_url, key=self._key, request_timeout_s=self._request_timeout_s
        )

    @cached_property
    def _account(self) -> str:
        headers: Mapping[str, str]
        doing = "asking for the account"
        try:
            reply = self._calls.get("/batches", doing=doing, query={"limit": 1})
            # A foreign reply, say of a proxy's login page, must not rename the account.
            _read(reply.content, Page, doing)
            headers = reply.headers
        except NotFound as absent:
            headers = absent.refusal.headers
        self._calls.check_clock(headers)
        extra = self._connection.extra
        organization, project = headers.get("openai-organization"), headers.get("openai-project")
        if organization or project:
            named = (organization or extra.get("organization"), project or extra.get("project"))
            return "/".join(str(part) for part in named if part)
        return str(extra.get("account") or self._connection.conn_id)

    def _page(self, after: str | None, *, page_rows: int | None = None) -> tuple[list[Batch], bool]:
        limit = min(page_rows or PAGE_ROWS, PAGE_ROWS)
        query: dict[str, object] = {"limit": limit, **({"after": after} if after else {})}
        try:
            reply = self._calls.get("/batches", doing=DOING, query=query)
        except NotFound as absent:
            raise ProviderBusy(NAME, DOING, cause=f"HTTP 404, {absent.refusal.code}") from absent
        page = _read(reply.content, Page, DOING)
        return page.data, page.has_more

    def _download(self, file_id: str) -> Iterator[bytes]:
        doing = f"reading result file {file_id}"
        try:
            yield from self._calls.stream(f"/files/{quote(file_id, safe='')}/content", doing=doing)
        except NotFound as absent:
            # Files can be absent for a while after a batch has ended; "could not read" is not "has no answers".
            raise ProviderBusy(NAME, doing, cause="404, the file is not there (yet, or no longer)") from absent


def _read(content: bytes, kind: type[T], doing: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.DecodeError as error:
        raise ProviderBusy(NAME, doing, cause=UNREADABLE) from error

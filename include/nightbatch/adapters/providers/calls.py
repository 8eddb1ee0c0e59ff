"""Calls to a vendor through its official SDK's client, with every error translated into one of ours."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import Any, cast

import httpx2
import orjson

from nightbatch.adapters.providers.refusal import Classify, NotFound, Purpose, Refusal
from nightbatch.adapters.providers.upload_stream import UploadStream
from nightbatch.adapters.providers.wire import CHUNK_BYTES, short_code
from nightbatch.errors import CreateUnclear, NightbatchError, ProviderBusy

READ_TIMEOUT_S = 60.0
"""Longest silence while something is read; sending has the installation's own, longer limit."""
READ_RETRIES = 2
"""How often the SDK repeats a pure read by itself; nothing else is ever repeated here."""

LONGEST_RETRY_AFTER_S = 3600.0
"""The longest that a vendor's Retry-After is believed."""
MAX_CLOCK_ERROR_S = 300.0
"""How far this machine's clock may be from the vendor's. Lost batches are found within seven minutes of their time."""

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
"""What fails before a byte of the request has left."""
_UNCLEAR_STATUSES = frozenset({408, 499})
"""4xx that a gateway sends for its own sake; the vendor may have got the request all the same."""
_UNREAD = {"X-Stainless-Raw-Response": "stream"}
"""Tells the SDKs to hand the response over before its body is read, as their `with_streaming_response` does."""


class _Body:
    """
    A request body on its way, read once. Remembers why it broke off.

    A body that never ended is a request that never was, whatever the SDK makes of the exception.
    """

    def __init__(self, content: Iterable[bytes], too_slow: NightbatchError, *, within_s: float) -> None:
        self._content, self._too_slow, self._within_s = content, too_slow, within_s
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        ends = time.monotonic() + self._within_s
        try:
            for chunk in self._content:
                if time.monotonic() > ends:
                    raise self._too_slow
                yield chunk
        except Exception as error:
            self.failure = error
            raise


class _Unquoted(bytes):
    """A request body that says only how long it is: the SDKs log what they send, at the level DEBUG."""

    def __repr__(self) -> str:
        return f"<{len(self):,} bytes>"


class Calls:
    """
    The low-level verbs of an SDK's client.

    Answers come back unparsed: the SDKs take a half-read or foreign body for an object with holes, and a listing
    with holes would read as "there is no such batch".
    """

    def __init__(
        self, provider: str, *, client: Any, sdk: ModuleType, classify: Classify, request_timeout_s: float, where: str
    ) -> None:
        """Take an SDK's client; `where` names its address and its connection to people."""
        self._provider, self._client, self._sdk, self._classify = provider, client, sdk, classify
        self._where = where
        self._request_timeout_s = request_timeout_s

    def get(self, path: str, *, doing: str, query: Mapping[str, object] | None = None) -> httpx2.Response:
        """Read something small. Raises NotFound, ProviderBusy, AccountTrouble."""
        options = self._reading(params=dict(query or {}))
        with self._translated(doing):
            return cast(httpx2.Response, self._client.get(path, cast_to=httpx2.Response, options=options))

    def stream(self, path: str, *, doing: str) -> Iterator[bytes]:
        """Stream a file; its connection closes when the iterator ends or is closed. Raises as `get` does."""
        options = self._reading(headers={"Accept": "application/binary", **_UNREAD})
        with self._translated(doing):
            reply = cast(httpx2.Response, self._client.get(path, cast_to=httpx2.Response, options=options))
            with closing(reply):
                yield from reply.iter_bytes(CHUNK_BYTES)

    def delete(self, path: str, *, doing: str) -> None:
        """Delete something. Raises NotFound, ProviderBusy, AccountTrouble."""
        options = {"max_retries": 0, "timeout": self._read_timeout_s}
        with self._translated(doing):
            self._client.delete(path, cast_to=httpx2.Response, options=options)

    def post(self, path: str, *, doing: str, content: bytes = b"") -> httpx2.Response:
        """Send something that makes no batch: a question, a cancellation."""
        with self._translated(doing, Purpose.SEND):
            return self._post(path, content=_Unquoted(content))

    def upload(
        self, path: str, *, fields: dict[str, str], name: str, lines: Iterable[bytes], size_bytes: int
    ) -> httpx2.Response:
        """Send a form with one file of exactly `size_bytes`, in bounded memory."""
        doing = "uploading a request file"
        with self._sending(lines, doing, Purpose.SEND) as body:
            stream = UploadStream(body, size_bytes=size_bytes)
            return self._post(path, body=fields, files={"file": (name, stream, "application/jsonl")})

    def create(self, path: str, *, content: Iterable[bytes]) -> httpx2.Response:
        """
        Send the one call that must not be made twice.

        Raises CreateUnclear wherever the vendor may have acted on it, and anything else only where it certainly has
        not: it refused, the connection never stood, or the body never ended (then what ended it is raised).
        """
        with self._sending(content, "creating a batch", Purpose.CREATE) as body:
            return self._post(path, content=body)

    def check_clock(self, headers: Mapping[str, str]) -> None:
        """Compare this machine's clock with the date of a reply. Raises ProviderBusy."""
        check_clock(self._provider, headers, now=datetime.now(UTC))

    @property
    def _read_timeout_s(self) -> float:
        return min(READ_TIMEOUT_S, self._request_timeout_s)

    def _reading(self, **options: object) -> dict[str, object]:
        return {"max_retries": READ_RETRIES, "timeout": self._read_timeout_s, **options}

    def _post(self, path: str, **body: object) -> httpx2.Response:
        options = {
            "headers": {"Content-Type": "multipart/form-data" if "files" in body else "application/json"},
            "max_retries": 0,
            "timeout": self._request_timeout_s,
            # A streamed body cannot be sent twice, and a paid call must not go where nobody sent it.
            "follow_redirects": False,
        }
        return cast(httpx2.Response, self._client.post(path, cast_to=httpx2.Response, options=options, **body))

    @contextmanager
    def _sending(self, content: Iterable[bytes], doing: str, purpose: Purpose) -> Iterator[_Body]:
        within_s = self._request_timeout_s
        too_slow = ProviderBusy(self._provider, doing, cause=f"the request was not sent within {within_s:.0f} s")
        body = _Body(content, too_slow, within_s=within_s)
        try:
            with self._translated(doing, purpose):
                yield body
        except NightbatchError:
            if body.failure is not None:
                raise body.failure from None
            raise

    @contextmanager
    def _translated(self, doing: str, purpose: Purpose = Purpose.READ) -> Iterator[None]:
        """Turn the SDK's and the transport's exceptions into ours, or into NotFound."""
        try:
            yield
        except self._sdk.APIStatusError as error:
            # Not chained: what the vendor says may quote a prompt or a key, and a log shows the whole chain.
            raise self._refused(read_refusal(error.response), doing, purpose) from None
        except (self._sdk.APIError, httpx2.HTTPError, httpx2.StreamError, ssl.SSLError) as error:
            raise self._cut_off(error.__cause__ or error, doing, purpose) from None

    def _refused(self, refusal: Refusal, doing: str, purpose: Purpose) -> Exception:
        status = refusal.status
        if purpose is Purpose.READ and status == httpx2.codes.NOT_FOUND:
            return NotFound(refusal)
        if purpose is Purpose.CREATE and (status in _UNCLEAR_STATUSES or status >= httpx2.codes.INTERNAL_SERVER_ERROR):
            return CreateUnclear(self._provider, cause=f"HTTP {status}, {refusal.code}")
        return self._classify(refusal, doing, purpose)

    def _cut_off(self, root: BaseException, doing: str, purpose: Purpose) -> NightbatchError:
        if purpose is Purpose.CREATE and not isinstance(root, _NOT_SENT):
            return CreateUnclear(self._provider, cause=type(root).__name__)
        return ProviderBusy(self._provider, doing, cause=self._cause(root))

    def _cause(self, root: BaseException) -> str:
        """Name what cut a call off; what the exception itself says may quote an address with its secrets."""
        if not isinstance(root, httpx2.ConnectError | httpx2.ConnectTimeout):
            return type(root).__name__
        hint = "is its certificate trusted here?" if "CERTIFICATE" in str(root) else "is it up?"
        return f"no connection to {self._where}: {hint}"


def read_refusal(response: httpx2.Response) -> Refusal:
    """Read an error reply, in either vendor's shape; a body that is no JSON leaves only the status."""
    try:
        body = orjson.loads(response.content)
    except (orjson.JSONDecodeError, httpx2.StreamError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        error = {}
    details = error.get("details")
    default = f"http_{response.status_code}"
    return Refusal(
        status=response.status_code,
        code=short_code(error.get("code"), short_code(error.get("type"), default)),
        message=str(error.get("message") or ""),
        details_code=short_code(details.get("error_code"), "") if isinstance(details, dict) else "",
        retry_after_s=retry_after_s(response.headers, now=datetime.now(UTC)),
        headers=response.headers,
    )


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Read how long the vendor asks us to wait, in seconds, at most an hour; None where it does not say."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            asked = float(milliseconds) / 1000
        elif (text := headers.get("retry-after")) is None:
            return None
        elif text.replace(".", "", 1).isdigit():
            asked = float(text)
        else:
            asked = (parsedate_to_datetime(text) - now).total_seconds()
    except (TypeError, ValueError):
        return None
    # A date that a wrong clock makes absurd must not put a night to sleep; asking once more does no harm.
    return min(max(0.0, asked), LONGEST_RETRY_AFTER_S)


def check_clock(provider: str, headers: Mapping[str, str], *, now: datetime) -> None:
    """
    Raise ProviderBusy where this machine's clock and the vendor's are too far apart.

    A lost batch is looked for by the time of its creation, so nothing may be sent, nor declared absent, by a wrong
    clock. A reply without a readable date passes.
    """
    try:
        vendors = parsedate_to_datetime(headers.get("date", ""))
        apart_s = (now - vendors).total_seconds()
    except (TypeError, ValueError):
        return
    if abs(apart_s) > MAX_CLOCK_ERROR_S:
        way = "ahead of" if apart_s > 0 else "behind"
        cause = f"this machine's clock is {abs(apart_s) / 60:,.0f} min {way} the vendor's, and must be set first"
        raise ProviderBusy(provider, "comparing clocks", cause=cause)

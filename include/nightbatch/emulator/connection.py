"""What goes wrong with one connection: resets, silence, slow, garbled and truncated bodies."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Send

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def _transport(send: Send) -> Any:
    """Return the TCP connection under a request; uvicorn alone tells it."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("faults of connections work under uvicorn only")
    return transport


async def reset(send: Send, receive: Receive) -> None:
    """Close the connection so that the client sees a reset, and wait until it is gone."""
    transport = _transport(send)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
    await _gone(receive)


async def hang_up(send: Send, receive: Receive) -> None:
    """Close the connection in the ordinary way, after what was sent has left."""
    _transport(send).close()
    await _gone(receive)


async def drain(receive: Receive) -> None:
    """Read a request's body to its end, so that the client is ready for the reply."""
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(slots=True)
class Dripping:
    """Sends bodies in small pieces."""

    send: Send
    piece_bytes: int
    pause_s: float

    async def __call__(self, message: Message) -> None:
        """Pass a message on, in pieces if it is a body."""
        body = message.get("body", b"")
        for start in range(0, len(body), max(self.piece_bytes, 1)):
            piece = body[start : start + max(self.piece_bytes, 1)]
            await self.send({"type": message["type"], "body": piece, "more_body": True})
            await asyncio.sleep(self.pause_s)
        await self.send({**message, "body": b""} if body else message)


@dataclass(slots=True)
class Garbling:
    """Replaces the second half of each piece of body by what no parser takes."""

    send: Send

    async def __call__(self, message: Message) -> None:
        """Pass a message on, garbled if it is a body."""
        body = message.get("body", b"")
        if body:
            half = len(body) // 2
            message = {**message, "body": body[:half] + b"<" * (len(body) - half)}
        await self.send(message)


@dataclass(slots=True)
class Truncating:
    """Sends half of a body whose length was announced, and hangs up."""

    send: Send
    hang_up: Callable[[], Awaitable[None]]
    left: int = 0
    closed: bool = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on, until half of the body has gone."""
        if self.closed:
            return
        if message["type"] == "http.response.start":
            self.left = int(Headers(raw=message["headers"]).get("content-length", "0")) // 2
            await self.send(message)
            return
        body = message.get("body", b"")[: self.left]
        self.left -= len(body)
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        if self.left <= 0:
            self.closed = True
            await self.hang_up()


@dataclass(slots=True)
class Withholding:
    """Keeps a reply back when it says that all went well, to let the client wonder."""

    send: Send
    withheld: bool = False

    async def __call__(self, message: Message) -> None:
        """Pass on replies of failure only."""
        if message["type"] == "http.response.start":
            self.withheld = message["status"] == 200
        if not self.withheld:
            await self.send(message)

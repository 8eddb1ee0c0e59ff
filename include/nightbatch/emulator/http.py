"""What both vendors' routes share: replies, errors, and who is asking."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import Depends, Request
from starlette.responses import Response

from nightbatch.emulator.answers import Problem
from nightbatch.emulator.world import Requester, World


class VendorError(Exception):
    """A request is refused; each vendor's words are put around the problem when the reply is written."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        self.problem = Problem(status, more.pop("type", ""), message, **more)
        super().__init__(message)


def reply(body: Any, status: int = 200) -> Response:
    """Return a JSON reply."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def _world(request: Request) -> World:
    world: World = request.app.state.world
    return world


def _requester(request: Request) -> Requester:
    requester: Requester = request.scope["emulator.requester"]
    return requester


InWorld = Annotated[World, Depends(_world)]
From = Annotated[Requester, Depends(_requester)]


async def json_body(request: Request, max_bytes: int) -> Any:
    """Read a JSON body that is small enough for memory."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > max_bytes:
            raise VendorError(413, f"Request exceeds the maximum size of {max_bytes:,} bytes", type="request_too_large")
    try:
        return orjson.loads(bytes(raw))
    except orjson.JSONDecodeError as error:
        raise VendorError(400, f"We could not parse the JSON body of your request. ({error})") from error

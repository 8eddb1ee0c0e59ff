"""The application: both vendors' routes, their errors, and the admin surface behind one door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from nightbatch.emulator import admin, models
from nightbatch.emulator.answers import Problem
from nightbatch.emulator.anthropic_api import batches as anthropic_batches
from nightbatch.emulator.anthropic_api import real_time as anthropic_real_time
from nightbatch.emulator.gate import Gate, error_body
from nightbatch.emulator.http import VendorError, reply
from nightbatch.emulator.openai_api import batches as openai_batches
from nightbatch.emulator.openai_api import files as openai_files
from nightbatch.emulator.openai_api import real_time as openai_real_time
from nightbatch.emulator.operations import methods
from nightbatch.emulator.settings import EmulatorSettings
from nightbatch.emulator.world import World

_ROUTERS = (
    openai_files.router,
    openai_batches.router,
    openai_real_time.router,
    anthropic_batches.router,
    anthropic_real_time.router,
    models.router,
    admin.front,
    admin.router,
)


class _Emulator(FastAPI):
    def build_middleware_stack(self) -> ASGIApp:
        """Put the gate outside of everything: the faults of connections need the server's own `send`."""
        return Gate(super().build_middleware_stack(), self.state.world)


def create_app(settings: EmulatorSettings) -> FastAPI:
    """Make the application. Its folder is made at once, and removed at shutdown if it is temporary."""
    world = World(settings)
    app = _Emulator(title="nightbatch emulator", lifespan=_lifespan, openapi_url=None, redirect_slashes=False)
    app.state.world = world
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(VendorError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _no_route)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    world: World = app.state.world
    await world.close()


def _worded(request: Request, problem: Problem) -> Response:
    body = error_body(
        request.scope.get("emulator.vendor", "openai"), problem, request.scope.get("emulator.request_id", "")
    )
    return reply(body, problem.status)


async def _refused(request: Request, error: Exception) -> Response:
    """Answer what a route refuses."""
    return _worded(request, error.problem if isinstance(error, VendorError) else Problem(500, "", str(error)))


async def _not_valid(request: Request, error: Exception) -> Response:
    """Answer a body or a parameter of the wrong shape; both vendors say 400, not 422."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    where = ".".join(map(str, first["loc"][1:]))
    return _worded(request, Problem(400, "invalid_request_error", f"{where}: {first['msg']}", "invalid_value", where))


async def _no_route(request: Request, error: Exception) -> Response:
    """Answer a path or a method that nobody knows, and bodies that the web framework refuses."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else str(error)
    message = f"Invalid URL ({request.method} {request.url.path})" if status in {404, 405} else str(detail)
    answer = _worded(request, Problem(status, "invalid_request_error", message))
    if status == 405:  # the web framework names the methods of one route only
        answer.headers["allow"] = ", ".join(methods(request.url.path))
    return answer

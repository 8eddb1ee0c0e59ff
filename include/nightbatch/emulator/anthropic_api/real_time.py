"""Anthropic's real-time calls: the same answers as in a batch, at once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nightbatch.emulator.answers import ANSWERED
from nightbatch.emulator.anthropic_api.bodies import error_body, message_body
from nightbatch.emulator.asks import Ask, BadRequest, Json, read_anthropic
from nightbatch.emulator.http import From, InWorld, VendorError, json_body, reply
from nightbatch.emulator.settings import EmulatorSettings
from nightbatch.emulator.world import World

router = APIRouter(prefix="/v1/messages")


@router.post("")
async def answer(request: Request, world: InWorld, requester: From) -> Response:
    """Answer one message."""
    ask = await _ask(request, world)
    answerer = world.answerer("anthropic", requester.account, requester.plan.faults)
    given = await world.in_thread(lambda: answerer.answer(ask))
    if given.kind not in ANSWERED and given.problem:
        return reply(error_body(given.problem, request.scope["emulator.request_id"]), given.problem.status)
    return reply(message_body(ask, given, key=world.store.ids.next(""), tier="standard"))


@router.post("/count_tokens")
async def count_tokens(request: Request, world: InWorld, requester: From) -> Response:
    """Count the tokens of a message, without answering it."""
    body = await json_body(request, world.settings.limits.real_time_body_bytes)
    return reply({"input_tokens": _read({**body, "max_tokens": 1} if isinstance(body, dict) else body).input_tokens})


async def _ask(request: Request, world: World) -> Ask:
    return _read(await json_body(request, world.settings.limits.real_time_body_bytes))


def _read(body: object) -> Ask:
    try:
        if isinstance(body, dict) and body.get("stream"):
            raise BadRequest("stream: the emulator does not stream")
        return read_anthropic(body)
    except BadRequest as error:
        raise VendorError(error.status, error.message) from error


def model_body(settings: EmulatorSettings, name: str) -> Json:
    """Return a model object."""
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


def model_list(settings: EmulatorSettings) -> Json:
    """Return all models."""
    models = [model_body(settings, name) for name in settings.models]
    ends = {"first_id": settings.models[0], "last_id": settings.models[-1]} if models else {}
    return {"data": models, "has_more": False, "first_id": None, "last_id": None, **ends}

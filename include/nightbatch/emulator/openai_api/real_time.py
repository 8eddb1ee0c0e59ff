"""OpenAI's real-time calls: the same answers as in a batch, at once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nightbatch.emulator.answers import ANSWERED
from nightbatch.emulator.asks import CHAT, EMBEDDINGS, RESPONSES, BadRequest, Json, read_openai
from nightbatch.emulator.clock import now_s
from nightbatch.emulator.http import From, InWorld, VendorError, json_body, reply
from nightbatch.emulator.openai_api.bodies import answer_body, error_body
from nightbatch.emulator.settings import EmulatorSettings

router = APIRouter()


@router.post(CHAT)
@router.post(RESPONSES)
@router.post(EMBEDDINGS)
async def answer(request: Request, world: InWorld, requester: From) -> Response:
    """Answer one request."""
    body = await json_body(request, world.settings.limits.real_time_body_bytes)
    try:
        ask = read_openai(request.url.path, body)
    except BadRequest as error:
        raise VendorError(error.status, error.message, param=error.param, code=error.code) from error
    answerer = world.answerer("openai", requester.account, requester.plan.faults)
    given = await world.in_thread(lambda: answerer.answer(ask))
    if given.kind not in ANSWERED and given.problem:
        return reply(error_body(given.problem), given.problem.status)
    key = world.store.ids.next("")
    return reply(answer_body(ask, given, key=key, created=now_s()))


def model_body(settings: EmulatorSettings, name: str) -> Json:
    """Return a model object."""
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "emulator"}


def model_list(settings: EmulatorSettings) -> Json:
    """Return all models."""
    return {"object": "list", "data": [model_body(settings, name) for name in settings.models]}

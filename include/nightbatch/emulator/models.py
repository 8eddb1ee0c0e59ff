"""The list of models, which both vendors keep under the same path."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from nightbatch.emulator.anthropic_api import real_time as anthropic
from nightbatch.emulator.http import From, InWorld, VendorError, reply
from nightbatch.emulator.openai_api import real_time as openai

router = APIRouter(prefix="/v1/models")

_SIDES = {"openai": openai, "anthropic": anthropic}


@router.get("")
async def list_models(request: Request, world: InWorld, requester: From) -> Response:
    """List the models."""
    return reply(_SIDES[request.scope["emulator.vendor"]].model_list(world.settings))


@router.get("/{name}")
async def retrieve_model(name: str, request: Request, world: InWorld, requester: From) -> Response:
    """Describe a model."""
    if name not in world.settings.models:
        raise VendorError(404, f"The model '{name}' does not exist", code="model_not_found", param="model")
    return reply(_SIDES[request.scope["emulator.vendor"]].model_body(world.settings, name))

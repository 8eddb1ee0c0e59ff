"""The admin surface: what has happened so far, and which faults are in force."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from nightbatch.emulator.answers import ANSWERED, Kind
from nightbatch.emulator.faults import Faults, UnknownFault
from nightbatch.emulator.http import InWorld, VendorError, json_body, reply
from nightbatch.emulator.store import Batch
from nightbatch.emulator.world import World

router = APIRouter(prefix="/emulator")
front = APIRouter()

WELCOME = """\
This is nightbatch's stand-in for OpenAI and Anthropic. It has no pages.

Where Airflow's button "Batch at the vendor" led you here, it leads to the batch itself with the real vendor
(OpenAI), or to the list of batches (Anthropic). What happened here so far: GET /emulator/state, with a key.
"""

MAX_BODY_BYTES = 100_000


@front.get("/")
async def welcome() -> Response:
    """Say to a person with a browser what this is; needs no key."""
    return Response(WELCOME, media_type="text/plain")


@router.get("/health")
async def health() -> Response:
    """Say that the emulator is there; needs no key."""
    return reply({"status": "ok"})


@router.get("/state")
async def state(world: InWorld) -> Response:
    """Say which batches there are, and whether any row was answered twice."""
    store = world.store
    return reply(
        {
            "batches": [_batch(batch) for batch in reversed(store.batches.newest_first())],
            "creations": dict(store.creations),
            "rows": store.sightings.summary(),
            "enqueued_tokens": store.enqueued.by_model(),
            "files": len(store.files.newest_first()),
            "requests": dict(store.requests),
        }
    )


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "number": batch.number,
        "vendor": batch.vendor,
        "account": batch.scope,
        "status": batch.status,
        "is_deleted": batch.is_deleted,
        "created_at": batch.created_at,
        "metadata": batch.metadata,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "models": list(batch.models),
        "rows": batch.rows,
        "billed_rows": sum(batch.counts[kind] for kind in ANSWERED),
        "good_rows": batch.counts[Kind.GOOD],
        "rows_by_ending": {str(kind): batch.counts[kind] for kind in Kind if batch.counts[kind]},
        "input_tokens": batch.usage.input_tokens,
        "output_tokens": batch.usage.output_tokens,
        "late_seconds": batch.late_seconds,
    }


@router.get("/faults")
async def read_faults(world: InWorld) -> Response:
    """Return the faults in force."""
    return reply(world.faults.as_dict())


@router.put("/faults")
async def replace_faults(request: Request, world: InWorld) -> Response:
    """Put these faults, and no others, in force."""
    return await _set(request, world, Faults())


@router.patch("/faults")
async def change_faults(request: Request, world: InWorld) -> Response:
    """Change some of the faults in force."""
    return await _set(request, world, world.faults)


@router.delete("/faults")
async def end_faults(world: InWorld) -> Response:
    """End all faults."""
    world.set_faults(Faults())
    return reply(world.faults.as_dict())


async def _set(request: Request, world: World, base: Faults) -> Response:
    wanted = await json_body(request, MAX_BODY_BYTES)
    if not isinstance(wanted, dict):
        raise VendorError(400, "Give the faults as a JSON object: name to value.")
    try:
        world.set_faults(base.but(wanted))
    except UnknownFault as error:
        raise VendorError(400, str(error)) from error
    return reply(world.faults.as_dict())

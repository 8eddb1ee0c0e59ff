"""OpenAI's Batch API."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import Response

from nightbatch.emulator.clock import now_s
from nightbatch.emulator.http import From, InWorld, VendorError, reply
from nightbatch.emulator.openai_api import life
from nightbatch.emulator.openai_api.bodies import batch_body
from nightbatch.emulator.openai_api.dialect import Checked, check
from nightbatch.emulator.openai_api.files import Expiry, find_file
from nightbatch.emulator.store import Batch, StoredFile, page_after
from nightbatch.emulator.world import Requester, World, is_listed, is_visible

router = APIRouter(prefix="/v1/batches")

Key = Annotated[str, StringConstraints(max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]


class CreateBatch(BaseModel):
    """What makes a batch. Limits of metadata: the texts of openai 3.54.0."""

    model_config = ConfigDict(strict=True)

    input_file_id: str
    endpoint: Literal[
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    ]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[Key, Value], Field(max_length=16)] | None = None
    output_expires_after: Expiry = Field(default=None)  # type: ignore[assignment]  # may be absent, but not null


@router.post("")
async def create(wanted: CreateBatch, world: InWorld, requester: From) -> Response:
    """Create a batch; what is wrong in its file shows later, as the status `failed`."""
    file = find_file(world, requester, wanted.input_file_id, "input_file_id")
    if file.purpose != "batch":
        raise VendorError(400, f"File {file.id} has the purpose '{file.purpose}', not 'batch'.", param="input_file_id")
    refused = requester.plan.take("token_limit_at_create")
    checked = await _counted_early(world, file, wanted.endpoint)
    batch = world.new_batch(
        "openai",
        requester,
        file.path,
        status="validating",
        endpoint=wanted.endpoint,
        input_file_id=file.id,
        metadata=wanted.metadata,
        output_expires_after=wanted.output_expires_after.seconds if wanted.output_expires_after else None,
    )
    if refused or not _fits(world, batch, checked):
        world.forget_batch(batch)
        message = life.token_limit_message(world, batch)
        raise VendorError(400, message, type="invalid_request_error", code="token_limit_exceeded")
    spoilt = requester.plan.take("token_limit_after_validation")
    world.start(life.live(world, batch, token_limit_fault=spoilt))
    return reply(batch_body(batch, at=now_s()))


async def _counted_early(world: World, file: StoredFile, endpoint: str) -> Checked | None:
    """Read a file at once, where the vendor counts tokens before it creates."""
    if world.settings.over_limit_at != "create":
        return None
    return await world.in_thread(lambda: check(file.path, endpoint, world.settings.limits))


def _fits(world: World, batch: Batch, checked: Checked | None) -> bool:
    """Say whether a batch's tokens may be enqueued, if they have been counted."""
    if checked is None:
        return True
    batch.models, batch.input_tokens = tuple(checked.models), checked.input_tokens
    return life.enqueue(world, batch)


@router.get("")
async def list_batches(
    world: InWorld,
    requester: From,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """List a project's batches, the newest first."""
    now = now_s()
    shelf = world.store.batches.newest_first(requester.account.scope)
    batches = [batch for batch in shelf if batch.vendor == "openai" and is_listed(batch, at=now)]
    page = page_after(batches, after, limit)
    if page is None:
        raise VendorError(404, f"No batch found with id '{after}'.", param="after")
    return reply(
        {
            "object": "list",
            "data": [batch_body(batch, at=now) for batch in page.things],
            "first_id": page.things[0].id if page.things else None,
            "last_id": page.things[-1].id if page.things else None,
            "has_more": page.has_more,
        }
    )


def _find(world: World, requester: Requester, batch_id: str) -> Batch:
    batch = world.store.batches.find(batch_id, requester.account.scope)
    if batch is None or batch.vendor != "openai" or not is_visible(batch, at=now_s()):
        raise VendorError(404, f"No batch found with id '{batch_id}'.")
    return batch


@router.get("/{batch_id}")
async def retrieve(batch_id: str, world: InWorld, requester: From) -> Response:
    """Describe a batch."""
    return reply(batch_body(_find(world, requester, batch_id), at=now_s()))


@router.post("/{batch_id}/cancel")
async def cancel(batch_id: str, world: InWorld, requester: From) -> Response:
    """Stop a batch; a second call is accepted, one after the end is not."""
    batch = _find(world, requester, batch_id)
    if batch.status in life.ENDED or batch.status == "finalizing":
        raise VendorError(409, f"Cannot cancel a batch with status '{batch.status}'.", type="invalid_request_error")
    if not batch.changed.is_set():
        batch.reach("cancelling", now_s())
        batch.changed.set()
    return reply(batch_body(batch, at=now_s()))

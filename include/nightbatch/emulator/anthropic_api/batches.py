"""Anthropic's Message Batches API: bodies stream to disk, results from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from nightbatch.emulator.anthropic_api import life
from nightbatch.emulator.anthropic_api.bodies import batch_body
from nightbatch.emulator.anthropic_api.dialect import Arrived, BadBatch, take_apart
from nightbatch.emulator.clock import now_s
from nightbatch.emulator.http import From, InWorld, VendorError, reply
from nightbatch.emulator.store import Batch, Page, page_after
from nightbatch.emulator.world import Requester, World, is_listed, is_visible

router = APIRouter(prefix="/v1/messages/batches")

Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("")
async def create(request: Request, world: InWorld, requester: From) -> Response:
    """Create a batch; parameters are checked only when it runs."""
    body = world.store.new_path(world.store.ids.next("body_"))
    lines = body.with_suffix(".jsonl")
    try:
        await _receive(request, world, body)
        arrived = await world.in_thread(lambda: take_apart(body, lines, world.settings.limits.anthropic_rows))
    except BadBatch as error:
        lines.unlink(missing_ok=True)
        raise VendorError(400, str(error)) from error
    finally:
        body.unlink(missing_ok=True)
    _refuse_too_many(world, requester, arrived)
    batch = world.new_batch("anthropic", requester, lines, status="in_progress")
    batch.rows, batch.models = arrived.rows, tuple(arrived.models)
    batch.input_tokens = arrived.input_tokens
    world.make_late(batch, {"custom_id": arrived.first_custom_id})
    world.start(life.live(world, batch))
    return reply(batch_body(batch, str(request.base_url)))


async def _receive(request: Request, world: World, path: Path) -> None:
    """Write a body to disk as it comes."""
    limit, received = world.settings.limits.anthropic_body_bytes, 0
    with path.open("wb") as file:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise VendorError(413, "Request exceeds the maximum allowed number of bytes.", type="request_too_large")
            file.write(chunk)


def _refuse_too_many(world: World, requester: Requester, arrived: Arrived) -> None:
    """Answer 429 when the workspace has too many requests waiting."""
    waiting = [one for one in _own(world, requester) if one.status != "ended"]
    limit = world.settings.queued_request_limit
    too_many = limit is not None and sum(one.rows for one in waiting) + arrived.rows > limit
    if too_many or requester.plan.take("token_limit_at_create"):
        message = "Number of requests in the Message Batches processing queue would exceed your limit."
        raise VendorError(429, message, type="rate_limit_error")


def _own(world: World, requester: Requester) -> list[Batch]:
    shelf = world.store.batches.newest_first(requester.account.scope)
    return [batch for batch in shelf if batch.vendor == "anthropic" and not batch.is_deleted]


@router.get("")
async def list_batches(
    request: Request,
    world: InWorld,
    requester: From,
    limit: Limit = 20,
    after_id: str | None = None,
    before_id: str | None = None,
) -> Response:
    """List a workspace's batches, the newest first."""
    now = now_s()
    batches = [batch for batch in _own(world, requester) if is_listed(batch, at=now)]
    page = _page(batches, limit, after_id, before_id)
    if page is None:
        raise VendorError(400, "after_id or before_id: no such batch")
    return reply(
        {
            "data": [batch_body(batch, str(request.base_url)) for batch in page.things],
            "has_more": page.has_more,
            "first_id": page.things[0].id if page.things else None,
            "last_id": page.things[-1].id if page.things else None,
        }
    )


def _page(batches: list[Batch], limit: int, after_id: str | None, before_id: str | None) -> Page[Batch] | None:
    """Return the page after, or the one just before, a batch."""
    if before_id is None:
        return page_after(batches, after_id, limit)
    page = page_after(batches[::-1], before_id, limit)
    return Page(page.things[::-1], page.has_more) if page else None


def _find(world: World, requester: Requester, batch_id: str) -> Batch:
    batch = world.store.batches.find(batch_id, requester.account.scope)
    if batch is None or batch.vendor != "anthropic" or batch.is_deleted or not is_visible(batch, at=now_s()):
        raise VendorError(404, f"Message batch {batch_id} not found.")
    return batch


@router.get("/{batch_id}")
async def retrieve(batch_id: str, request: Request, world: InWorld, requester: From) -> Response:
    """Describe a batch."""
    return reply(batch_body(_find(world, requester, batch_id), str(request.base_url)))


@router.post("/{batch_id}/cancel")
async def cancel(batch_id: str, request: Request, world: InWorld, requester: From) -> Response:
    """Stop a batch; a second call is accepted, one after the end is not."""
    batch = _find(world, requester, batch_id)
    if batch.status == "ended":
        raise VendorError(400, f"Message batch {batch_id} has already ended and cannot be canceled.")
    if not batch.changed.is_set():
        batch.reach("canceling", now_s())
        batch.changed.set()
    return reply(batch_body(batch, str(request.base_url)))


@router.delete("/{batch_id}")
async def delete(batch_id: str, world: InWorld, requester: From) -> Response:
    """Forget a batch that has ended."""
    batch = _find(world, requester, batch_id)
    if batch.status != "ended":
        raise VendorError(400, f"Message batch {batch_id} cannot be deleted while it is in progress. Cancel it first.")
    batch.is_deleted = True
    for path in (batch.input_path, batch.results_path):
        if path is not None:
            path.unlink(missing_ok=True)
    return reply({"id": batch_id, "type": "message_batch_deleted"})


@router.get("/{batch_id}/results")
async def results(batch_id: str, world: InWorld, requester: From) -> Response:
    """Send the results of a batch that has ended."""
    batch = _find(world, requester, batch_id)
    if batch.status != "ended":
        raise VendorError(404, f"Message batch {batch_id} has no results yet: it has not ended.")
    if batch.results_path is None:
        return Response(b"", media_type="application/x-jsonl")
    return FileResponse(batch.results_path, media_type="application/x-jsonl")

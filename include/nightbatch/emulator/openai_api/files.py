"""OpenAI's Files API: uploads stream to disk, downloads from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import FileResponse, Response

from nightbatch.emulator.clock import now_s
from nightbatch.emulator.http import From, InWorld, VendorError, reply
from nightbatch.emulator.openai_api.bodies import file_body
from nightbatch.emulator.store import StoredFile, page_after
from nightbatch.emulator.world import Requester, World

router = APIRouter(prefix="/v1/files")

BATCH_FILE_LIFE_S = 30 * 24 * 60 * 60
"""Files uploaded for batches expire after 30 days. Source: the texts of openai 3.54.0."""

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_FIELDS = {"file", "purpose", "expires_after", "expires_after[anchor]", "expires_after[seconds]"}


def _whole(value: Any) -> Any:
    """Take 3600.0 for 3600, as JSON does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Expiry(BaseModel):
    """When a file goes away by itself; between an hour and 30 days after its creation."""

    model_config = ConfigDict(strict=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, BeforeValidator(_whole), Field(ge=3600, le=2_592_000)]


@router.post("")
async def upload(request: Request, world: InWorld, requester: From) -> Response:
    """Take a file, part by part, to disk."""
    limit = world.settings.limits.openai_upload_bytes
    if int(request.headers.get("content-length") or 0) > limit + 100_000:
        raise VendorError(413, f"Maximum content size limit exceeded: {limit:,} bytes.")
    async with request.form(max_files=2, max_fields=8) as form:
        sent, purpose, life = _read_form(form)
        file = _new_file(world, requester, sent.filename or "upload", purpose, life)
        await world.in_thread(lambda: _write(sent, file.path))
    if file.size_bytes > limit:
        file.path.unlink()
        raise VendorError(413, f"Maximum content size limit exceeded: {limit:,} bytes.")
    world.store.files.put(file)
    return reply(file_body(file))


def _read_form(form: FormData) -> tuple[UploadFile, str, float | None]:
    """Check the parts of an upload; return the file, its purpose and its life in seconds."""
    extra = sorted(set(form) - _FIELDS)
    if extra:
        raise VendorError(400, f"Unknown parameter: '{extra[0]}'.", param=extra[0], code="unknown_parameter")
    sent, purpose = form.get("file"), form.get("purpose")
    if not isinstance(sent, UploadFile):
        raise VendorError(400, "'file' is a required property", param="file")
    if not isinstance(purpose, str) or purpose not in PURPOSES:
        raise VendorError(400, f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'", param="purpose")
    life = _life(form)
    return sent, purpose, BATCH_FILE_LIFE_S if life is None and purpose == "batch" else life


def _life(form: FormData) -> float | None:
    """Read `expires_after`, as the SDK sends it (one part a field) or as one part of JSON."""
    given: Any = {name[14:-1]: value for name, value in form.items() if name.startswith("expires_after[")}
    try:
        if "seconds" in given:
            given["seconds"] = int(str(given["seconds"]))
        if "expires_after" in form:
            given = orjson.loads(str(form["expires_after"]))
        elif not given:
            return None
        return float(Expiry.model_validate(given).seconds)
    except (ValueError, ValidationError) as error:
        raise VendorError(400, "Invalid 'expires_after'.", param="expires_after") from error


def _new_file(world: World, requester: Requester, name: str, purpose: str, life: float | None) -> StoredFile:
    file_id, now = world.store.ids.next("file-"), now_s()
    path, ends = world.store.new_path(file_id), None if life is None else now + life
    return StoredFile(file_id, requester.account.scope, path, name, purpose, now, ends)


def _write(sent: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(sent.file, file, 1 << 20)


@router.get("")
async def list_files(
    world: InWorld,
    requester: From,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """List a project's files."""
    files = world.store.files.newest_first(requester.account.scope)
    files = [file for file in files if purpose in {None, file.purpose}]
    page = page_after(files if order == "desc" else files[::-1], after, limit)
    if page is None:
        raise VendorError(404, f"No such File object: {after}", param="after")
    return reply(
        {
            "object": "list",
            "data": [file_body(file) for file in page.things],
            "first_id": page.things[0].id if page.things else None,
            "last_id": page.things[-1].id if page.things else None,
            "has_more": page.has_more,
        }
    )


def find_file(world: World, requester: Requester, file_id: str, param: str = "id") -> StoredFile:
    """Return a file of this project that has not expired, or raise a 404."""
    file = world.store.files.find(file_id, requester.account.scope)
    if file is None or (file.expires_at is not None and file.expires_at < now_s()):
        raise VendorError(404, f"No such File object: {file_id}", param=param)
    return file


@router.get("/{file_id}")
async def retrieve(file_id: str, world: InWorld, requester: From) -> Response:
    """Describe a file."""
    return reply(file_body(find_file(world, requester, file_id)))


@router.delete("/{file_id}")
async def delete(file_id: str, world: InWorld, requester: From) -> Response:
    """Forget a file. What a batch still reads stays on disk."""
    file = find_file(world, requester, file_id)
    world.store.files.remove(file_id)
    if all(batch.input_path != file.path for batch in world.store.batches.newest_first()):
        file.path.unlink(missing_ok=True)
    return reply({"id": file_id, "object": "file", "deleted": True})


@router.get("/{file_id}/content")
async def content(file_id: str, world: InWorld, requester: From) -> Response:
    """Send a file."""
    file = find_file(world, requester, file_id)
    return FileResponse(file.path, media_type="application/octet-stream", filename=file.filename)

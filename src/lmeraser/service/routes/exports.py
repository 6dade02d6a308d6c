"""Routes: the copies of the model outside, and the confirmation that one of them is deleted."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import UUID4, BaseModel
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmeraser.errors import InputError
from lmeraser.service.access import require_scope
from lmeraser.service.export_responses import ExportStatus
from lmeraser.service.problems import Problem, documented
from lmeraser.service.routes.erasure import signed_response
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.exports import HeldCopy

router = APIRouter(tags=["exports"])

ReadKey = Annotated[ApiKey, Depends(require_scope("read"))]
ConfirmKey = Annotated[ApiKey, Depends(require_scope("confirm"))]


class ExportList(BaseModel):
    """All copies, in the order in which they were made."""

    exports: list[ExportStatus]


@router.get(
    "/exports", summary="List exports", response_model=ExportList, responses=documented(401, 403, 429, 503)
)
def list_exports(call: Call, key: ReadKey) -> Response:
    """List the copies outside, and how many erased records each still holds the influence of (scope `read`)."""
    service = service_of(call)
    found = [ExportStatus.of(held, with_holder=True) for held in service.workspace.exports.all()]
    return signed_response(ExportList(exports=found), service)


@router.post(
    "/exports/{export_id}/confirm",
    summary="Confirm that a copy is deleted",
    response_model=ExportStatus,
    responses=documented(400, 401, 403, 404, 429, 503),
)
async def confirm_export(export_id: UUID4, call: Call, key: ConfirmKey) -> Response:
    """Confirm that a copy and all copies of it are deleted (scope `confirm`); harmless to repeat.

    Whoever holds a copy knows its id from `export.json`, and is given a key with this scope alone.
    """
    service = service_of(call)
    await run_in_threadpool(find_export, service, str(export_id))
    await asyncio.wrap_future(submit_confirmation(service, str(export_id), key))
    held = await run_in_threadpool(find_export, service, str(export_id))
    return signed_response(ExportStatus.of(held, with_holder=False), service)


def find_export(service: Service, export: str) -> HeldCopy:
    """A copy by its id.

    Raises:
        Problem: there is none.
    """
    try:
        return service.workspace.exports.require(export)
    except InputError:
        raise Problem(404, "unknown-export", "Export not found") from None


def submit_confirmation(service: Service, export: str, key: ApiKey) -> Future[None]:
    """Record that a copy is deleted; done when this is on disk."""
    now = service.workspace.clock()

    def confirm(connection: Connection) -> None:
        service.workspace.exports.confirm(connection, export, now=now)

    return service.request_writer.submit(confirm, key.id)

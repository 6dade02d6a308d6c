"""Following a request live: server-sent events (WHATWG HTML, 9.2) of its states and of the derivation's steps.

    event: status      data: as of GET /requests/ID      at first, and when the state changes
    event: progress    data: {"step", "done", "total"}   while it is in progress

The stream ends with the request. A reader that lost it connects again: the first event tells all there is to know.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import UUID4
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from lmeraser.service.access import needs
from lmeraser.service.answers import RequestStatus
from lmeraser.service.problems import Problem, documented
from lmeraser.service.routes.erasure import found
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey

router = APIRouter(tags=["deletion requests"])

Following = Annotated[ApiKey, Depends(needs("request", "read"))]
MEDIA_TYPE = "text/event-stream"
_LOOK = 0.3  # seconds between two looks
_SILENCE = 15.0  # seconds after which something is sent, so that nobody takes the connection for dead


@router.get(
    "/requests/{subject_request_id}/events",
    response_class=Response,
    responses={
        200: {"description": "Events", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **documented(400, 401, 403, 404, 429, 503),
    },
)
async def follow_events(subject_request_id: UUID4, call: Call, key: Following) -> Response:
    """Follow a request live (scope `request` or `read`)."""
    service = service_of(call)
    await run_in_threadpool(found, service, str(subject_request_id))
    return stream(service, str(subject_request_id))


def stream(service: Service, request_id: str) -> Response:
    """An answer that goes on until a request ends.

    Raises:
        Problem: too many follow already.
    """
    if service.streams >= service.config.max_streams:
        raise Problem(503, "busy", "Not too many callers follow at once.", headers={"Retry-After": "5"})
    body = _counted(service, request_id)
    return StreamingResponse(body, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})


async def _counted(service: Service, request_id: str) -> AsyncIterator[str]:
    service.streams += 1  # here, where it is sure to end: a caller may be gone before the first event
    try:
        async for event in events(service, request_id):
            yield event
    finally:
        service.streams -= 1


async def events(service: Service, request_id: str) -> AsyncIterator[str]:
    """The events of one request, until it ends or the service is stopped."""
    state, step, spoken = "", service.worker.now, time.monotonic()
    while not service.stopping.is_set():
        request = await run_in_threadpool(found, service, request_id)
        if request.state != state:
            state, spoken = request.state, time.monotonic()
            status = RequestStatus.of(request, service.config, service.workspace.clock())
            yield _event("status", status.model_dump(mode="json"))
        if not request.open:
            return
        now = service.worker.now
        if state == "in_progress" and now.step and now != step:
            step, spoken = now, time.monotonic()
            yield _event("progress", {name: value for name, value in asdict(now).items() if name != "number"})
        if time.monotonic() - spoken > _SILENCE:
            spoken = time.monotonic()
            yield ": nothing new\n\n"
        await anyio.sleep(_LOOK)


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"

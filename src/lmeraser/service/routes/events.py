"""Live status of a request: server-sent events (WHATWG HTML, 9.2) of its states and the derivation's progress.

    event: status      data: as of GET /requests/ID      first, and whenever the state changes
    event: progress    data: {"step", "done", "total"}   while the request is in progress

The stream ends when the request is closed, and as soon as its API key is revoked or its session ends. A client
that loses the connection reconnects; the first event has the complete status, so no event has to be replayed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends
from fastapi import Request as Call
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import UUID4
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmeraser.service.access import require_scope
from lmeraser.service.opendsr_responses import RequestStatus
from lmeraser.service.problems import Problem, documented
from lmeraser.service.routes.erasure import find_request
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.state import Request

router = APIRouter(tags=["deletion requests"])

FollowKey = Annotated[ApiKey, Depends(require_scope("request", "read"))]
_POLL_SECONDS = 0.3  # between two checks for changes
_STREAMS_AT_FULL_PACE = 10  # with more, each is checked less often, so that all together cost the same
_KEEPALIVE_SECONDS = 15.0  # of silence after which a comment is sent, so that proxies keep the connection open
# Events contain the status of a request, so no cache may store them; nginx must not buffer them.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@router.get(
    "/requests/{subject_request_id}/events",
    summary="Follow a request",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events",
            "content": {EventSourceResponse.media_type: {"schema": {"type": "string"}}},
        },
        **documented(400, 401, 403, 404, 429, 503),
    },
)
async def follow_events(subject_request_id: UUID4, call: Call, key: FollowKey) -> Response:
    """Receive the status of a request live (scope `request` or `read`)."""
    service = service_of(call)
    await run_in_threadpool(find_request, service, str(subject_request_id))
    return stream(service, str(subject_request_id), key.id)


# Not a generator route: FastAPI sends those with "Cache-Control: no-cache", which lets caches store the events.
def stream(
    service: Service, request_id: str, key_id: str, session_open: Callable[[], bool] = lambda: True
) -> Response:
    """A response that lasts until a request is closed.

    Args:
        service: the service.
        request_id: of the request.
        key_id: of the API key that opened the stream; the stream ends when it is revoked.
        session_open: whether the session that opened the stream, if there is one, has not ended.

    Raises:
        Problem: too many streams are open, or too many of this key.
    """

    def admitted() -> bool:
        return session_open() and service.workspace.api_keys.get(key_id) is not None

    service.streams.reserve(key_id, 1).release()  # refused here, while there can be an answer
    return EventSourceResponse(_counted_events(service, request_id, key_id, admitted), headers=_HEADERS)


async def _counted_events(
    service: Service, request_id: str, key_id: str, admitted: Callable[[], bool]
) -> AsyncIterator[bytes]:
    # Reserved here and not earlier: a generator that is never started would never release it.
    with contextlib.suppress(Problem), service.streams.reserve(key_id, 1):
        async for event in events(service, request_id, admitted):
            yield event


async def events(service: Service, request_id: str, admitted: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The encoded events of one request, until it is closed, its reader is not admitted, or the service stops."""

    def look() -> Request | None:
        return find_request(service, request_id) if admitted() else None

    loop = asyncio.get_running_loop()
    state = ""
    reported = service.supervisor.progress
    last_sent = time.monotonic()
    while not service.stopping.is_set():
        request = await loop.run_in_executor(service.stream_checks, look)
        if request is None:
            return
        if request.state != state:
            state = request.state
            last_sent = time.monotonic()
            status = RequestStatus.of(request, service.config, service.workspace.clock())
            yield _encode("status", status.model_dump(mode="json"))
        if not request.open:
            return
        progress = service.supervisor.progress
        if state == "in_progress" and progress.step and progress != reported:
            reported = progress
            last_sent = time.monotonic()
            yield _encode(
                "progress", {name: value for name, value in asdict(progress).items() if name != "number"}
            )
        if time.monotonic() - last_sent > _KEEPALIVE_SECONDS:
            last_sent = time.monotonic()
            yield KEEPALIVE_COMMENT
        await anyio.sleep(_POLL_SECONDS * max(1.0, service.streams.held / _STREAMS_AT_FULL_PACE))


def _encode(event: str, data: Mapping[str, Any]) -> bytes:
    return format_sse_event(event=event, data_str=json.dumps(data))

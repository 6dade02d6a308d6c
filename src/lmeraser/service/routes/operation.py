"""Routes for operators: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel
from starlette.responses import Response

from lmeraser.errors import LmeraserError
from lmeraser.service.access import require_scope
from lmeraser.service.problems import Problem, documented
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey

router = APIRouter(tags=["operation"])

ReadKey = Annotated[ApiKey, Depends(require_scope("read"))]
_READY_SECONDS = 1.0
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    """A healthy service."""

    status: str = "ok"


@router.get("/healthz", summary="Liveness")
async def healthz() -> Health:
    """Check that the process responds; needs no key."""
    return Health()


@router.get("/readyz", summary="Readiness", responses=documented(503))
async def readyz(call: Call) -> Health:
    """Check that requests can be accepted and predictions made; needs no key."""
    service = service_of(call)
    try:
        await asyncio.get_running_loop().run_in_executor(service.health_checks, _check_ready, service)
    except LmeraserError as error:
        raise Problem(503, "not-ready", error.message) from error
    return Health()


def _check_ready(service: Service) -> None:
    """Raises `LmeraserError` if requests cannot be accepted, or no prediction made, now or within the last second.

    Anybody may ask, as often as they like, and whatever is accepted meanwhile makes the quarantine be read anew.
    """
    if time.monotonic() < service.ready_until:
        return
    service.workspace.database.get_metadata("ledger")
    service.model_holder.check()
    service.ready_until = time.monotonic() + _READY_SECONDS


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **documented(401, 403, 429, 503),
    },
)
def metrics(call: Call, key: ReadKey) -> Response:
    """Get the metrics for Prometheus (scope `read`)."""
    return Response(service_of(call).metrics.text(), headers={"Content-Type": MEDIA_TYPE})

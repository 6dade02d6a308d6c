"""For those who run the service: is it alive, can it answer, what does it do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel
from starlette.responses import Response

from lmeraser.errors import LmeraserError
from lmeraser.service.access import needs
from lmeraser.service.problems import Problem, documented
from lmeraser.service.service import service_of
from lmeraser.workspace.api_keys import ApiKey

router = APIRouter(tags=["operation"])

Reading = Annotated[ApiKey, Depends(needs("read"))]
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    """That all is well."""

    status: str = "ok"


@router.get("/healthz")
def healthz() -> Health:
    """Tell that the process answers; needs no key."""
    return Health()


@router.get("/readyz", responses=documented(503))
def readyz(call: Call) -> Health:
    """Tell whether requests and predictions are answered; needs no key."""
    service = service_of(call)
    try:
        service.workspace.database.get_metadata("ledger")
        service.served.ready()
    except LmeraserError as error:
        raise Problem(503, "not-ready", error.message) from error
    return Health()


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        **documented(401, 403, 429, 503),
    },
)
def metrics(call: Call, key: Reading) -> Response:
    """Give what Prometheus collects (scope `read`)."""
    return Response(service_of(call).metrics.text(), headers={"Content-Type": MEDIA_TYPE})

"""The ASGI application: routes, middleware, and their OpenAPI description.

app = make_app(service)                      # the caller starts the service
app = make_app(service, [dashboard.router])  # with further routes, which use `access.require_scope`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from lmeraser._version import __version__
from lmeraser.errors import LmeraserError
from lmeraser.service.limits import MAX_FORM_BYTES, MAX_LOGIN_BYTES, BodySizeLimit, StartLimit
from lmeraser.service.logs import AccessLog
from lmeraser.service.opendsr_requests import ErasureRequest, ReceiptList
from lmeraser.service.problems import Problem, ProblemDetails, handle_exception
from lmeraser.service.routes import erasure, events, exports, listing, operation, people, planning, prediction
from lmeraser.service.routes.listing import RequestSearch
from lmeraser.service.routes.people import FindRequest, PayloadRequest, RecordsRequest, SubjectsRequest
from lmeraser.service.routes.planning import PlanRequest
from lmeraser.service.service import LOOKUP_THREADS, Service

_BYTES_PER_IDENTITY = 2048  # a generous bound for one identity in the body of a request

JSON_BODIES = (
    *(ErasureRequest, PlanRequest, FindRequest, SubjectsRequest, RecordsRequest, PayloadRequest),
    *(ReceiptList, RequestSearch),
)
ROUTERS = (
    *(listing.router, erasure.router, events.router, planning.router, people.router),
    *(prediction.router, exports.router, operation.router),
)

_DESCRIPTION = """
Exact unlearning over HTTP: deletion requests in the format of OpenDSR 2.0, and predictions that exclude the
clusters of records to be forgotten from the moment their request is accepted.

Authenticate with an API key, `Authorization: Bearer KEY`; `lmeraser keys create` creates one. The scopes are
`predict`, `submit`, `request`, `find`, `records`, `read`, `confirm`, and `admin`, which includes the others.
Errors are problem details (RFC 9457) and never repeat what was sent.
"""


def make_app(service: Service, more: Sequence[APIRouter] = ()) -> FastAPI:
    """The application over a service.

    Args:
        service: running, or started before the first call.
        more: further routes.
    """
    app = FastAPI(
        title="lmeraser",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy it would send callers, with their keys and names, to plain HTTP
    )
    app.state.service = service
    for router in (*ROUTERS, *more):
        app.include_router(router)
    for exception_type in (Problem, LmeraserError, RequestValidationError, HTTPException):
        app.add_exception_handler(exception_type, handle_exception)
    app.add_middleware(
        BodySizeLimit,
        max_bytes=service.config.max_names * _BYTES_PER_IDENTITY,
        max_bytes_by_path={
            "/predict": service.config.max_upload_mb << 20,
            "/ui/": MAX_FORM_BYTES,
            "/ui/login": MAX_LOGIN_BYTES,
        },
    )
    app.add_middleware(StartLimit, most=LOOKUP_THREADS // 2)  # so that no key takes all threads
    app.add_middleware(AccessLog, metrics=service.metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI description, with the schemas of problems and bodies, which no route declares to FastAPI."""
    if app.openapi_schema is None:
        description = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        problem = ProblemDetails.model_json_schema(
            ref_template="#/components/schemas/{model}", mode="serialization"
        )
        schemas = description.setdefault("components", {}).setdefault("schemas", {})
        schemas |= {**problem.pop("$defs", {}), "ProblemDetails": problem}
        for body in JSON_BODIES:
            schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**schema.pop("$defs", {}), body.__name__: schema}
        accepted, schemas_of_body = prediction.request_body(app.state.service)
        description["paths"]["/predict"]["post"]["requestBody"] = accepted
        schemas |= schemas_of_body
        app.openapi_schema = description
    return app.openapi_schema

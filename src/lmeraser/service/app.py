"""The application: routes, the layers around them, and their description (OpenAPI).

app = make_app(service)                      # an ASGI application; the caller starts the service
app = make_app(service, [dashboard.router])  # more routes; `access.needs` and `service_of` are theirs
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
from lmeraser.service.limits import BodyLimit
from lmeraser.service.logs import Logged
from lmeraser.service.problems import Problem, ProblemDetails, answer
from lmeraser.service.routes import erasure, events, operation, planning, prediction
from lmeraser.service.service import Service

_NAME_BYTES = 2048  # of one name in a request, generously

ROUTERS = (erasure.router, events.router, planning.router, prediction.router, operation.router)

_DESCRIPTION = """
Exact unlearning over HTTP: deletion requests in the shape of OpenDSR 2.0, and predictions that leave out what is
to be forgotten from the moment at which a request was accepted.

A call has a key, `Authorization: Bearer KEY`; `lmeraser keys create` makes one. Scopes: `predict`, `request`,
`read`, and `admin` for all of them. Errors are problem details (RFC 9457) and never repeat what was sent.
"""


def make_app(service: Service, more: Sequence[APIRouter] = ()) -> FastAPI:
    """The application over a service.

    Args:
        service: running, or started before the first call.
        more: further routes.
    """
    app = FastAPI(title="lmeraser", version=__version__, description=_DESCRIPTION, docs_url=None, redoc_url=None)
    app.state.service = service
    for router in (*ROUTERS, *more):
        app.include_router(router)
    for kind in (Problem, LmeraserError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)
    larger = {"/predict": service.config.max_upload_mb << 20}
    app.add_middleware(BodyLimit, most=service.config.max_names * _NAME_BYTES, larger=larger)
    app.add_middleware(Logged, metrics=service.metrics)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI with the schema of problems, which no route returns by its type."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas |= {**schema.pop("$defs", {}), "ProblemDetails": schema}
        app.openapi_schema = found
    return app.openapi_schema

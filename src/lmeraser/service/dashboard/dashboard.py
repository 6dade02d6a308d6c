"""The web pages, for people who file requests, follow them, and look after the model.

    app = make_app(service)
    add_dashboard(app)  # pages below /ui

They are rendered on the server, work without JavaScript, and load nothing from other hosts.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse, Response

from lmeraser.service.dashboard import (
    exports_page,
    filing,
    ledger_page,
    login,
    model_page,
    people_pages,
    request_pages,
)
from lmeraser.service.dashboard.pages import HOME, PageRoute
from lmeraser.service.dashboard.sessions import Sessions
from lmeraser.service.problems import Problem

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def add_dashboard(app: FastAPI) -> None:
    """Add the pages to a service's application."""
    app.state.sessions = Sessions()
    for module in (login, request_pages, filing, people_pages, model_page, exports_page, ledger_page):
        app.include_router(module.router)
    app.include_router(router)


@router.get("/")
def redirect_to_home() -> Response:
    """Redirect browsers, which start without a path, to the pages."""
    return RedirectResponse(HOME, 303)


@router.get(f"{HOME}/{{path:path}}")
def page_not_found(path: str) -> Response:
    """Any other path below the pages."""
    raise Problem(404, "not-found", "There is no such page")

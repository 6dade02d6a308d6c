"""The pages of the service, put together: for people who file requests, follow them, and look after the model.

    app = make_app(service)
    add_dashboard(app)        # pages below /ui

They are made on the server, work without JavaScript, and load nothing from elsewhere.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.responses import RedirectResponse, Response

from lmeraser.service.dashboard import filing, following, ledger_page, login, model_page
from lmeraser.service.dashboard.pages import HOME, PageRoute
from lmeraser.service.dashboard.sessions import Sessions
from lmeraser.service.problems import Problem

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def add_dashboard(app: FastAPI) -> None:
    """Add the pages to a service's application."""
    app.state.sessions = Sessions()
    for one in (login, following, filing, model_page, ledger_page):
        app.include_router(one.router)
    app.include_router(router)


@router.get("/")
def start() -> Response:
    """Who comes without a path is a person."""
    return RedirectResponse(HOME, 303)


@router.get(f"{HOME}/{{path:path}}")
def no_such_page(path: str) -> Response:
    """Everything else below the pages."""
    raise Problem(404, "not-found", "There is no page of this name.")

"""Page: the copies of the model outside, which of them are recalled, and the confirmation of one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import UUID4
from starlette.responses import RedirectResponse, Response

from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.pages import HOME, PageRoute, render
from lmeraser.service.routes.exports import find_export, submit_confirmation
from lmeraser.service.service import service_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
ConfirmUser = Annotated[User, Depends(require_scope("confirm"))]


@router.get(f"{HOME}/exports")
def list_exports(call: Call, user: ReadUser) -> Response:
    """List copies: recalled ones first, then those that may stay, then confirmed ones; the latest first."""
    order = {"recalled": 0, "clear": 1, "confirmed": 2}
    found = service_of(call).workspace.exports.all()[::-1]
    found.sort(key=lambda held: order[held.copy.state])
    return render(call, "exports.html", exports=found, may_confirm=user.key.may(["confirm"]))


@router.post(f"{HOME}/exports/{{export_id}}/confirm", dependencies=[Depends(check_csrf_token)])
def confirm_export(export_id: UUID4, call: Call, user: ConfirmUser) -> Response:
    """Note that a copy is deleted, as its holder confirmed."""
    service = service_of(call)
    find_export(service, str(export_id))
    submit_confirmation(service, str(export_id), user.key).result()
    return RedirectResponse(f"{HOME}/exports", 303)

"""Page: the ledger, and its reconciliation with the records."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.errors import VerificationError
from lmeraser.evidence.reconcile import LedgerReport
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.pages import HOME, PageRoute, render
from lmeraser.service.problems import Problem
from lmeraser.service.service import Service, service_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
_MAX_ENTRIES = 200  # on the page
_ATTEMPTS = 5  # at a check during which nothing is appended


@router.get(f"{HOME}/ledger")
def show_ledger(call: Call, user: ReadUser) -> Response:
    """Show the last entries; reading them verifies their hash chain."""
    return _render_ledger(call)


@router.post(f"{HOME}/ledger", dependencies=[Depends(check_csrf_token)])
def check_now(call: Call, user: ReadUser) -> Response:
    """Verify the hash chain, and that the records agree with the ledger."""
    return _render_ledger(call, _check(service_of(call)))


def _render_ledger(call: Call, report: LedgerReport | str | None = None) -> Response:
    ledger = service_of(call).workspace.ledger
    try:
        entries = ledger.entries()
    except VerificationError as error:
        return render(call, "ledger.html", entries=[], count=0, head=None, report=error.summary)
    return render(
        call,
        "ledger.html",
        entries=entries[: -_MAX_ENTRIES - 1 : -1],
        count=len(entries),
        head=ledger.head,
        report=report,
    )


def _check(service: Service) -> LedgerReport | str:
    """The report, or where the chain is broken."""
    for _ in range(_ATTEMPTS):
        try:
            report = service.eraser.check_ledger()
        except VerificationError as error:
            return error.summary
        if report.sound or report.head.entries == len(report.entries):
            return report
    raise Problem(503, "busy", "The ledger grows faster than it can be checked; try again later")

"""Page: the ledger, and checking it against the records."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.errors import VerificationError
from lmeraser.evidence.reconcile import LedgerReport
from lmeraser.service.dashboard.pages import HOME, PageRoute, page
from lmeraser.service.dashboard.visitors import Visitor, genuine, needs
from lmeraser.service.problems import Problem
from lmeraser.service.service import Service, service_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Reader = Annotated[Visitor, Depends(needs("read"))]
_SHOWN = 200  # entries
_TRIES = 5  # at a check during which nothing is noted


@router.get(f"{HOME}/ledger")
def ledger_page(call: Call, visitor: Reader) -> Response:
    """Show the last entries; their chain was checked when they were read."""
    return _page(call)


@router.post(f"{HOME}/ledger", dependencies=[Depends(genuine)])
def check_now(call: Call, visitor: Reader) -> Response:
    """Check the chain, and whether the records tell the same story."""
    return _page(call, _checked(service_of(call)))


def _page(call: Call, report: LedgerReport | str | None = None) -> Response:
    service = service_of(call)
    try:
        entries = service.workspace.ledger.entries()
    except VerificationError as error:
        return page(call, "ledger.html", entries=[], count=0, head=None, report=error.got)
    head = service.workspace.ledger.head
    return page(
        call, "ledger.html", entries=entries[: -_SHOWN - 1 : -1], count=len(entries), head=head, report=report
    )


def _checked(service: Service) -> LedgerReport | str:
    """What was found, or where the chain breaks."""
    for _ in range(_TRIES):
        try:
            report = service.eraser.check_ledger()
        except VerificationError as error:
            return error.got
        if report.sound or report.head.entries == len(report.entries):
            return report
    raise Problem(503, "busy", "Entries are noted faster than the ledger is checked; check again later.")

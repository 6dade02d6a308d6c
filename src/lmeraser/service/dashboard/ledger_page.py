"""Page: the ledger, and its reconciliation with the records."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.errors import VerificationError
from lmeraser.evidence.hash_chain import Entry
from lmeraser.evidence.reconcile import LedgerReport
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.listing import Page
from lmeraser.service.dashboard.pages import HOME, PageRoute, render
from lmeraser.service.dashboard.request_pages import download
from lmeraser.service.problems import Problem
from lmeraser.service.service import Service, service_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
_PAGE_SIZE = 100
KINDS = {
    "workspace": "workspace created",
    "added": "records imported",
    "relabelled": "labels changed",
    "request": "request accepted",
    "extended": "time for the answer extended",
    "cancelled": "request cancelled",
    "deleted": "records deleted",
    "completed": "request completed",
    "failed": "audit failed",
    "generation": "model published",
    "exported": "copy of the model made",
    "export_recalled": "copy recalled",
    "export_confirmed": "deletion of a copy confirmed",
    "restored": "restored from a backup",
}
WORDS = {  # of the contents; others are shown with spaces for underscores
    "by": "key",
    "commitments": "digest of their commitments",
    "deleted_before": "of these deleted before",
    "due": "due",
    "key": "signing key",
    "names": "names in it",
    "received": "received",
    "regulation": "law",
    "removed": "removed",
}
_ATTEMPTS = 5  # at a check during which nothing is appended


@router.get(f"{HOME}/ledger")
def show_ledger(
    call: Call,
    user: ReadUser,
    kind: Annotated[str, Query(max_length=40)] = "",
    request: Annotated[str, Query(max_length=36, pattern="^[0-9a-fA-F-]*$")] = "",
    page: Annotated[int, Query(ge=1, le=10_000_000)] = 1,
) -> Response:
    """Show entries, the last ones first; reading them verifies their hash chain.

    Args:
        call: to answer.
        user: who may read.
        kind: only entries of this kind.
        request: only entries about the request whose id begins so.
        page: which page.
    """
    return _render_ledger(call, kind=kind if kind in KINDS else "", request=request.lower(), page=page)


@router.post(f"{HOME}/ledger", dependencies=[Depends(check_csrf_token)])
def check_now(call: Call, user: ReadUser) -> Response:
    """Verify the hash chain, and that the records agree with the ledger."""
    return _render_ledger(call, _check(service_of(call)))


@router.get(f"{HOME}/ledger.{{suffix}}")
def export_ledger(suffix: Literal["csv", "json"], call: Call, user: ReadUser) -> Response:
    """Download all entries; `lmeraser verify --ledger` takes the ledger's own file instead."""
    entries = service_of(call).workspace.ledger.entries()
    if suffix == "json":
        return download([json.loads(entry.line()) for entry in entries], "ledger", "json")
    rows = [
        {
            "entry": entry.position,
            "time": entry.time,
            "kind": entry.kind,
            "content": json.dumps(entry.body, sort_keys=True),
            "digest": str(entry.digest),
        }
        for entry in entries
    ]
    return download(rows, "ledger", "csv")


def _render_ledger(
    call: Call, report: LedgerReport | str | None = None, *, kind: str = "", request: str = "", page: int = 1
) -> Response:
    ledger = service_of(call).workspace.ledger
    entries: list[Entry] = []
    head = None
    try:
        entries = ledger.entries()
        head = ledger.head
    except VerificationError as error:
        report = error.summary
    chosen = [
        entry
        for entry in reversed(entries)
        if kind in ("", entry.kind) and (not request or _about(entry, request))
    ]
    return render(
        call,
        "ledger.html",
        page=Page.of(chosen, page, _PAGE_SIZE),
        count=len(entries),
        head=head,
        report=report,
        kind=kind,
        request=request,
        kinds=KINDS,
        words=WORDS,
    )


def _about(entry: Entry, request: str) -> bool:
    """Whether an entry names a request whose id begins so."""
    named = [entry.body.get("request", ""), *entry.body.get("requests", [])]
    return any(str(one).startswith(request) for one in named)


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

"""Pages: file a request. First what it would do and cost; then, confirmed, it is accepted.

Names travel in the bodies of forms only, never in an address. The request's id is made with the plan, so that
confirming twice files one request.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi import Request as Call
from pydantic import UUID4, ValidationError
from starlette.responses import RedirectResponse, Response

from lmeraser.core.time import to_text
from lmeraser.errors import InputError, NoModelError, UnknownRecordError
from lmeraser.service.dashboard.pages import HOME, PageRoute, page
from lmeraser.service.dashboard.visitors import Visitor, genuine, needs
from lmeraser.service.problems import Problem, invalid
from lmeraser.service.routes import erasure
from lmeraser.service.routes.planning import planned
from lmeraser.service.service import Service, service_of
from lmeraser.service.wire import ErasureRequest
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.state import Regulation, parse_id

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Filer = Annotated[Visitor, Depends(needs("request"))]
LAWS = {"gdpr": "GDPR", "ccpa": "CCPA", "other": "another law, or none"}


@dataclass(frozen=True)
class Filled:
    """The form, as it was filled in.

    Attributes:
        subjects: people, one a line.
        ids: records, one a line.
        regulation: which law it appeals to.
        asked: the day on which the person asked; '' for today.
        audit: whether the model is to be audited.
    """

    subjects: str = ""
    ids: str = ""
    regulation: Regulation = "gdpr"
    asked: str = ""
    audit: bool = False

    def wanted(self, request_id: str, now: datetime, service: Service) -> ErasureRequest:
        """The request as it goes over the wire.

        Raises:
            Problem: it names nothing, or the form was filled in otherwise than it can be.
        """
        named = [("controller_customer_id", self.subjects), ("lmeraser_record_id", self.ids)]
        identities = [
            {"identity_type": kind, "identity_value": name, "identity_format": "raw"}
            for kind, text in named
            for name in _lines(text)
        ]
        if not identities:
            raise Problem(400, "input", "Name a person or a record, one a line.")
        values = {
            "regulation": self.regulation,
            "subject_request_id": request_id,
            "subject_request_type": "erasure",
            "submitted_time": to_text(self._submitted(now)),
            "subject_identities": identities,
            "extensions": {"lmeraser": {"audit": self.audit}},
        }
        try:
            wanted = ErasureRequest.model_validate(values)
        except ValidationError as error:
            raise invalid(error.errors()) from None
        erasure.check(wanted, service)
        return wanted

    def _submitted(self, now: datetime) -> datetime:
        try:
            day = datetime.combine(date.fromisoformat(self.asked), time(tzinfo=UTC)) if self.asked else now
        except ValueError:
            raise Problem(400, "input", "A day is written as 2026-01-31.") from None
        if day > now:
            raise Problem(400, "input", "The day on which somebody asked is not in the future.")
        return day


def filled(
    subjects: Annotated[str, Form()] = "",
    ids: Annotated[str, Form()] = "",
    regulation: Annotated[Regulation, Form()] = "gdpr",
    asked: Annotated[str, Form(max_length=20)] = "",
    audit: Annotated[bool, Form()] = False,
) -> Filled:
    """A dependency: the form that was sent."""
    return Filled(subjects, ids, regulation, asked, audit)


Sent = Annotated[Filled, Depends(filled)]


@router.get(f"{HOME}/file")
def empty_form(call: Call, visitor: Filer) -> Response:
    """The form, empty."""
    return _form(call, Filled())


@router.post(f"{HOME}/file/change", dependencies=[Depends(genuine)])
def change(call: Call, visitor: Filer, sent: Sent) -> Response:
    """The form, as it was filled in."""
    return _form(call, sent)


@router.post(f"{HOME}/file/plan", dependencies=[Depends(genuine)])
def plan(call: Call, visitor: Filer, sent: Sent) -> Response:
    """What the request would do, cost, and until when it would be due; nothing is filed."""
    service, now, request_id = service_of(call), service_of(call).workspace.clock(), str(uuid.uuid4())
    try:
        draft = sent.wanted(request_id, now, service).draft(now)
        found = _plan(service, draft.selector)
    except Problem as problem:
        return _form(call, sent, problem.detail, code=problem.status)
    except InputError as error:
        return _form(call, sent, error.summary, code=422)
    due = draft.due(service.workspace.config.requests, now=now)
    return page(
        call, "plan.html", filled=sent, selector=draft.selector, plan=found, due=to_text(due), request_id=request_id, laws=LAWS
    )


@router.post(f"{HOME}/file", dependencies=[Depends(genuine)])
def confirm(call: Call, visitor: Filer, sent: Sent, request_id: Annotated[UUID4, Form()]) -> Response:
    """File the request; it is on the disk, and quarantined, when this answers."""
    service = service_of(call)
    wanted = sent.wanted(str(request_id), service.workspace.clock(), service)
    try:
        erasure.filed(service, wanted).result()
    except UnknownRecordError as error:
        return _form(call, sent, error.summary, code=422)
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.post(f"{HOME}/find", dependencies=[Depends(genuine)])
def find(call: Call, visitor: Filer, request_id: Annotated[str, Form(max_length=50)] = "") -> Response:
    """Go to a request by its id, for those who may not list them all."""
    try:
        request = erasure.found(service_of(call), parse_id(request_id.strip()))
    except (InputError, Problem):
        return _form(call, Filled(), "No request with this id was filed here.", code=404)
    return RedirectResponse(f"{HOME}/requests/{request.id}", 303)


def _form(call: Call, sent: Filled, fault: str = "", *, code: int = 200) -> Response:
    today = service_of(call).workspace.clock().date().isoformat()
    return page(call, "file.html", code=code, filled=sent, fault=fault, laws=LAWS, today=today)


def _plan(service: Service, selector: Selector) -> Plan | str:
    """The plan, or why there is none."""
    try:
        return planned(service, selector)
    except NoModelError as error:
        return error.message


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))

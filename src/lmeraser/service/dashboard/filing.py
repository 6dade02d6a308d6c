"""Pages: file a request. First its plan is shown; once confirmed, it is accepted.

Names are sent in the bodies of forms only, never in an address. The request's id is generated with the plan, so
that confirming twice files one request.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import APIRouter, Depends, Form
from fastapi import Request as Call
from pydantic import UUID4, ValidationError
from starlette.responses import RedirectResponse, Response

from lmeraser.core.console import format_duration
from lmeraser.core.time import to_text
from lmeraser.data.name_lookup import NearMiss
from lmeraser.errors import InputError, NoModelError, UnknownRecordError
from lmeraser.service.bodies import check_identity_count
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.pages import HOME, PageRoute, render, time_left
from lmeraser.service.dashboard.request_pages import REGULATIONS
from lmeraser.service.opendsr_requests import ErasureRequest
from lmeraser.service.problems import Problem, invalid
from lmeraser.service.routes import erasure
from lmeraser.service.routes.planning import PLAN_TOKENS, plan_deletion
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.requests.draft import FARTHEST, LONGEST_REFERENCE, Selector
from lmeraser.workspace.requests.selection import near_misses
from lmeraser.workspace.requests.state import Regulation, parse_id, urgency

router = APIRouter(route_class=PageRoute, include_in_schema=False)

RequestUser = Annotated[User, Depends(require_scope("request"))]


@dataclass(frozen=True)
class RequestForm:
    """The form as the user filled it in.

    Attributes:
        subjects: names of subjects, one per line.
        ids: record ids, one per line.
        regulation: under which the request is made.
        asked: the day on which the subject made the request; '' for today.
        audit: whether to audit the model.
        with_duplicates: whether to delete the other records with the same payload, too.
        reference: the desk's own name for the request.
        now: whether to carry it out without the grace period.
    """

    subjects: str = ""
    ids: str = ""
    regulation: Regulation = "gdpr"
    asked: str = ""
    audit: bool = False
    with_duplicates: bool = False
    reference: str = ""
    now: bool = False

    def to_request(self, request_id: str, now: datetime, service: Service) -> ErasureRequest:
        """The request in the format of the API.

        Raises:
            Problem: the form is empty or invalid.
        """
        fields = [("controller_customer_id", self.subjects), ("lmeraser_record_id", self.ids)]
        identities = [
            {"identity_type": identity_type, "identity_value": name, "identity_format": "raw"}
            for identity_type, text in fields
            for name in _lines(text)
        ]
        if not identities:
            raise Problem(400, "input", "Enter at least one person or record, one per line")
        check_identity_count(len(identities), service)
        values = {
            "regulation": self.regulation,
            "subject_request_id": request_id,
            "subject_request_type": "erasure",
            "submitted_time": to_text(self._submitted(now)),
            "subject_identities": identities,
            "extensions": {
                "lmeraser": {
                    "audit": self.audit,
                    "with_duplicates": self.with_duplicates,
                    "reference": self.reference.strip() or None,
                    "now": self.now,
                }
            },
        }
        try:
            request = ErasureRequest.model_validate(values)
        except ValidationError as error:
            raise invalid(error.errors()) from None
        erasure.check_supported(request, service)
        return request

    def _submitted(self, now: datetime) -> datetime:
        try:
            day = datetime.combine(date.fromisoformat(self.asked), time(tzinfo=UTC)) if self.asked else now
        except ValueError:
            raise Problem(400, "input", "Invalid date; enter it as in 2026-01-31") from None
        if day > now + FARTHEST:  # a day that has begun somewhere is not in the future
            raise Problem(400, "input", "The day of the request is in the future")
        return day


def read_form(
    subjects: Annotated[str, Form()] = "",
    ids: Annotated[str, Form()] = "",
    regulation: Annotated[Regulation, Form()] = "gdpr",
    asked: Annotated[str, Form(max_length=20)] = "",
    audit: Annotated[bool, Form()] = False,
    with_duplicates: Annotated[bool, Form()] = False,
    reference: Annotated[str, Form(max_length=LONGEST_REFERENCE)] = "",
    now: Annotated[bool, Form()] = False,
) -> RequestForm:
    """A dependency: the submitted form."""
    return RequestForm(subjects, ids, regulation, asked, audit, with_duplicates, reference, now)


SubmittedForm = Annotated[RequestForm, Depends(read_form)]


@router.get(f"{HOME}/file")
def show_empty_form(call: Call, user: RequestUser) -> Response:
    """Show an empty form."""
    return _render_form(call, RequestForm())


@router.post(f"{HOME}/file/change", dependencies=[Depends(check_csrf_token)])
def change(call: Call, user: RequestUser, form: SubmittedForm) -> Response:
    """Show the form again, as it was filled in."""
    return _render_form(call, form)


@router.post(f"{HOME}/file/plan", dependencies=[Depends(check_csrf_token)])
def plan(call: Call, user: RequestUser, form: SubmittedForm) -> Response:
    """Show what the request would do and cost, and when it would be due; files nothing."""
    service = service_of(call)
    service.rate_limiter.take(user.key.id, PLAN_TOKENS)
    now = service.workspace.clock()
    request_id = str(uuid.uuid4())
    form = replace(form, asked=form.asked or now.date().isoformat())  # "today" is today, whenever it is confirmed
    try:
        draft = form.to_request(request_id, now, service).draft()
        found = service.planner.run_blocking(user.key.id, _plan, service, draft.selector)
        misses = _near_misses(service, draft.selector, found)
    except Problem as problem:
        return _render_form(call, form, problem.detail, code=problem.status)
    except InputError as error:
        return _render_form(call, form, error.summary, code=422)
    due = draft.due(service.workspace.config.requests, now=now)
    return render(
        call,
        "plan.html",
        form=form,
        selector=draft.selector,
        plan=found,
        near_misses=misses,
        due=to_text(due),
        urgency=urgency(due, now),
        time_text=time_left(to_text(due), now)[1],
        request_id=request_id,
        regulations=REGULATIONS,
        grace=format_duration(0 if form.now else int(service.config.grace_period)),
    )


@router.post(f"{HOME}/file", dependencies=[Depends(check_csrf_token)])
def confirm(call: Call, user: RequestUser, form: SubmittedForm, request_id: Annotated[UUID4, Form()]) -> Response:
    """File the request; when this responds, it is on disk, and its records are quarantined."""
    service = service_of(call)
    request = form.to_request(str(request_id), service.workspace.clock(), service)
    try:
        erasure.submit_request(service, request, user.key).result()
    except UnknownRecordError as error:
        return _render_form(call, form, error.summary, code=422)
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.post(f"{HOME}/find", dependencies=[Depends(check_csrf_token)])
def find(call: Call, user: RequestUser, request_id: Annotated[str, Form(max_length=50)] = "") -> Response:
    """Go to a request by its id, for users who may not list requests."""
    try:
        request = erasure.find_request(service_of(call), parse_id(request_id.strip()))
    except (InputError, Problem):
        return _render_form(call, RequestForm(), "Request not found", code=404)
    return RedirectResponse(f"{HOME}/requests/{request.id}", 303)


def _render_form(call: Call, form: RequestForm, error: str = "", *, code: int = 200) -> Response:
    latest = (service_of(call).workspace.clock() + FARTHEST).date().isoformat()
    return render(call, "file.html", code=code, form=form, error=error, regulations=REGULATIONS, latest=latest)


def _plan(service: Service, selector: Selector) -> Plan | str:
    """The plan, or why there is none."""
    try:
        return plan_deletion(service, selector)
    except NoModelError as error:
        return error.message


def _near_misses(service: Service, selector: Selector, plan: Plan | str) -> tuple[NearMiss, ...]:
    """Names that look like those of the request, also where there is no plan."""
    return plan.near_misses if isinstance(plan, Plan) else near_misses(service.workspace.records, selector)


def _lines(text: str) -> list[str]:
    """The names in a field: every line is one, as it is written; lines of white space are none."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    return list(dict.fromkeys(line for line in lines if line.strip()))

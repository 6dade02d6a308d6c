"""Route: the effect and cost of a deletion, before it is filed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel, ConfigDict, Field

from lmeraser.data.name_lookup import NameKind
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import check_times, json_body, json_body_schema
from lmeraser.service.opendsr_requests import (
    MAX_IDENTITIES,
    Extensions,
    Identity,
    Moment,
    RequestModel,
    selector_of,
)
from lmeraser.service.problems import documented, name_fields_in_problems
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.dry_run import dry_run
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.state import Regulation, Urgency

router = APIRouter(tags=["deletion requests"])

PLAN_TOKENS = 10  # of the rate limit, besides the call's: a plan takes much more time than other calls
_admit = require_scope("request")
RequestKey = Annotated[ApiKey, Depends(_admit)]


@name_fields_in_problems
class PlanRequest(RequestModel):
    """The identities whose deletion is to be planned, and what the due time depends on.

    Attributes:
        subject_identities: what would be erased.
        regulation: under which the request would be made.
        submitted_time: when the subject made the request; left out: now.
        extensions: as of a deletion request.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "subject_identities": [
                        {
                            "identity_type": "lmeraser_record_id",
                            "identity_value": "cat/0001.jpg",
                            "identity_format": "raw",
                        }
                    ]
                }
            ]
        }
    )

    subject_identities: list[Identity] = Field(min_length=1, max_length=MAX_IDENTITIES)
    regulation: Regulation = "other"
    submitted_time: Moment | None = None
    extensions: Extensions = Extensions()

    def draft(self) -> RequestDraft:
        """The draft of the request that is planned."""
        return RequestDraft(
            selector=selector_of(self.subject_identities, duplicates=self.extensions.lmeraser.with_duplicates),
            regulation=self.regulation,
            asked=self.submitted_time,
        )


class AffectedCluster(BaseModel):
    """A cluster that loses records."""

    cluster: int
    records_before: int
    records_forgotten: int


class NearMiss(BaseModel):
    """A name that is held and looks like a name of the request, but is not selected."""

    kind: NameKind
    given: str
    held: str


class PlanResponse(BaseModel):
    """The effect and cost of a deletion; see `plan.Plan`."""

    records: int
    already_deleted: int
    sample_hit: bool
    affected: list[AffectedCluster]
    clusters_to_tune: int
    records_to_tune: int
    share_to_tune: float
    estimated_seconds: float | None
    expected_share: float
    near_misses: list[NearMiss] = []
    duplicates: int
    near_duplicates: int | None
    duplicates_selected: int
    due: str | None
    urgency: Urgency | None
    open_requests: list[str] = []
    emptied_classes: list[str] = []


@router.post(
    "/plan",
    summary="Plan a deletion",
    response_model=PlanResponse,
    openapi_extra=json_body_schema(PlanRequest),
    responses=documented(400, 401, 403, 408, 413, 422, 429, 503),
)
async def plan(
    body: Annotated[PlanRequest, Depends(json_body(PlanRequest, _admit))], call: Call, key: RequestKey
) -> PlanResponse:
    """Estimate the effect and cost of a deletion; changes nothing (scope `request`)."""
    service = service_of(call)
    service.rate_limiter.take(key.id, PLAN_TOKENS)
    draft = body.draft()
    check_times(draft, service)
    found = await service.planner.run(key.id, plan_deletion, service, draft.selector)
    now = service.workspace.clock()
    found = found.with_due(draft.due(service.workspace.config.requests, now=now), now=now)
    return PlanResponse.model_validate(found.to_json(), from_attributes=True)


def plan_deletion(service: Service, selector: Selector) -> Plan:
    """The plan of a deletion. Raises as `dry_run.dry_run`."""
    # Stored features only: computing others would take the backbone from predictions.
    return dry_run(service.eraser.session, selector, compute_features=False, near_duplicates=True)

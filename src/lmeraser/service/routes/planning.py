"""Route: the effect and cost of a deletion, before it is filed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel, ConfigDict, Field

from lmeraser.data.name_lookup import NameKind
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import json_body, json_body_schema
from lmeraser.service.opendsr_requests import MAX_IDENTITIES, Identity, selector_of
from lmeraser.service.problems import documented, name_fields_in_problems
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.dry_run import dry_run
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.draft import Selector

router = APIRouter(tags=["deletion requests"])

_admit = require_scope("request")
RequestKey = Annotated[ApiKey, Depends(_admit)]


@name_fields_in_problems
class PlanRequest(BaseModel):
    """The identities whose deletion is to be planned."""

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
    selector = selector_of(body.subject_identities)
    found = await service.planner.run(key.id, plan_deletion, service, selector)
    return PlanResponse.model_validate(found.to_json(), from_attributes=True)


def plan_deletion(service: Service, selector: Selector) -> Plan:
    """The plan of a deletion. Raises as `dry_run.dry_run`."""
    # Stored features only: computing others would take the backbone from predictions.
    return dry_run(service.eraser.session, selector, compute_features=False)

"""What a deletion would cost, before anybody files it."""

from __future__ import annotations

from typing import Annotated, NoReturn

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel, ConfigDict, Field

from lmeraser.errors import NoModelError
from lmeraser.service.access import needs
from lmeraser.service.problems import Problem, documented, knows_fields
from lmeraser.service.service import Service, service_of
from lmeraser.service.wire import Identity, selector_of
from lmeraser.unlearning.dry_run import dry_run
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.draft import Selector

router = APIRouter(tags=["deletion requests"])

Filing = Annotated[ApiKey, Depends(needs("request"))]


@knows_fields
class PlanRequest(BaseModel):
    """Whose deletion is to be planned."""

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

    subject_identities: list[Identity] = Field(min_length=1)


class Affected(BaseModel):
    """A cluster whose members change."""

    cluster: int
    records_before: int
    records_forgotten: int


class Planned(BaseModel):
    """What a deletion would do; see `plan.Plan`."""

    records: int
    already_deleted: int
    sample_hit: bool
    affected: list[Affected]
    clusters_to_tune: int
    records_to_tune: int
    share_to_tune: float
    estimated_seconds: float | None
    expected_share: float


@router.post("/plan", response_model=Planned, responses=documented(400, 401, 403, 413, 422, 429, 503))
def plan(wanted: PlanRequest, call: Call, key: Filing) -> Planned:
    """Tell what a deletion would do and cost; changes nothing (scope `request`)."""
    service = service_of(call)
    if len(wanted.subject_identities) > service.config.max_names:
        raise Problem(422, "too-many", f"A request names at most {service.config.max_names} identities.")
    found = planned(service, selector_of(wanted.subject_identities))
    return Planned.model_validate(found.to_json(), from_attributes=True)


def planned(service: Service, selector: Selector) -> Plan:
    """The plan of a request. Raises as `dry_run.dry_run`."""
    return dry_run(service.workspace, _nobody, selector)


def _nobody() -> NoReturn:
    """Features that a plan needs are stored; the backbone is for predictions."""
    raise NoModelError("A plan needs the features of all records.", next_step="run 'lmeraser train'")

"""Page: the served model with a map of its clusters, its accuracy, and earlier generations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.core.tensors import from_bytes
from lmeraser.evidence.entries import GenerationPublished, events_of
from lmeraser.inference.summary import load_summary
from lmeraser.models.manifest import Model
from lmeraser.service.dashboard.authorization import User, require_scope
from lmeraser.service.dashboard.cluster_map import HEIGHT, WIDTH, ClusterCircle, cluster_map
from lmeraser.service.dashboard.pages import HOME, PageRoute, render
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.status import status

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
_MAX_GENERATIONS = 50  # on the page


@router.get(f"{HOME}/model")
def show_model(call: Call, user: ReadUser) -> Response:
    """Show the served model."""
    service = service_of(call)
    workspace = service.workspace
    model = workspace.generations.current()
    generations = list(events_of(workspace.ledger.entries(), GenerationPublished))
    return render(
        call,
        "model.html",
        model=model,
        status=status(workspace),
        circles=_cluster_circles(service, model) if model is not None else [],
        quarantined=service.eraser.quarantined() if model is not None else frozenset(),
        evaluation=load_summary(workspace.reports, model.model_digest) if model is not None else None,
        generations=generations[: -_MAX_GENERATIONS - 1 : -1],
        size=(WIDTH, HEIGHT),
    )


def _cluster_circles(service: Service, model: Model) -> list[ClusterCircle]:
    """The map of the clusters; empty if the generation was superseded and purged meanwhile."""
    if not model.tuned:
        return []
    try:
        fitted = from_bytes(service.workspace.store.read(model.partition.artifact))
    except FileNotFoundError:
        return []
    return cluster_map(model.clusters, fitted)

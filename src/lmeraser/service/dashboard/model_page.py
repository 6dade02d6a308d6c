"""Page: the served model, its clusters as a picture, how well it classifies, and the generations before it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.core.tensors import from_bytes
from lmeraser.evidence.entries import GenerationPublished, events_of
from lmeraser.inference.evaluate import kept
from lmeraser.models.manifest import Model
from lmeraser.service.dashboard.cluster_map import HEIGHT, WIDTH, Dot, cluster_map
from lmeraser.service.dashboard.pages import HOME, PageRoute, page
from lmeraser.service.dashboard.visitors import Visitor, needs
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.status import status

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Reader = Annotated[Visitor, Depends(needs("read"))]
_SHOWN = 50  # generations


@router.get(f"{HOME}/model")
def model_page(call: Call, visitor: Reader) -> Response:
    """Show the served model."""
    service = service_of(call)
    workspace = service.workspace
    model = workspace.generations.current()
    told = list(events_of(workspace.ledger.entries(), GenerationPublished))
    return page(
        call,
        "model.html",
        model=model,
        status=status(workspace),
        dots=_dots(service, model) if model is not None else [],
        quarantined=service.eraser.quarantined() if model is not None else frozenset(),
        evaluation=kept(workspace.reports, model.model_digest) if model is not None else None,
        generations=told[: -_SHOWN - 1 : -1],
        size=(WIDTH, HEIGHT),
    )


def _dots(service: Service, model: Model) -> list[Dot]:
    """Where clusters are in the picture; none if it was superseded and purged meanwhile."""
    if not model.tuned:
        return []
    try:
        fitted = from_bytes(service.workspace.store.read(model.partition.artifact))
    except FileNotFoundError:
        return []
    return cluster_map(model.clusters, fitted)

"""All pictures of the served model of a workspace, and of requests over time. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from lmeraser.inference.summary import load_summary
from lmeraser.workspace.class_figures import draw_class_sizes, draw_confusion, draw_plane, draw_requests
from lmeraser.workspace.figures import draw_clusters, draw_sizes
from lmeraser.workspace.workspace import Workspace


def draw_model(workspace: Workspace, *, has_pictures: bool) -> list[Path]:
    """Draw what there is to see into the folder of reports; the caller holds the writer's lock.

    Args:
        workspace: with a served model.
        has_pictures: whether records can be shown as pictures.

    Returns:
        The files.

    Raises:
        NoModelError: nothing is served yet.
    """
    model = workspace.generations.require()
    reports = workspace.reports
    drawn: list[Path] = []
    if has_pictures:
        drawn.append(reports / "clusters.png")
        draw_clusters(workspace, model, drawn[-1])
    if len(model.clusters) > 1:
        drawn.append(reports / "sizes.png")
        draw_sizes(model, drawn[-1])
    if draw_plane(workspace, model, reports / "plane.png"):
        drawn.append(reports / "plane.png")
    if model.classes:
        drawn.append(reports / "classes.png")
        draw_class_sizes(workspace, model, drawn[-1])
    summary = load_summary(reports, model.model_digest)
    if summary is not None and len(summary.confusion) == len(model.classes):
        drawn.append(reports / "confusion.png")
        draw_confusion(summary.confusion, model.classes, drawn[-1])
    drawn.append(reports / "requests.png")
    draw_requests(workspace.ledger.entries(), drawn[-1])
    return drawn

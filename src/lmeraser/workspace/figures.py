"""Figures of a model: one row of images per cluster (as the paper's Figure 9), and the sizes of the clusters.

The first shows private records: a copy outside the workspace has to be deleted when one of them is unlearned.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from lmeraser.core.atomic_files import make_private_folder, open_private, storage_errors
from lmeraser.data.modalities import payload_format
from lmeraser.models.manifest import Model
from lmeraser.workspace.workspace import Workspace

_SIDE = 48  # pixels of one image in the figure
_CELL = 54  # pixels from one image to the next
_PER_CLUSTER = 12
_MAX_ROWS = 60


def draw_clusters(workspace: Workspace, model: Model, path: Path) -> None:
    """Write a PNG with one row per cluster of the served model, each with some of its members."""
    write_figure(clusters_png(workspace, model), path)


def clusters_png(workspace: Workspace, model: Model) -> bytes:
    """The PNG of `draw_clusters`; of many clusters, the largest. A single cluster is shown class by class."""
    if len(model.clusters) == 1:
        numbers = {record.id: record.label for record in workspace.records.index()}
    else:
        numbers = model.cluster_numbers(workspace.records.derived.trie_keys(model.partition.key))
    rows: dict[int, list[str]] = {}
    for record_id, number in sorted(numbers.items()):
        rows.setdefault(number, []).append(record_id)
    payloads = payload_format(workspace.config)
    largest = sorted(sorted(rows.items(), key=lambda row: (-len(row[1]), row[0]))[:_MAX_ROWS])
    height = max(1, len(largest))
    # One picture of all: an axis for each record's would take seconds to lay out.
    mosaic = np.full((height * _CELL, _PER_CLUSTER * _CELL, 3), 255, np.uint8)
    for row, (_, ids) in enumerate(largest):
        for column, data in enumerate(workspace.records.payloads(ids[:_PER_CLUSTER])):
            top, left = row * _CELL, column * _CELL
            mosaic[top : top + _SIDE, left : left + _SIDE] = payloads.picture(data, _SIDE)
    figure = figure_of(_PER_CLUSTER * 0.5 + 1.2, height * 0.5)
    axis = figure.subplots()
    axis.imshow(mosaic)
    for row, (number, ids) in enumerate(largest):
        name = model.classes[number] if len(model.clusters) == 1 else number
        axis.text(-_SIDE / 3, row * _CELL + _SIDE / 2, f"{name}: {len(ids)}", ha="right", va="center")
    axis.set_axis_off()
    return png_of(figure)


def draw_sizes(model: Model, path: Path) -> None:
    """Write a PNG with a bar for each cluster's number of records, the largest first."""
    sizes = sorted((cluster.records for cluster in model.clusters), reverse=True)
    figure = figure_of(7, 3)
    axis = figure.subplots()
    axis.bar(range(len(sizes)), sizes)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("clusters, largest first")
    axis.set_ylabel("records")
    axis.set_title(
        f"{model.records} records in {len(sizes)} clusters; "
        f"a uniform request re-tunes {model.expected_share:.1%} on average"
    )
    write_figure(png_of(figure), path)


def figure_of(width: float, height: float) -> Any:
    """An empty figure of matplotlib, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Any) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def write_figure(data: bytes, path: Path) -> None:
    """Write a picture into a folder that others cannot read."""
    with storage_errors(path):
        make_private_folder(path.parent)
        with open_private(path, "wb") as file:
            file.write(data)

"""Figures of classes, evaluations and requests: a plane, records by class, confusion, reliability, history.

Figures of records are private, as those of `figures`: a copy outside the workspace has to be deleted when one of
them is unlearned. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import order
from lmeraser.core.sufficient_statistics import dequantize, stack_quantized
from lmeraser.core.tensors import from_bytes
from lmeraser.core.time import from_text
from lmeraser.evidence.entries import (
    GenerationPublished,
    RecordsDeleted,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry
from lmeraser.models.manifest import Model
from lmeraser.workspace.figures import figure_of, png_of, write_figure
from lmeraser.workspace.workspace import Workspace

_MOST_POINTS = 2000
_MOST_NAMES = 40
_DAY = timedelta(days=1)


def draw_plane(workspace: Workspace, model: Model, path: Path) -> bool:
    """Write a PNG of records on the plane on which the global head separates the classes best.

    The head's scores of up to 2,000 records (chosen by a hash of their ids) are projected by linear discriminant
    analysis to two dimensions, one for two classes.

    Returns:
        False, and nothing is drawn, where there is no global head or fewer than two classes have records.
    """
    if model.global_head is None:
        return False
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    labels_of = {record.id: record.label for record in workspace.records.index()}
    ids = sorted(order(0, "draw", labels_of)[:_MOST_POINTS])
    labels = np.array([labels_of[record_id] for record_id in ids])
    present = np.unique(labels)
    if len(present) < 2 or len(ids) <= len(present):
        return False
    weight = from_bytes(workspace.store.read(model.global_head.artifact))["weight"]
    vectors = dequantize(stack_quantized(workspace.records.statistics.quantized_embeddings(ids)))
    scores = vectors @ weight[present].T
    projection = LinearDiscriminantAnalysis(n_components=min(2, len(present) - 1), solver="eigen", shrinkage=0.1)
    points = projection.fit(scores.astype(np.float64), labels).transform(scores)
    if points.shape[1] == 1:  # two classes: the second axis only spreads the points
        points = np.column_stack([points[:, 0], np.linspace(-1, 1, len(points))])
    _scatter(points, labels, [model.classes[label] for label in present], present, path)
    return True


def _scatter(
    points: NDArray[np.floating],
    labels: NDArray[np.int64],
    names: list[str],
    present: NDArray[np.int64],
    path: Path,
) -> None:
    figure = figure_of(8, 6)
    axis = figure.subplots()
    colours = _colours(len(names))
    for name, label, colour in zip(names, present, colours, strict=True):
        own = points[labels == label]
        axis.scatter(own[:, 0], own[:, 1], s=6, color=colour, alpha=0.5, linewidths=0)
        if len(names) <= _MOST_NAMES:
            middle = np.median(own, axis=0)
            axis.text(*middle, _short(name), fontsize="small", ha="center", va="center", fontweight="bold")
    axis.set_xlabel("first discriminant")
    axis.set_ylabel("second discriminant")
    axis.set_title(f"{len(points)} records of {len(names)} classes, where the global head separates them best")
    write_figure(png_of(figure), path)


def draw_class_sizes(workspace: Workspace, model: Model, path: Path) -> None:
    """Write a PNG with a bar for each class: its records, the largest first."""
    counts = np.bincount([record.label for record in workspace.records.index()], minlength=len(model.classes))
    ranked = sorted(range(len(model.classes)), key=lambda label: (-int(counts[label]), label))
    shown = ranked[:_MOST_NAMES]
    figure = figure_of(7, 1 + 0.22 * max(1, len(shown)))
    axis = figure.subplots()
    axis.barh([_short(model.classes[label]) for label in shown], [int(counts[label]) for label in shown])
    axis.invert_yaxis()
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("records")
    left_out = len(ranked) - len(shown)
    more = f"; the largest {len(shown)}" if left_out else ""
    axis.set_title(f"{int(counts.sum())} records in {len(ranked)} classes{more}")
    write_figure(png_of(figure), path)


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Write a PNG of a confusion matrix.

    Args:
        confusion: how many records of each class, by row, were taken for each class, by column.
        classes: their names.
        path: of the file.
    """
    counts = np.array(confusion, dtype=np.float64).reshape(len(classes), len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(14.0, 3.5 + 0.16 * len(classes))
    figure = figure_of(side, side)
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axis, shrink=0.7, label="share of the row's class")
    places = range(len(classes))
    if len(classes) <= _MOST_NAMES:
        axis.set_xticks(places, [_short(name) for name in classes], rotation=90, fontsize="x-small")
        axis.set_yticks(places, [_short(name) for name in classes], fontsize="x-small")
    if len(classes) <= 12:
        for row in places:
            for column in places:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, int(counts[row, column]), ha="center", va="center", color=colour)
    axis.set_xlabel("predicted")
    axis.set_ylabel("label")
    right = float(np.trace(counts) / max(counts.sum(), 1))
    axis.set_title(f"{int(counts.sum())} records, accuracy {right:.3f}")
    write_figure(png_of(figure), path)


def draw_reliability(bins: Sequence[tuple[float, float, int]], path: Path) -> None:
    """Write a PNG that compares how sure a model is with how often it is right.

    Args:
        bins: of records with similar probabilities of their most probable class, the mean of these, how often it
            is the label, and how many records there are.
        path: of the file.
    """
    figure = figure_of(5, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    sure, right, counts = zip(*bins, strict=True)
    above.plot([0, 1], [0, 1], linestyle=":", color="gray", label="perfectly calibrated")
    above.plot(sure, right, marker="o", label="this model")
    above.set_ylabel("share that is right")
    above.set_ylim(0, 1.02)
    above.legend(loc="upper left", frameon=False)
    below.bar(sure, counts, width=0.04)
    below.set_xlabel("probability of the most probable class")
    below.set_ylabel("records")
    below.set_xlim(0, 1.02)
    write_figure(png_of(figure), path)


@dataclass(frozen=True)
class RequestHistory:
    """What the ledger says of requests and records over time.

    Attributes:
        generations: times and numbers of records of all published generations.
        accepted: times at which requests were accepted.
        answered: of requests that were completed, when, after how many days, and how many records were deleted.
        open: how many requests were open after each acceptance, cancellation and completion, with its time.
    """

    generations: Sequence[tuple[datetime, int]]
    accepted: Sequence[datetime]
    answered: Sequence[tuple[datetime, float, int]]
    open: Sequence[tuple[datetime, int]]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> RequestHistory:
        """The history that entries of a ledger tell."""
        generations: list[tuple[datetime, int]] = []
        accepted: dict[str, datetime] = {}
        deleted: dict[str, int] = {}
        answered: list[tuple[datetime, float, int]] = []
        opened: dict[str, None] = {}
        counts: list[tuple[datetime, int]] = []
        types = (GenerationPublished, RequestAccepted, RequestCancelled, RecordsDeleted, RequestCompleted)
        for entry, event in events_of(entries, *types):
            now = from_text(entry.time)
            if isinstance(event, GenerationPublished):
                generations.append((now, event.records))
                continue
            if isinstance(event, RecordsDeleted):
                removed = sum(map(len, event.removed.values()))
                for request in event.requests:
                    deleted[request] = deleted.get(request, 0) + removed // max(1, len(event.requests))
                continue
            if isinstance(event, RequestAccepted):
                accepted[event.request] = now
                opened[event.request] = None
            elif isinstance(event, (RequestCancelled, RequestCompleted)):
                opened.pop(event.request, None)
                if isinstance(event, RequestCompleted):
                    days = (now - accepted.get(event.request, now)) / _DAY
                    answered.append((now, days, deleted.get(event.request, 0)))
            counts.append((now, len(opened)))
        return cls(generations, sorted(accepted.values()), answered, counts)


def draw_requests(entries: Sequence[Entry], path: Path) -> None:
    """Write a PNG of records and requests over time, from a ledger."""
    history = RequestHistory.of(entries)
    figure = figure_of(8, 7)
    records, requests, answers = figure.subplots(3, 1, sharex=True)
    _steps(records, history.generations, "records in the served model")
    records.margins(y=0.15)
    records.set_ylim(bottom=0)
    received = [(when, number + 1) for number, when in enumerate(history.accepted)]
    done = [(when, number + 1) for number, (when, _, _) in enumerate(sorted(history.answered))]
    _steps(requests, received, "requests accepted")
    _steps(requests, done, "requests completed")
    _steps(requests, history.open, "requests open")
    for axis, label in ((records, "records"), (requests, "requests")):
        axis.set_ylabel(label)
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="upper left", frameon=False, fontsize="small")
    if history.answered:
        when, days, sizes = zip(*history.answered, strict=True)
        answers.scatter(when, days, s=[12 + 4 * min(size, 50) for size in sizes], alpha=0.6)
    answers.set_ylabel("days to the answer")
    answers.set_ylim(bottom=0)
    answers.set_xlabel("larger marks: more records were deleted")
    figure.autofmt_xdate()
    records.set_title(
        f"{len(history.accepted)} requests, {len(history.answered)} of them completed, by the ledger"
    )
    write_figure(png_of(figure), path)


def _steps(axis: Any, points: Sequence[tuple[datetime, int]], label: str) -> None:
    if points:
        when, values = zip(*points, strict=True)
        axis.step(when, values, where="post", label=label, marker="." if len(points) == 1 else None)
    else:
        axis.plot([], [], label=label)


def _colours(count: int) -> list[Any]:
    """So many colours, all of one palette."""
    from matplotlib import colormaps

    palette = colormaps["tab10"] if count <= 10 else colormaps["hsv"]
    return [palette(number if count <= 10 else number / count) for number in range(count)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}\N{HORIZONTAL ELLIPSIS}"

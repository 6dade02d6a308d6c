"""The data sets (Table I), their diversity, how long clustering takes, and what clusters look like (9 and 10)."""

from __future__ import annotations

import time

import numpy as np

from lmeraser.data.images import decode
from lmeraser.experiments.bench import REFERENCE, Bench
from lmeraser.experiments.cells import Cell
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.metrics.diversity import diversity
from lmeraser.experiments.published import CLUSTERS, RECORDS
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.studies.base import Study, data_of, missing
from lmeraser.models.partitions import partition_of
from lmeraser.workspace.figures import clusters_png

_DIVERSE = 64  # images whose pairs the diversity is a mean over
_LINKAGES = ("average", "ward")


def table1(bench: Bench) -> Findings:
    """The data sets as they are used here."""
    found: list[list[Value]] = []
    for name in data_of(bench):
        data, used, cell = DATA_SETS[name], bench.data(name), Cell(name, REFERENCE)
        found.append(
            [
                data.title,
                len(used.classes),
                sum(data.images),
                RECORDS[name],
                len(used.known.ids),
                len(used.test_labels),
                round(_diversity(bench, cell), 4),
                bench.trained(cell).facts["clusters"],
                CLUSTERS[name],
            ]
        )
    columns = [
        *("data", "classes", "images, published", "records in the paper", "records here", "test images here"),
        *("diversity", "clusters here", "clusters in the paper's code"),
    ]
    note = (
        "Diversity: mean distance of pairs of images, of unit-normalised activations of the frozen backbone's "
        "layers (the form of LPIPS, Zhang et al. 2018, without learned weights). The paper's 58,605 and 21,312 "
        "are 80 % of the published training images; GTSRB here is a copy without small and narrow pictures."
    )
    return Findings(
        [Table("data", "Data sets", columns, found, note)],
        notes=missing(bench),
    )


def clustering(bench: Bench) -> Findings:
    """How long clustering takes, by the size of its sample."""
    name = next(data_of(bench))
    features = bench.data(name).known.features
    sizes = [size for size in (125, 250, 500, 1000, 2000, 4000) if size <= len(features)] or [len(features)]
    series: dict[str, list[list[float]]] = {}
    for linkage in _LINKAGES:
        cell = Cell(name, REFERENCE, settings={"partition": {"linkage": linkage}})
        partition = partition_of(bench.config(cell))
        for size in sizes:
            times = []
            for _ in range(3):
                started = time.perf_counter()
                partition.fit(features[:size])
                times.append(time.perf_counter() - started)
            series.setdefault(f"{linkage} linkage", []).append([size, float(np.median(times))])
    rows_: list[list[Value]] = [[n, int(x), round(y, 5)] for n, points in series.items() for x, y in points]
    title = f"Seconds for clustering, {DATA_SETS[name].title}, features of length {features.shape[1]}"
    table = Table("clustering", title, ["linkage", "records in the sample", "seconds, median of 3"], rows_)
    figure = Figure("clustering", title, "lines", "records in the sample", "seconds", series)
    return Findings([table], [figure])


def figure9(bench: Bench) -> Findings:
    """Clusters of the first data set."""
    return _rows_of_images(bench, list(data_of(bench))[:1])


def figure10(bench: Bench) -> Findings:
    """Clusters of the other data sets."""
    return _rows_of_images(bench, list(data_of(bench))[1:])


def _rows_of_images(bench: Bench, names: list[str]) -> Findings:
    figures, pictures = [], {}
    for name in names:
        with bench.opened(Cell(name, REFERENCE)) as eraser:
            pictures[name] = clusters_png(eraser.workspace, eraser.workspace.generations.require())
        title = f"{DATA_SETS[name].title}: some members of each cluster, and its size"
        figures.append(Figure(name, title, "images", note=title))
    notes = [] if names else ["The profile has one data set only."]
    return Findings(figures=figures, notes=notes, pictures=pictures)


def _diversity(bench: Bench, cell: Cell) -> float:
    ids = bench.data(cell.data).known.ids[:_DIVERSE]
    with bench.opened(cell) as eraser:
        layers = eraser.executor().activations(
            [decode(image) for image in bench.images(cell, "train")[: len(ids)]]
        )
    return diversity(layers, ids)


STUDIES = (
    Study("table1", "Data sets", "Table I", table1),
    Study("clustering", "Clustering time", "section V (clustering time)", clustering),
    Study("figure9", "Clusters as rows of images", "Figure 9", figure9),
    Study("figure10", "Clusters as rows of images, other data", "Figure 10", figure10),
)

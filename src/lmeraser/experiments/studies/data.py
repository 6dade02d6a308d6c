"""Data sets (Table I) and their diversity, clustering time, and clusters as rows of images (Figures 9 and 10)."""

from __future__ import annotations

import time

import numpy as np

from lmeraser.data.modalities import payload_format
from lmeraser.experiments.metrics.diversity import diversity
from lmeraser.experiments.published import CLUSTERS, RECORDS
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.runner import REFERENCE, TrialRunner
from lmeraser.experiments.studies.base import Study, available_data_sets, missing_notes
from lmeraser.experiments.trials import Trial
from lmeraser.models.partitions import partition_of
from lmeraser.workspace.figures import clusters_png

_DIVERSITY_IMAGES = 64  # the diversity is the mean over all pairs of these
_LINKAGES = ("average", "ward")


def table1(runner: TrialRunner) -> Findings:
    """The data sets, as published and as used here."""
    table_rows: list[list[Value]] = []
    for name in available_data_sets(runner):
        data = runner.data_set(name)
        used = runner.data(name)
        trial = Trial(name, REFERENCE)
        table_rows.append(
            [
                data.title,
                len(used.classes),
                sum(data.sizes),
                RECORDS.get(name),
                len(used.records.ids),
                len(used.test_labels),
                _diversity(runner, trial),
                runner.trained(trial).facts["clusters"],
                CLUSTERS.get(name),
            ]
        )
    columns = [
        *("data", "classes", "records, published", "records in the paper", "records here", "test records here"),
        *("diversity", "clusters here", "clusters in the paper's code"),
    ]
    note = (
        "Diversity: mean distance between pairs of images ('-' for other records), of unit-normalised activations "
        "of the frozen backbone's layers (the form of LPIPS, Zhang et al. 2018, without learned weights). The "
        "paper's 58,605 "
        "and 21,312 are 80 % of the published training images; GTSRB here is a copy without small and narrow "
        "pictures."
    )
    return Findings(
        [Table("data", "Data sets", columns, table_rows, note, keys=("data",))],
        notes=missing_notes(runner),
    )


def clustering(runner: TrialRunner) -> Findings:
    """Clustering time by sample size."""
    name = next(available_data_sets(runner))
    features = runner.data(name).records.features
    sizes = [size for size in (125, 250, 500, 1000, 2000, 4000) if size <= len(features)] or [len(features)]
    series: dict[str, list[list[float]]] = {}
    for linkage in _LINKAGES:
        trial = Trial(name, REFERENCE, settings={"partition": {"linkage": linkage}})
        partition = partition_of(runner.config(trial))
        for size in sizes:
            times = []
            for _ in range(3):
                started = time.perf_counter()
                partition.fit(features[:size])
                times.append(time.perf_counter() - started)
            series.setdefault(f"{linkage} linkage", []).append([size, float(np.median(times))])
    table_rows: list[list[Value]] = [[n, int(x), round(y, 5)] for n, points in series.items() for x, y in points]
    title = f"Seconds for clustering, {runner.data_set(name).title}, features of length {features.shape[1]}"
    table = Table("clustering", title, ["linkage", "records in the sample", "seconds, median of 3"], table_rows)
    figure = Figure("clustering", title, "lines", "records in the sample", "seconds", series)
    return Findings([table], [figure])


def figure9(runner: TrialRunner) -> Findings:
    """Clusters of the first data set as rows of images."""
    return _rows_of_images(runner, _with_pictures(runner)[:1])


def figure10(runner: TrialRunner) -> Findings:
    """Clusters of the other data sets as rows of images."""
    return _rows_of_images(runner, _with_pictures(runner)[1:])


def _with_pictures(runner: TrialRunner) -> list[str]:
    """The data sets whose records can be shown as pictures."""
    names = available_data_sets(runner)
    return [name for name in names if payload_format(runner.config(Trial(name, REFERENCE))).has_pictures]


def _rows_of_images(runner: TrialRunner, names: list[str]) -> Findings:
    figures: list[Figure] = []
    pictures: dict[str, bytes] = {}
    for name in names:
        with runner.open_trained(Trial(name, REFERENCE)) as eraser:
            pictures[name] = clusters_png(eraser.workspace, eraser.workspace.generations.require())
        title = f"{runner.data_set(name).title}: some members of each cluster, and its size"
        figures.append(Figure(name, title, "images", note=title))
    notes = [] if names else ["There is no further data set whose records are pictures."]
    return Findings(figures=figures, notes=notes, pictures=pictures)


def _diversity(runner: TrialRunner, trial: Trial) -> float | None:
    """The diversity of a data set's images; None of other records."""
    if not payload_format(runner.config(trial)).has_pictures:
        return None
    ids = runner.data(trial.data).records.ids[:_DIVERSITY_IMAGES]
    with runner.open_trained(trial) as eraser:
        layers = eraser.executor().activations(
            [eraser.executor().encoder.load(image) for image in runner.payloads(trial, "train")[: len(ids)]]
        )
    return round(diversity(layers, ids), 4)


STUDIES = (
    Study("table1", "Data sets", "Table I", table1),
    Study("clustering", "Clustering time", "section V (clustering time)", clustering),
    Study("figure9", "Clusters as rows of images", "Figure 9", figure9),
    Study("figure10", "Clusters as rows of images, other data", "Figure 10", figure10),
)

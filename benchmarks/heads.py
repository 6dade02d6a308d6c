"""Accuracy of heads on frozen features: ridge heads pooled with clusters, votes, overlap, views. Nothing is tuned.

    python benchmarks/heads.py --data PATH/TO/cifar10 --records 5000 --test 2000

Everything here is linear in features that are computed once, so that many ways of dividing and combining can be
compared in minutes before any of them is built. Each cluster's head is a ridge head, as the global one; ``share``
is the share of the records whose heads one uniform request that misses the sample solves again, so that ways
which touch several clusters can be compared at equal cost. One training set; the standard error of an
accuracy near 0.75 on 2,000 images is 0.01.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Image, load_dataset
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from lmeraser.config.modalities import View
from lmeraser.config.schema import parse
from lmeraser.core.console import print_rows
from lmeraser.core.lda import solve
from lmeraser.core.sufficient_statistics import SCALE, SufficientStatistics, dequantize, embedding, quantize
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.trie import group
from lmeraser.pipeline.executors.local import LocalExecutor

Matrix = NDArray[np.float64]
VIEWS: tuple[View, ...] = ("clean", "mirror", "whole", "near", "far", "frame")
ENSEMBLES: tuple[tuple[View, ...], ...] = (
    *((view,) for view in VIEWS),
    ("clean", "mirror"),
    ("clean", "frame"),
    ("clean", "whole"),
    ("clean", "whole", "near"),
    ("clean", "whole", "near", "frame"),
    VIEWS,
)
PARTITIONS: dict[str, dict[str, Any]] = {
    "class tree, N/37": {"method": "class_tree", "max_records": 1 / 37},
    "Ward 50": {"clusters": 50},
    "random 50": {"method": "random", "clusters": 50},
}
_NO_PIXELS = np.zeros((0, 0), np.float32)  # nothing here is drawn by them


class Features:
    """Features of all views of the first images of a split, and their classes."""

    def __init__(self, folder: Path, split: str, count: int, executor: LocalExecutor) -> None:
        rows = load_dataset(
            "parquet", data_files={split: str(folder / f"{split}.parquet")}, split=split, streaming=True
        )
        found = list(rows.cast_column("image", Image(decode=False)).take(count))
        self.ids = [f"{number:08d}" for number in range(len(found))]
        images = {i: row["image"]["bytes"] for i, row in zip(self.ids, found, strict=True)}
        vectors = executor.embed(
            self.ids, lambda ids: [images[i] for i in ids], lambda what, done, total: None, VIEWS
        )
        self.views = np.stack([vector for _, vector in vectors]).reshape(len(found), len(VIEWS), -1)
        self.labels = np.array([row["label"] for row in found])

    def codes(self, views: tuple[View, ...]) -> Matrix:
        """Embeddings of these views as codes, float64 [n, d + 1]."""
        chosen = self.views[:, [VIEWS.index(view) for view in views]]
        return dequantize(quantize(embedding(chosen))).astype(np.float64)


def ridge(codes: Matrix, targets: Matrix, penalty: float, prior: tuple[Matrix, Matrix] | None = None) -> Matrix:
    """A head [d + 1, classes]; ``prior`` is added to the sums."""
    gram, moments = codes.T @ codes, codes.T @ targets
    if prior is not None:
        gram, moments = gram + prior[0], moments + prior[1]
    gram[np.diag_indices(len(gram))] += penalty
    head: Matrix = cho_solve(cho_factor(gram, overwrite_a=True), moments)
    return head


def views_table(train: Features, test: Features, classes: int) -> None:
    """Which views help, by the accuracy of a global head on them."""
    rows = []
    for views in ENSEMBLES:
        fitted = train.codes(views)
        asked = test.codes(views)
        heads = [solved(fitted, train.labels, classes, penalty) for penalty in (0.1, 0.4, 1.6)]
        heads.append(ridge(fitted, np.eye(classes)[train.labels], 1000.0))
        rows.append([" + ".join(views), *(accuracy(asked @ head, test) for head in heads)])
    header = ["global head on", "discriminants, penalty 0.1", "0.4", "1.6", "ridge, penalty 1000"]
    print_rows("views", header, rows, unfolded=header)


def draws_table(train: Features, test: Features, classes: int) -> None:
    """Linear discriminants beside ridge regression, fitted on some records and tested on all others."""
    views: tuple[View, ...] = ("clean", "whole", "near")
    codes = np.vstack([train.codes(views), test.codes(views)])
    labels = np.concatenate([train.labels, test.labels])
    rows = []
    for draw, records in enumerate((300, 1000, len(train.ids), len(train.ids))):
        order = np.random.default_rng(draw).permutation(len(codes))
        mine, others = order[:records], order[records:]
        both = (
            solved(codes[mine], labels[mine], classes),
            ridge(codes[mine], np.eye(classes)[labels[mine]], 1000.0),
        )
        rows.append(
            [records, *(float(((codes[others] @ h).argmax(axis=1) == labels[others]).mean()) for h in both)]
        )
    header = ["records", "discriminants", "ridge"]
    print_rows("penalty 0.4, of ridge 1000", header, rows, unfolded=header)


def solved(codes: Matrix, labels: NDArray[np.int64], classes: int, penalty: float = 0.4) -> Matrix:
    """The product's global head, [d + 1, classes]."""
    integers = np.rint(codes * SCALE).astype(np.int16)
    head: Matrix = solve(
        SufficientStatistics.zero(integers.shape[1], classes).plus(integers, labels.tolist()), penalty
    )["weight"].T
    return head


def clusters_table(train: Features, test: Features, classes: int) -> None:
    """Whether clusters add anything to a global head, however they are asked."""
    views: tuple[View, ...] = ("clean", "whole", "near")
    fitted = train.codes(views)
    asked = test.codes(views)
    targets = np.eye(classes)[train.labels]
    every = fitted.T @ fitted, fitted.T @ targets
    alone = asked @ ridge(fitted, targets, 1000.0)
    rows = [["global head alone", 1, 0.0, accuracy(alone, test), None]]
    for name, settings in PARTITIONS.items():
        members, distances = divided(settings, train, test)
        for touched, asks in ((1, 1), (1, 3), (2, 1), (2, 3)):
            if touched > 1 and distances is None:
                continue
            mine = members if touched == 1 else overlapping(settings, train, touched)
            heads = [ridge(fitted[m], targets[m], 100.0) for m in mine]
            scores = voted(asked, heads, routes(settings, train, test, distances, asks))
            rows.append([f"{name}: tuned by {touched}, {asks} asked", *cells(mine, scores, alone, train, test)])
        for beta in (1.0, 4.0):
            prior = every[0] / beta, every[1] / beta
            heads = [ridge(fitted[m], targets[m], 1000.0 / beta, prior) for m in members]
            scores = voted(asked, heads, routes(settings, train, test, distances, 1))
            rows.append([f"{name}: pooled, beta {beta:g}", *cells(members, scores, alone, train, test)])
    header = ["ridge heads", "K", "share", "accuracy", "with global head"]
    print_rows("clusters", header, rows, unfolded=header)


def cells(
    members: list[NDArray[np.int64]], scores: Matrix, alone: Matrix, train: Features, test: Features
) -> list[Any]:
    """K, share, accuracy, accuracy together with the global head."""
    total = len(train.ids)
    count = np.zeros(len(train.ids))
    touched = np.zeros(len(train.ids))
    for m in members:
        touched[m] += len(m)
        count[m] += 1
    both = 0.8 * alone + 0.2 * scores
    return [len(members), float(touched.mean() / total), accuracy(scores, test), accuracy(both, test)]


def divided(
    settings: dict[str, Any], train: Features, test: Features
) -> tuple[list[NDArray[np.int64]], Matrix | None]:
    """Members of each cluster, and for nearest prototypes the distances of test images to them."""
    _, groups, fitted = grouped(settings, train)
    members = [np.array([int(i) for i in ids]) for ids in groups.values()]
    if "prototypes" not in fitted or fitted["prototypes"].size == 0:
        return members, None
    return members, to_prototypes(fitted["prototypes"], test)


def grouped(settings: dict[str, Any], train: Features) -> tuple[Any, dict[str, list[str]], Any]:
    share = settings.get("max_records")
    limit = {"max_records": round(share * len(train.ids))} if share else {}
    config = parse({"partition": {**settings, **limit}})
    partition = partition_of(config)
    clean = np.ascontiguousarray(train.views[:, 0])
    sample = partition.sample(train.ids)
    points = EXECUTOR.class_vectors() if config.partition.public else clean[[int(i) for i in sample]]
    fitted = partition.fit(points)
    places = dict(zip(train.ids, partition.trie_keys(fitted, train.ids, clean), strict=True))
    places |= zip(sample, partition.sample_trie_keys(fitted, sample), strict=True)
    return partition, group(places, config.partition.max_records), fitted


def to_prototypes(prototypes: NDArray[np.float32], images: Features) -> Matrix:
    units = images.views[:, 0] / np.linalg.norm(images.views[:, 0], axis=1, keepdims=True)
    distances: Matrix = np.linalg.norm(units[:, None] - prototypes[None], axis=2).astype(np.float64)
    return distances


def overlapping(settings: dict[str, Any], train: Features, touched: int) -> list[NDArray[np.int64]]:
    """Clusters in which each record is a member of its nearest few."""
    _, _, fitted = grouped(settings, train)
    nearest = np.argsort(to_prototypes(fitted["prototypes"], train), axis=1)[:, :touched]
    return [np.flatnonzero((nearest == k).any(axis=1)) for k in range(len(fitted["prototypes"]))]


def routes(
    settings: dict[str, Any], train: Features, test: Features, distances: Matrix | None, asks: int
) -> tuple[NDArray[np.int64], Matrix]:
    """Which clusters are asked, int64 [n, asked], and their weights; the nearer the heavier."""
    if distances is None:
        partition, groups, fitted = grouped(settings, train)
        found = partition.router(fitted, list(groups))(np.ascontiguousarray(test.views[:, 0]), _NO_PIXELS)
        return found, (found >= 0).astype(np.float64)
    nearest = np.argsort(distances, axis=1)[:, :asks]
    gaps = np.take_along_axis(distances, nearest, axis=1) - distances.min(axis=1, keepdims=True)
    return nearest, np.exp(-gaps / 0.05)


def voted(asked: Matrix, heads: list[Matrix], chosen: tuple[NDArray[np.int64], Matrix]) -> Matrix:
    """Weighted mean scores of the clusters that are asked."""
    positions, weights = chosen
    total = np.zeros((len(asked), heads[0].shape[1]))
    for k, head in enumerate(heads):
        share = (weights * (positions == k)).sum(axis=1)
        rows = np.flatnonzero(share)
        total[rows] += share[rows, None] * (asked[rows] @ head)
    total /= weights.sum(axis=1, keepdims=True)
    return total


def accuracy(scores: Matrix, test: Features) -> float:
    return float((scores.argmax(axis=1) == test.labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--test", type=int, default=2000)
    options = parser.parse_args()
    train = Features(options.data, "train", options.records, EXECUTOR)
    test = Features(options.data, "test", options.test, EXECUTOR)
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    views_table(train, test, classes)
    draws_table(train, test, classes)
    clusters_table(train, test, classes)


EXECUTOR = LocalExecutor(parse({}))

if __name__ == "__main__":
    main()

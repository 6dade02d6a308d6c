"""What a choice of the global head is worth on development parts: rows of training files, never test records.

    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations                     # scores and penalties
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --second-layer      # pseudo-samples as well
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --layers PATH/TO/VIT --only cifar10

Heads are fitted on the first rows of each training file, with the embedding of the preset ``instant``, and tested
on up to 2,000 rows behind them (for GTSRB on pictures of other signs). ``error`` is the expected calibration error
in 15 bins, ``loss`` the mean negative log probability of the right class. Embeddings are kept in files.

``--second-layer`` asks what AnaCP (NeurIPS 2025) adds: discriminants are projected to as many numbers as there are
classes less one, a random layer of 1,024 units is put on top, and a second head is fitted on pseudo-samples, which
are drawn around class means with the shared covariance: a function of the sums. Beside it the same second layer
fitted on the records themselves, which is no function of the sums.

``--layers`` asks which layers of a small transformer for images to embed: the class token and the mean of the
others, of the last few blocks.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded import TEXTS, EmbeddedData, development_rows, modality_of
from lmeraser.config.schema import parse
from lmeraser.core.console import print_rows
from lmeraser.core.lda import cross_validated_ridge, probabilities, solve, solve_cross_validated
from lmeraser.core.sufficient_statistics import (
    SCALE,
    QuantizedEmbeddings,
    SufficientStatistics,
    dequantize,
    quantize,
    unit_rms,
)
from lmeraser.core.tensors import Array
from lmeraser.inference.evaluate import calibration_error

DATA = ("cifar10", "cifar100", "gtsrb", "orl_faces", *TEXTS)
FEWER = (1000, 300)
SHARPNESS = 0.3
UNITS = 1024
DRAWN = 100  # pseudo-samples per class, on average

Labels = NDArray[np.int64]


def heads(statistics: SufficientStatistics) -> dict[str, dict[str, Array]]:
    """What is compared."""
    return {
        "fixed penalty": solve(statistics, 0.4),
        "fixed penalty, angles": solve(statistics, 0.4, "cosine"),
        "cross-validated": solve_cross_validated(statistics),
        "cross-validated, angles": solve_cross_validated(statistics, "cosine"),
        "cross-validated, blend": solve_cross_validated(statistics, "blend"),
    }


def measured(head: dict[str, Array], test: QuantizedEmbeddings, truth: Labels) -> list[float]:
    """Accuracy, calibration error, loss."""
    inputs = dequantize(test)[:, :-1]
    weights = head["weight"][None]
    parts = [probabilities(weights, inputs[start : start + 16], SHARPNESS) for start in range(0, len(inputs), 16)]
    found = np.concatenate(parts)
    right = found[np.arange(len(truth)), truth]
    loss = float(-np.log(np.maximum(right, 1e-12)).mean())
    return [float((found.argmax(axis=1) == truth).mean()), calibration_error(found, truth), loss]


def sums_of(train: QuantizedEmbeddings, labels: Labels, classes: int) -> SufficientStatistics:
    return SufficientStatistics.zero(train.shape[1], classes).plus(train, labels.tolist())


def second_layer(
    train: QuantizedEmbeddings, labels: Labels, test: QuantizedEmbeddings, truth: Labels, classes: int
) -> dict[str, list[float]]:
    """A second layer on projected discriminants, from pseudo-samples and from records."""
    points, queries = train[:, :-1] / SCALE, test[:, :-1] / SCALE
    present, own = np.unique(labels, return_counts=True)
    means = np.array([points[labels == label].mean(axis=0) for label in present])
    centre = points.mean(axis=0)
    within = points - means[np.searchsorted(present, labels)]
    scatter = within.T @ within
    away = (means - centre) * own[:, None]
    ridge = cross_validated_ridge(sums_of(train, labels, classes))
    total = scatter + (means - centre).T @ away + ridge * np.eye(len(scatter))
    targets = np.linalg.svd((means - centre).T, full_matrices=False)[2][: len(present) - 1].T
    projection = np.linalg.solve(total, away.T @ targets)  # each class to a direction of its own
    projected = (points - centre) @ projection
    unit = 1 / np.sqrt(np.square(projected).mean())
    projection *= unit
    covariance = projection.T @ (scatter / len(points)) @ projection
    generator = np.random.default_rng(0)
    random = generator.choice([-1.0, 0.0, 1.0], size=(projection.shape[1], UNITS), p=[0.25, 0.5, 0.25])
    counts = np.maximum(np.rint(DRAWN * own / own.mean()).astype(int), 5)
    noise = generator.multivariate_normal(np.zeros(len(covariance)), covariance, counts.sum(), method="svd")
    drawn = np.repeat((means - centre) @ projection, counts, axis=0) + noise

    def widened(rows: NDArray[np.float64]) -> QuantizedEmbeddings:
        layer = np.maximum(rows @ random / np.sqrt(projection.shape[1] / 2), 0.0)
        return quantize(unit_rms(np.concatenate([rows, layer], axis=1).astype(np.float32)))

    asked = widened((queries - centre) @ projection)
    found = {}
    for name, rows, classes_of in (
        ("second layer, pseudo-samples", drawn, np.repeat(present, counts)),
        ("second layer, records", projected * unit, labels),
    ):
        head = solve_cross_validated(sums_of(widened(rows), classes_of, classes))
        found[name] = measured(head, asked, truth)
    return found


def compare(source: EmbeddedData, data: str, deeper: bool) -> list[list[Any]]:
    """Rows of the table for one data set."""
    config = parse(modality_of(data), base="instant")
    fitted, held = development_rows(source, data, 5000)
    labels = source.column(data, "train", "label")
    every = source.quantized(data, "train", np.concatenate([fitted, held]), config)
    classes = int(labels.max()) + 1
    truth = labels[held]
    rows = []
    for count in (len(fitted), *(few for few in FEWER if few < len(fitted) * 0.75)):
        mine, own = every[:count], labels[fitted[:count]]
        for name, head in heads(sums_of(mine, own, classes)).items():
            rows.append([data, count, name, *measured(head, every[len(fitted) :], truth)])
        if deeper and count == len(fitted):
            found = second_layer(mine, own, every[len(fitted) :], truth, classes)
            rows += [[data, count, name, *cells] for name, cells in found.items()]
    return rows


def layers_of_a_transformer(source: EmbeddedData, data: str, network: Path, records: int) -> list[list[Any]]:
    """Rows of the table for subsets of a transformer's layers, clean view."""
    blocks = range(1, 11)
    names = [f"block{number}.{kind}" for number in blocks for kind in ("cls", "mean")] + ["final"]
    backbone = {"name": str(network), "image_size": 98, "pooling": "cls"}
    config = parse({"backbone": backbone, "embedding": {"views": ["clean"], "layers": names}}, base="instant")
    fitted, held = development_rows(source, data, 5000)
    fitted, held = fitted[:records], held[: records // 2]
    labels = source.column(data, "train", "label")
    every = source.quantized(data, "train", np.concatenate([fitted, held]), config)
    width = (every.shape[1] - 1) // len(names)
    parts = dict(zip(names, np.split(dequantize(every)[:, :-1], len(names), axis=1), strict=True))
    rows = []
    last = {f"last {n}": [f"block{number}" for number in range(11 - n, 11)] for n in (1, 2, 4, 6, 10)}
    chosen = {"final": ["final"]}
    chosen |= {f"class token, {name}": [f"{block}.cls" for block in found] for name, found in last.items()}
    chosen |= {f"means, {name}": [f"{block}.mean" for block in found] for name, found in last.items()}
    for name, found in last.items():
        chosen[f"both, {name}"] = [f"{block}.{kind}" for block in found for kind in ("cls", "mean")]
    chosen["both, last 4, and final"] = [*chosen["both, last 4"], "final"]
    for name, used in chosen.items():
        codes = quantize(unit_rms(np.concatenate([parts[part] for part in used], axis=1)))
        statistics = sums_of(codes[: len(fitted)], labels[fitted], int(labels.max()) + 1)
        head = solve_cross_validated(statistics, "cosine")
        rows.append(
            [
                data,
                len(fitted),
                f"{name} ({width * len(used):,})",
                *measured(head, codes[len(fitted) :], labels[held]),
            ]
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path, help="where embeddings are kept")
    parser.add_argument("--only", default="", help="data sets whose name this regular expression is found in")
    parser.add_argument("--second-layer", action="store_true")
    parser.add_argument("--layers", type=Path, help="folder of a transformer: compare its layers instead")
    parser.add_argument("--records", type=int, default=2000, help="to fit on, for --layers")
    options = parser.parse_args()
    source = EmbeddedData(options.data, options.out)
    header = ["data", "records", "head", "accuracy", "error", "loss"]
    for data in DATA:
        if not re.search(options.only, data):
            continue
        if options.layers is not None:
            rows = layers_of_a_transformer(source, data, options.layers, options.records)
        else:
            rows = compare(source, data, options.second_layer)
        print_rows(data, header, rows, unfolded=header)


if __name__ == "__main__":
    main()

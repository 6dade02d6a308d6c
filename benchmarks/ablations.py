"""What a choice of the global head is worth on development parts: rows of training files, never test records.

    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations                  # scores and penalties
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --second-layer   # pseudo-samples as well
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --penalties      # other rules for a penalty
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --layers         # layers, random features
    python benchmarks/ablations.py --data PATH/TO/DATA --out ablations --layers PATH/TO/VIT --only cifar10

Heads are fitted on the first rows of each training file, with the embedding of the preset ``instant``, and tested
on up to 2,000 rows behind them (for GTSRB on pictures of other signs). ``error`` is the expected calibration error
in 15 bins, ``loss`` the mean negative log probability of the right class. Embeddings are kept in files.

``--second-layer`` asks what AnaCP (NeurIPS 2025) adds: discriminants are projected to as many numbers as there are
classes less one, a random layer of 1,024 units is put on top, and a second head is fitted on pseudo-samples, which
are drawn around class means with the shared covariance: a function of the sums. Beside it the same second layer
fitted on the records themselves, which is no function of the sums.

``--layers`` asks which layers of the preset's backbone to embed, in all views, and what random features or a
linear projection of them are worth; with the folder of a small transformer for images the same of its class token
and the mean of the others, of the last few blocks, in the clean view. One pass over a record gives all its layers.

``--penalties`` compares the fixed penalty with others, which follow from the sums: the oracle approximating
shrinkage, generalised cross-validation, and the marginal likelihood of the scatter under an inverse Wishart prior.
``penalty`` is each in units of ``global_head.penalty``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedded import TEXTS, EmbeddedData, development_rows, modality_of
from lmeraser.config.schema import parse
from lmeraser.core.console import print_rows
from lmeraser.core.lda import (
    cross_validated_ridge,
    least_generalised_error,
    probabilities,
    solve,
    solve_cross_validated,
)
from lmeraser.core.random_features import projection, random_features
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


@dataclass(frozen=True)
class Choice:
    """What an embedding is made of.

    Attributes:
        layers: their names.
        units: of a random layer on top; 0: none.
        projected: numbers of a linear random projection instead; 0: none.
    """

    layers: tuple[str, ...]
    units: int = 0
    projected: int = 0

    def of(self, parts: dict[str, NDArray[np.float32]]) -> QuantizedEmbeddings:
        """The embeddings from their layers, each float32 [n, length]."""
        codes = quantize(unit_rms(np.concatenate([parts[name] for name in self.layers], axis=1)))
        if self.units:
            return random_features(codes, self.units, 0)
        if self.projected:
            inputs = codes[:, :-1].astype(np.float64)
            mixed = inputs @ projection(0, inputs.shape[1], self.projected)
            return quantize(unit_rms(mixed.astype(np.float32)))
        return codes


def _named(kind: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"block{number}.{kind}" for number in numbers)


def _place(name: str) -> tuple[float, str]:
    """Where a layer stands in the network."""
    found = re.search(r"\d+", name)
    return (float(found[0]) if found else np.inf, name)


def choices_of_images() -> dict[str, Choice]:
    """Of EfficientNet-Lite0."""
    final = ("final",)
    means, deviations = (_named(kind, (3, 5, 8, 11, 15, 16)) for kind in ("mean", "std"))
    inner, few = _named("inner", (5, 8, 11, 16)), _named("std", (3, 5, 8, 11))
    found = {
        "features": final,
        "means of six blocks, features": (*means, *final),
        "means and std of six blocks, features": (*means, *deviations, *final),
        "inner 5 8 11 16, features": (*inner, *final),
        "inner 5 8 11 16, std 3 5 8 11, features": (*inner, *few, *final),
        "inner 5 8 11 16, std 3 5 8 11": (*inner, *few),
        "inner 5 8 11 16": inner,
        "inner 5 8 11 14 16, std 3 5 8 11": (*_named("inner", (5, 8, 11, 14, 16)), *few),
        "inner 5 8 11 14, std 3 5 8 11": (*_named("inner", (5, 8, 11, 14)), *few),
        "inner 5 8 11 16, means and std of six blocks": (*inner, *means, *deviations),
    }
    choices = {name: Choice(layers) for name, layers in found.items()}
    usual = found["inner 5 8 11 16, std 3 5 8 11"]
    return {
        **choices,
        "the default, projected": Choice(usual, projected=2048),
        "the default, random units": Choice(usual, units=4096),
    }


def choices_of_texts() -> dict[str, Choice]:
    """Of a transformer with six blocks."""
    means, classes = (_named(kind, (3, 4, 5, 6)) for kind in ("mean", "cls"))
    final = ("final",)
    return {
        "final": Choice(final),
        "means of the last 4": Choice(means),
        "class tokens and means of the last 4": Choice((*classes, *means)),
        "final, random units": Choice(final, units=4096),
        "means of the last 4, 2048 random units": Choice(means, units=2048),
        "means of the last 4, random units": Choice(means, units=4096),
        "class tokens and means of the last 4, random units": Choice((*classes, *means), units=4096),
    }


def choices_of_a_transformer() -> dict[str, Choice]:
    """Of one for images, with ten blocks."""
    last = {f"last {count}": range(11 - count, 11) for count in (1, 2, 4, 6, 10)}
    found: dict[str, tuple[str, ...]] = {"features": ("final",)}
    found |= {f"class token, {name}": _named("cls", numbers) for name, numbers in last.items()}
    found |= {f"means, {name}": _named("mean", numbers) for name, numbers in last.items()}
    for name, numbers in last.items():
        found[f"both, {name}"] = tuple(f"block{n}.{kind}" for n in numbers for kind in ("cls", "mean"))
    found["both, last 4, and features"] = (*found["both, last 4"], "final")
    return {name: Choice(layers) for name, layers in found.items()}


def layers(
    source: EmbeddedData, data: str, settings: dict[str, Any], choices: dict[str, Choice], records: int
) -> list[list[Any]]:
    """Rows of the table for choices of layers."""
    names = sorted({name for choice in choices.values() for name in choice.layers}, key=_place)
    embedded = {**settings.get("embedding", {}), "layers": names, "random_features": 0}
    config = parse({**modality_of(data), **settings, "embedding": embedded}, base="instant")
    fitted, held = development_rows(source, data, 5000)
    fitted = fitted[:records]
    held = held[: records // 2]
    labels = source.column(data, "train", "label")
    every = dequantize(source.quantized(data, "train", np.concatenate([fitted, held]), config))
    lengths = source.lengths(data, config)
    ends = np.cumsum([lengths[name] for name in names])
    parts = dict(zip(names, np.split(every[:, :-1], ends[:-1], axis=1), strict=True))
    rows = []
    for name, choice in choices.items():
        codes = choice.of(parts)
        statistics = sums_of(codes[: len(fitted)], labels[fitted], int(labels.max()) + 1)
        for kind, head in (
            ("fixed penalty", solve(statistics, 0.4)),
            ("cross-validated, blend", solve_cross_validated(statistics, "blend")),
        ):
            found = measured(head, codes[len(fitted) :], labels[held])
            rows.append([data, len(fitted), f"{name} ({codes.shape[1] - 1:,}): {kind}", *found])
    return rows


def penalties(source: EmbeddedData, data: str) -> list[list[Any]]:
    """Rows of the table for ways to choose the penalty of distances."""
    fitted, held = development_rows(source, data, 5000)
    labels = source.column(data, "train", "label")
    classes = int(labels.max()) + 1
    usual = parse(modality_of(data), base="instant")
    final = {"embedding": {"views": list(usual.embedding.views), "layers": ["final"], "random_features": 0}}
    rows = []
    for name, config in (
        ("features", parse({**modality_of(data), **final}, base="instant")),
        ("the embedding of now", usual),
    ):
        codes = source.quantized(data, "train", np.concatenate([fitted, held]), config)
        statistics = sums_of(codes[: len(fitted)], labels[fitted], classes)
        within = _within(codes[: len(fitted)], labels[fitted])
        distance = float(np.square(within).sum()) / len(fitted)
        for rule, ridge in ridges(statistics, within).items():
            penalty = max((ridge - 1) / distance, 1e-9)
            found = measured(solve(statistics, penalty), codes[len(fitted) :], labels[held])
            rows.append([data, len(fitted), f"{name}: {rule}", *found, round(penalty, 4)])
    return rows


def ridges(statistics: SufficientStatistics, within: NDArray[np.float64]) -> dict[str, float]:
    """What each rule adds to the diagonal of the scatter.

    Args:
        statistics: of the records.
        within: their embeddings less the mean of their class, float64 [n, d].
    """
    from sklearn.covariance import oas

    records, width = within.shape
    distance = float(np.square(within).sum()) / records
    shrinkage = float(oas(within, assume_centered=True)[1])
    return {
        "fixed 0.4": 0.4 * distance + 1,
        "oracle approximating": records * shrinkage / (1 - shrinkage) * distance / width,
        "generalised cross-validation": least_generalised_error(statistics),
        "cross-validated": cross_validated_ridge(statistics),
        "marginal likelihood": most_likely_ridge(within),
    }


def most_likely_ridge(within: NDArray[np.float64]) -> float:
    """The r of the inverse Wishart prior, with scale r I and any degrees of freedom, that is likeliest."""
    from scipy.special import multigammaln

    records, width = within.shape
    values = np.maximum(np.linalg.eigvalsh(within.T @ within), 0.0)
    freedoms = width + 1 + 2.0 ** np.arange(0, 17)
    best, ridge = -np.inf, 1.0
    for candidate in 2.0 ** np.arange(0, 24.5, 0.5):
        logarithms = float(np.log(candidate + values).sum())
        likelihoods = freedoms * width / 2 * np.log(candidate) - (freedoms + records) / 2 * logarithms
        likelihoods += [
            multigammaln((freedom + records) / 2, width) - multigammaln(freedom / 2, width) for freedom in freedoms
        ]
        if likelihoods.max() > best:
            best, ridge = float(likelihoods.max()), float(candidate)
    return ridge


def _within(codes: QuantizedEmbeddings, labels: Labels) -> NDArray[np.float64]:
    """Embeddings less the mean of their class, float64 [n, d]."""
    points = codes[:, :-1] / SCALE
    for label in np.unique(labels):
        points[labels == label] -= points[labels == label].mean(axis=0)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path, help="where embeddings are kept")
    parser.add_argument("--only", default="", help="data sets whose name this regular expression is found in")
    parser.add_argument("--second-layer", action="store_true")
    parser.add_argument(
        "--layers",
        nargs="?",
        const="",
        help="compare layers of the preset's backbone, or of the transformer for images in this folder",
    )
    parser.add_argument("--penalties", action="store_true", help="compare ways to choose the penalty")
    parser.add_argument("--records", type=int, default=5000, help="to fit on, for --layers")
    parser.add_argument("--workers", type=int, default=1, help="threads that embed")
    options = parser.parse_args()
    source = EmbeddedData(options.data, options.out, options.workers)
    header = ["data", "records", "head", "accuracy", "error", "loss", *(["penalty"] if options.penalties else [])]
    for data in DATA:
        if not re.search(options.only, data):
            continue
        if options.layers:
            backbone = {"name": options.layers, "image_size": 98, "pooling": "cls"}
            settings = {"backbone": backbone, "embedding": {"views": ["clean"]}}
            rows = layers(source, data, settings, choices_of_a_transformer(), options.records)
        elif options.layers is not None:
            choices = choices_of_texts() if data in TEXTS else choices_of_images()
            rows = layers(source, data, {}, choices, options.records)
        elif options.penalties:
            rows = penalties(source, data)
        else:
            rows = compare(source, data, options.second_layer)
        print_rows(data, header, rows, unfolded=header)


if __name__ == "__main__":
    main()

"""Evaluation: accuracy on labelled images, and beside it that of a linear classifier on the same features.

The linear classifier (scikit-learn's logistic regression on standardised features of the backbone, fitted on all
retained records) is what a user would choose instead; it has no cheap exact unlearning. It is fitted for the
comparison and thrown away. Evaluation images are read, never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.errors import InputError, SourceError
from lmeraser.predict import Predictor
from lmeraser.progress import Progress, counted, silent
from lmeraser.sources import Example, Source, check, chunks


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy on the images of one class."""

    name: str
    images: int
    accuracy: float


@dataclass(frozen=True)
class EvaluationReport:
    """How well a model classifies.

    Attributes:
        images: number of images.
        accuracy: share of images whose most probable class is the label.
        linear_accuracy: the same for a linear classifier on the same features; None if it was not asked for or
            the retained records have fewer than two classes.
        per_class: accuracy on each class that occurs.
    """

    images: int
    accuracy: float
    linear_accuracy: float | None
    per_class: tuple[ClassAccuracy, ...]

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingSet:
    """What the linear classifier is fitted on: features float32 [n, d] and labels int64 [n]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def evaluate(
    predictor: Predictor,
    source: Source,
    classes: Sequence[str],
    *,
    training_set: Callable[[], TrainingSet] | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """Classify every image of ``source``.

    Args:
        predictor: the model.
        source: labelled images.
        classes: class names of the model.
        training_set: gives the features and labels of the retained records; None: no linear classifier.
        progress: told how far it is.

    Raises:
        SourceError: undecodable images, missing labels, or labels outside the known classes; all are listed.
    """
    labels: list[int] = []
    predicted, features, faults = [], [], []
    for chunk in chunks(counted(source.rows, "evaluating", source.length, progress)):
        checked = [check(row, source.classes, classes) for row in chunk]
        faults += [
            f"row {row.position} (id {row.id!r}): {fault}"
            for row, fault in zip(chunk, checked, strict=True)
            if isinstance(fault, str)
        ]
        if not faults:
            examples = [example for example in checked if isinstance(example, Example)]
            batch = predictor.batch([example.image for example in examples])
            labels += [example.label for example in examples]
            predicted.append(batch.probabilities.argmax(axis=1))
            features.append(batch.features)
    if faults:
        raise SourceError(
            "Every image of an evaluation decodes and has a label among the model's classes.",
            faults=faults,
            next_step=f"correct the source; the classes are: {', '.join(classes)}",
        )
    if not labels:
        raise InputError("An evaluation needs at least one image.", got=f"{source.name} is empty")
    truth = np.array(labels)
    linear = None
    if training_set is not None:
        progress("fitting the linear classifier", 0, None)
        linear = _linear_accuracy(training_set(), np.concatenate(features), truth)
    return _report(truth, np.concatenate(predicted), linear, classes)


def _report(
    truth: NDArray[np.int64], predicted: NDArray[np.int64], linear: float | None, classes: Sequence[str]
) -> EvaluationReport:
    right = truth == predicted
    per_class = tuple(
        ClassAccuracy(classes[label], int((truth == label).sum()), float(right[truth == label].mean()))
        for label in np.unique(truth)
    )
    return EvaluationReport(len(truth), float(right.mean()), linear, per_class)


def _linear_accuracy(
    training_set: TrainingSet, features: NDArray[np.float32], truth: NDArray[np.int64]
) -> float | None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(training_set.labels)) < 2:
        return None
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    classifier.fit(training_set.features, training_set.labels)
    return float((classifier.predict(features) == truth).mean())

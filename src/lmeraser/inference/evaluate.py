"""Evaluation: accuracy on labelled images, and beside it that of a linear classifier on the same features.

The linear classifier (scikit-learn's logistic regression on the backbone's features, each scaled to root mean
square 1, fitted on all retained records, its regularisation chosen on a fifth of them) is what a user would choose
instead; it has no cheap exact unlearning. It is fitted for the comparison and discarded. Evaluation images are
read, never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.progress import Progress, silent, track
from lmeraser.core.sufficient_statistics import unit_rms
from lmeraser.data.records import Records
from lmeraser.data.sources import Example, Source, check_row, row_chunks
from lmeraser.errors import InputError, SourceError
from lmeraser.inference.predictor import Batch, BatchPredictor
from lmeraser.inference.served import distributed_predictor
from lmeraser.models.manifest import Model
from lmeraser.pipeline.derive import feature_key
from lmeraser.pipeline.executors.base import Executor
from lmeraser.workspace.session import Session

_REGULARISATION = (0.003, 0.01, 0.03, 0.1)  # scikit-learn's C; from 280 to 5,000 records the best lay in here
_MIN_RECORDS = 10  # with fewer, fitting is not worthwhile


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
        linear_accuracy: the same for a linear classifier on the same features; None if it was not requested or
            there are fewer than two classes or ten retained records.
        part_accuracy: of the constituents alone and of the global head alone, where the model has both.
        per_class: accuracy on each class that occurs.
        clusters: of the model.
        expected_share: of the records, tuned again by one uniform request (`models.partitions.cost`).
        passed_over: how many files and folders of each kind were in the source and are no images.
    """

    images: int
    accuracy: float
    linear_accuracy: float | None
    part_accuracy: Mapping[str, float]
    per_class: tuple[ClassAccuracy, ...]
    clusters: int
    expected_share: float
    passed_over: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingSet:
    """The data that the linear classifier is fitted on: features float32 [n, d] and labels int64 [n]."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def training_set(records: Records, config: Config, executor: Executor, progress: Progress = silent) -> TrainingSet:
    """Features and labels of all records; features that are not stored are computed.

    Args:
        records: the private records.
        config: settings of the model.
        executor: with the model's backbone.
        progress: receives progress reports.
    """
    index = records.index()
    ids = [record.id for record in index]
    known = records.derived.features(ids, key=feature_key(config, executor.backbone, executor.fingerprint))
    missing = [record_id for record_id in ids if record_id not in known]
    known |= executor.embed(missing, records.payloads, progress)
    labels = np.array([record.label for record in index], dtype=np.int64)
    return TrainingSet(np.stack([known[record_id] for record_id in ids]), labels)


def evaluate(session: Session, source: Source, *, linear: bool = True) -> EvaluationReport:
    """Accuracy of the served model on labelled images, beside that of a linear classifier.

    Args:
        session: the workspace, and what predicts.
        source: labelled images.
        linear: also fit the linear classifier, on the retained records.

    Raises:
        NoModelError: there is nothing to predict with.
        SourceError: undecodable images, missing labels, or labels outside the known classes; all are listed.
    """
    predictor = distributed_predictor(session)
    model = predictor.model

    def records() -> TrainingSet:
        executor = session.executors.for_model(model)
        return training_set(session.workspace.records, model.config(), executor, session.progress)

    return evaluate_predictor(
        predictor, source, compared_with=records if linear else None, progress=session.progress
    )


def evaluate_predictor(
    predictor: BatchPredictor,
    source: Source,
    *,
    compared_with: Callable[[], TrainingSet] | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """Classify every image of ``source``.

    Args:
        predictor: the model.
        source: labelled images.
        compared_with: returns features and labels of the retained records; None: no linear classifier.
        progress: receives progress reports.

    Raises:
        SourceError: undecodable images, missing labels, or labels outside the known classes; all are listed.
    """
    labels: list[int] = []
    faults: list[str] = []
    classes = predictor.model.classes

    def images() -> Iterator[list[bytes]]:
        """Images of the rows, until one has a fault; then only faults are collected."""
        for chunk in row_chunks(track(source.rows, "evaluating", source.length, progress)):
            checked = [check_row(row, source.classes, classes, source.check) for row in chunk]
            faults.extend(
                f"row {row.position} (id {row.id!r}): {fault}"
                for row, fault in zip(chunk, checked, strict=True)
                if isinstance(fault, str)
            )
            if not faults:
                examples = [example for example in checked if isinstance(example, Example)]
                labels.extend(example.label for example in examples)
                yield [example.payload for example in examples]

    batches = list(predictor.batches(images()))
    if faults:
        raise SourceError(
            "Source has images that cannot be evaluated",
            faults=faults,
            next_step=f"correct the source; the model's classes are: {', '.join(classes)}",
        )
    if not labels:
        raise InputError("No images to evaluate", got=f"{source.name} is empty", next_step="give another source")
    truth = np.array(labels)
    linear = None
    if compared_with is not None:
        progress("fitting the linear classifier", 0, None)
        features = np.concatenate([batch.features for batch in batches])
        linear = linear_accuracy_of(compared_with(), features, truth)
    report = _report(truth, batches, linear, predictor.model)
    return replace(report, passed_over=dict(source.passed_over))


def _report(
    truth: NDArray[np.int64], batches: Sequence[Batch], linear: float | None, model: Model
) -> EvaluationReport:
    right = truth == np.concatenate([batch.probabilities.argmax(axis=1) for batch in batches])
    parts = {
        name: float((truth == np.concatenate([batch.parts[name].argmax(axis=1) for batch in batches])).mean())
        for name in batches[0].parts
    }
    per_class = tuple(
        ClassAccuracy(model.classes[label], int((truth == label).sum()), float(right[truth == label].mean()))
        for label in np.unique(truth)
    )
    return EvaluationReport(
        images=len(truth),
        accuracy=float(right.mean()),
        linear_accuracy=linear,
        part_accuracy=parts if len(parts) > 1 else {},
        per_class=per_class,
        clusters=len(model.clusters),
        expected_share=model.expected_share,
    )


def linear_accuracy_of(
    training: TrainingSet, features: NDArray[np.float32], truth: NDArray[np.int64]
) -> float | None:
    """Accuracy of a linear classifier; None where there is too little to fit it on.

    Args:
        training: what it is fitted on.
        features: of the images to classify, float32 [n, d].
        truth: their classes, int64 [n].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, ShuffleSplit
    from threadpoolctl import threadpool_limits

    if len(np.unique(training.labels)) < 2 or len(training.labels) < _MIN_RECORDS:
        return None
    # Chosen on the retained records alone, so that the baseline is a good one and sees no evaluation image.
    split = ShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
    search = GridSearchCV(LogisticRegression(tol=1e-3, max_iter=2000), {"C": _REGULARISATION}, cv=split)
    with threadpool_limits(1):  # many small products: handing them to several threads takes longer
        search.fit(unit_rms(training.features), training.labels)
    return float((search.predict(unit_rms(features)) == truth).mean())

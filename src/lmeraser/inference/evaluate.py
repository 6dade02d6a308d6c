"""Evaluation: accuracy on labelled images, and beside it that of a linear classifier on the same features.

The linear classifier (scikit-learn's logistic regression on the backbone's features, each scaled to root mean
square 1, fitted on all retained records, its regularisation chosen on a fifth of them) is what a user would choose
instead; it has no cheap exact unlearning. Where heads see an embedding of several views or layers, a second one is
fitted on that. Both are fitted for the comparison and discarded. Evaluation images are read, never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.global_head import EmbeddingConfig
from lmeraser.config.schema import Config
from lmeraser.core.blas import one_blas_thread
from lmeraser.core.progress import Progress, silent, track
from lmeraser.core.sufficient_statistics import dequantize, stack_quantized, unit_rms
from lmeraser.data.records import Records
from lmeraser.data.rows import describe_fault
from lmeraser.data.sources import Example, Source, check_row, row_chunks
from lmeraser.errors import InputError, SourceError
from lmeraser.inference.predictor import Batch, BatchPredictor
from lmeraser.inference.served import distributed_predictor
from lmeraser.models.manifest import Model
from lmeraser.pipeline.derive import feature_key
from lmeraser.pipeline.executors.base import Executor
from lmeraser.workspace.session import Session

# scikit-learn's C: those that are tried at first, and those that may be.
_REGULARISATION = (0.003, 0.01, 0.03, 0.1)
_EVERY_REGULARISATION = (0.0001, 0.0003, 0.001, *_REGULARISATION, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_BINS = 15  # of confidences
_MIN_RECORDS = 10  # with fewer, fitting is not worthwhile


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy on the records of one class.

    Attributes:
        name: of the class.
        images: number of its records.
        accuracy: share of them whose most probable class is this one.
    """

    name: str
    images: int
    accuracy: float


@dataclass(frozen=True)
class EvaluationReport:
    """How well a model classifies.

    Attributes:
        images: number of records.
        accuracy: share of records whose most probable class is the label.
        linear_accuracy: the same for a linear classifier on the same features; None if it was not requested or
            there are fewer than two classes or ten retained records.
        embedding_accuracy: the same for a linear classifier on the embedding that heads see; None where there is
            no such embedding, or it is the features.
        calibration_error: expected calibration error of the probabilities, in 15 bins of equal width (Guo et al.,
            2017).
        part_accuracy: of the constituents alone and of the global head alone, where the model has both.
        per_class: accuracy on each class that occurs.
        clusters: of the model.
        expected_share: of the records, tuned again by one uniform request (`models.partitions.cost`).
        passed_over: how many files and folders of each kind were in the source and are no records.
        classes: names of all classes.
        confusion: how many records of each class, by row, were taken for each class, by column.
        reliability: of records whose most probable class has a probability in one of 15 bins, the mean of these
            probabilities, how often that class is right, and how many records there are.
    """

    images: int
    accuracy: float
    linear_accuracy: float | None
    embedding_accuracy: float | None
    calibration_error: float
    part_accuracy: Mapping[str, float]
    per_class: tuple[ClassAccuracy, ...]
    clusters: int
    expected_share: float
    passed_over: Mapping[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] = field(default=(), repr=False)
    confusion: tuple[tuple[int, ...], ...] = field(default=(), repr=False)
    reliability: tuple[tuple[float, float, int], ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, object]:
        """The report as JSON values, without what `draw_evaluation` draws."""
        drawn = ("classes", "confusion", "reliability")
        return {name: value for name, value in asdict(self).items() if name not in drawn}


@dataclass(frozen=True)
class TrainingSet:
    """The data that linear classifiers are fitted on.

    Attributes:
        features: of the clean view, float32 [n, d].
        labels: class indices, int64 [n].
        embeddings: what heads without a prompt see, float32 [n, width]; None where that is compared with nothing.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32] | None = None


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


def embeddings_in_use(records: Records, model: Model) -> NDArray[np.float32] | None:
    """Embeddings of all records, float32 [n, width], in the order of their ids; None: there is nothing to compare.

    Embeddings of the clean view's features alone are not compared with those features.
    """
    config = model.config()
    plain = EmbeddingConfig(views=(config.clean_view,))
    ids = [record.id for record in records.index()]
    if model.embedding_key is None or config.embedding == plain:
        return None
    if not set(ids) <= records.statistics.ids(key=model.embedding_key):
        return None
    return dequantize(stack_quantized(records.statistics.quantized_embeddings(ids)))[:, :-1]


def evaluate(
    session: Session, source: Source, *, linear: bool = True, on_embedding: bool = True
) -> EvaluationReport:
    """Accuracy of the served model on labelled images, beside that of a linear classifier.

    Args:
        session: the workspace, and what predicts.
        source: labelled images.
        linear: also fit linear classifiers, on the retained records.
        on_embedding: one of them on the embedding in use, which is wider and takes longer.

    Raises:
        NoModelError: there is nothing to predict with.
        SourceError: undecodable images, missing labels, or labels outside the known classes; all are listed.
    """
    predictor = distributed_predictor(session)
    model = predictor.model

    def records() -> TrainingSet:
        executor = session.executors.for_model(model)
        own = session.workspace.records
        found = training_set(own, model.config(), executor, session.progress)
        return replace(found, embeddings=embeddings_in_use(own, model)) if on_embedding else found

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
                describe_fault(row, fault)
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
            f"Source has {source.noun}s that cannot be evaluated",
            faults=faults,
            next_step=f"correct the source; the model's classes are: {', '.join(classes)}",
        )
    if not labels:
        raise InputError(
            f"No {source.noun}s to evaluate", got=f"{source.name} is empty", next_step="give another source"
        )
    truth = np.array(labels)
    linear = None
    on_embedding = None
    if compared_with is not None:
        progress("fitting the linear classifier", 0, None)
        training = compared_with()
        features = np.concatenate([batch.features for batch in batches])
        linear = linear_accuracy_of(training, features, truth)
        vectors = [batch.embeddings for batch in batches if batch.embeddings is not None]
        if training.embeddings is not None and vectors:
            progress("fitting the linear classifier on the embedding", 0, None)
            own = replace(training, features=training.embeddings)
            on_embedding = linear_accuracy_of(own, np.concatenate(vectors), truth)
    report = _report(truth, batches, (linear, on_embedding), predictor.model)
    return replace(report, passed_over=dict(source.passed_over))


def _report(
    truth: NDArray[np.int64], batches: Sequence[Batch], linear: tuple[float | None, float | None], model: Model
) -> EvaluationReport:
    probabilities = np.concatenate([batch.probabilities for batch in batches])
    right = truth == probabilities.argmax(axis=1)
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
        linear_accuracy=linear[0],
        embedding_accuracy=linear[1],
        calibration_error=calibration_error(probabilities, truth),
        part_accuracy=parts if len(parts) > 1 else {},
        per_class=per_class,
        clusters=len(model.clusters),
        expected_share=model.expected_share,
        classes=model.classes,
        confusion=_confusion(truth, probabilities.argmax(axis=1), len(model.classes)),
        reliability=reliability(probabilities, truth),
    )


def _confusion(truth: NDArray[np.int64], chosen: NDArray[np.int64], classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.bincount(truth * classes + chosen, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(row) for row in counts.tolist())


def calibration_error(probabilities: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Expected calibration error: how far the most probable class's probability is from how often it is right.

    Args:
        probabilities: float32 [n, classes].
        truth: classes, int64 [n].
    """
    bins = reliability(probabilities, truth)
    return sum(abs(sure - right) * count for sure, right, count in bins) / len(truth)


def reliability(
    probabilities: NDArray[np.float32], truth: NDArray[np.int64]
) -> tuple[tuple[float, float, int], ...]:
    """Bins of records whose most probable class has a similar probability, those without records left out.

    Args:
        probabilities: float32 [n, classes].
        truth: classes, int64 [n].

    Returns:
        For each bin the mean of these probabilities, the share of records whose class it is, and their number.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    sure = np.bincount(bins, weights=confidence, minlength=_BINS)
    correct = np.bincount(bins, weights=right, minlength=_BINS)
    return tuple(
        (float(sure[number] / counts[number]), float(correct[number] / counts[number]), int(counts[number]))
        for number in np.flatnonzero(counts)
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
    from sklearn.model_selection import ShuffleSplit

    if len(np.unique(training.labels)) < 2 or len(training.labels) < _MIN_RECORDS:
        return None
    # Chosen on the retained records alone, so that the baseline is a good one and sees no evaluation image.
    inputs = unit_rms(training.features)
    fitted, held_out = next(ShuffleSplit(n_splits=1, test_size=0.2, random_state=0).split(inputs))
    if len(np.unique(training.labels[fitted])) < 2:
        return None

    def classifier(strength: float, chosen: NDArray[np.int64]) -> LogisticRegression:
        new = LogisticRegression(C=strength, tol=1e-3, max_iter=2000)
        return new.fit(inputs[chosen], training.labels[chosen])

    def accuracy(strength: float) -> float:
        predicted = classifier(strength, fitted).predict(inputs[held_out])
        return float((predicted == training.labels[held_out]).mean())

    with one_blas_thread():  # many small products: handing them to several threads takes longer
        best = classifier(best_regularisation(accuracy), np.arange(len(inputs)))
        return float((best.predict(unit_rms(features)) == truth).mean())


def best_regularisation(accuracy: Callable[[float], float]) -> float:
    """The C with the highest accuracy, of equal ones the first; more are tried as long as it is at an end.

    Args:
        accuracy: with a C, on records that were held out.
    """
    found = {strength: accuracy(strength) for strength in _REGULARISATION}
    while True:
        best = max(found, key=lambda strength: found[strength])
        place = _EVERY_REGULARISATION.index(best)
        beside = _EVERY_REGULARISATION[max(place - 1, 0) : place + 2]
        if not (untried := [strength for strength in beside if strength not in found]):
            return best
        found |= {strength: accuracy(strength) for strength in untried}

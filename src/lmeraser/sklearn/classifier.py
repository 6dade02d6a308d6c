"""Exact unlearning as a scikit-learn classifier, in memory, for vectors, texts or images.

The model is linear discriminant analysis, solved from integer sums of quantized vectors (`core.lda`,
`core.sufficient_statistics`). After any sequence of `fit`, `partial_fit`, `forget` and `partial_unfit` the
parameters are, byte for byte, those of one `fit` on the records that are left, in any order.

There is no workspace here, hence no ledger, no certificate, no encryption and no list of what was deleted. Imports
torch only where a backbone is named: a vector needs none.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data

from lmeraser.core.lda import scores, solve_shrunk
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings
from lmeraser.sklearn.errors import NoRecordsError, VectorError
from lmeraser.sklearn.identifiers import Label, Names, labels_of
from lmeraser.sklearn.payloads import Embedder, embedder, rows_of, with_payloads
from lmeraser.sklearn.quantization import Vectors, quantized, same_scale, scale_of, shrinkage_of
from lmeraser.sklearn.taught import ClassSums, TaughtRecords

Inputs = Vectors | QuantizedEmbeddings


class ExactUnlearningClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Linear discriminants from which records can be taken out again, to the bit.

    Args:
        shrinkage: of the covariance towards a multiple of the identity: a number from 0 to 1 as in
            `sklearn.discriminant_analysis.LinearDiscriminantAnalysis`, or "oas" for the oracle approximating
            shrinkage (Chen et al., 2010), which depends on nothing but the sums.
        scale: how vectors become integers; must not be chosen by looking at records that may be forgotten.
            "rms" divides each vector by its own root mean square: for embeddings, whose direction counts. A
            number, or one per column, divides by that: for tables of numbers, whose size counts. The quotients are
            rounded to 1 / 1024. Those beyond 32 are clipped with "rms" (which takes more than 1,024 columns), and
            refused with a number.
        pickle_records: whether a pickle holds what `forget`, `partial_fit` and `partial_unfit` need. Without it, a
            pickle only holds the parameters and predicts.
        backbone: name of a frozen network, as of the setting ``backbone.name``, for instance "all-MiniLM-L6-v2":
            records are then texts or images instead of vectors. Their vectors are those of workspaces with the
            preset `instant`, without a random layer; ``scale`` has to be "rms".
        modality: "text" or "image": what the backbone takes, where its name does not tell.

    Attributes:
        classes_: labels that have records, sorted; with ``classes`` given to `partial_fit`, these.
        class_count_: number of records of each class, int64 [classes].
        coef_: weights, float64 [classes, n_features]; for two classes the difference, [1, n_features].
        intercept_: biases, float64 [classes] or [1].
        n_features_in_: length of a vector.
        feature_names_in_: names of the columns, where the vectors had any.
    """

    def __init__(
        self,
        *,
        shrinkage: float | str = "oas",
        scale: float | str | ArrayLike = "rms",
        pickle_records: bool = False,
        backbone: str | None = None,
        modality: str | None = None,
    ) -> None:
        self.shrinkage = shrinkage
        self.scale = scale
        self.pickle_records = pickle_records
        self.backbone = backbone
        self.modality = modality

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: ArrayLike, ids: Names | None = None, subjects: Names | None = None) -> Self:
        """Learn these records and no others.

        Args:
            X: vectors, [n, d], finite; with a backbone, a list of texts or images.
            y: labels, [n].
            ids: a name for each record, by which it can be forgotten: texts or whole numbers, no two alike.
            subjects: whom each record is about; None for a record that is about nobody.

        Raises:
            VectorError: of `ValueError`; nothing is changed.
        """
        with self._all_or_nothing():
            vectors, labels = self._checked(X, y, reset=True)
            width = self._width(vectors)
            memory = TaughtRecords(width, scale_of(self.scale, width), self._made_by())
            self._teach(memory, vectors, labels, ids, subjects)
        return self

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        ids: Names | None = None,
        subjects: Names | None = None,
    ) -> Self:
        """Learn these records in addition to those that are there.

        Args:
            X: vectors, [n, d], finite; with a backbone, a list of texts or images.
            y: labels, [n].
            classes: the list of all classes, which is fixed from then on. Not needed: without it, classes come and
                go with their records.
            ids: as in `fit`; none of them taught before and not forgotten.
            subjects: as in `fit`.

        Raises:
            VectorError: of `ValueError`; nothing is changed.
            NoRecordsError: the records were left out of a pickle.
        """
        with self._all_or_nothing():
            memory = self._memory_of("partial_fit", fitted=False)
            vectors, labels = self._checked(X, y, reset=memory is None)
            width = self._width(vectors)
            scale = scale_of(self.scale, width)
            if memory is None:
                memory = TaughtRecords(width, scale, self._made_by())
            elif memory.made_by != self._made_by():
                raise VectorError(
                    "The backbone has changed since the first records were taught",
                    got=repr(self.backbone),
                    next_step="set it back, or fit all records again",
                )
            elif not same_scale(memory.scale, scale):
                raise VectorError(
                    "The scale has changed since the first records were taught",
                    got=repr(self.scale),
                    next_step="set it back, or fit all records again",
                )
            memory.declare(None if classes is None else labels_of(np.asarray(classes)))
            self._teach(memory, vectors, labels, ids, subjects)
        return self

    def forget(self, ids: Names | None = None, subjects: Names | None = None) -> Self:
        """Forget records by name: afterwards the model is that of a `fit` on the others.

        Args:
            ids: of records.
            subjects: all records of these.

        Raises:
            NotTaughtError: ids or subjects that were not taught, or are forgotten already; nothing is changed.
            VectorError: neither ids nor subjects are given, or what is given are no names.
            NoRecordsError: the records were left out of a pickle.
        """
        memory = self._memory_of("forget")
        assert memory is not None
        if ids is None and subjects is None:
            raise VectorError("Neither ids nor subjects are named", next_step="name the records to forget")
        keys = memory.named_by(ids, subjects)
        if keys:
            self._publish(memory, memory.without([memory.named[key] for key in keys]))
            memory.drop(keys)
        return self

    def partial_unfit(self, X: Any, y: ArrayLike) -> Self:
        """Take out records whose vectors the caller has kept: the reverse of `partial_fit`.

        Records without names are taken out first, then those that have an id or a subject.

        Args:
            X: vectors, [n, d]; one that was taught twice is taken out once per row.
            y: the labels they were taught with, [n].

        Raises:
            NotTaughtError: rows that were not taught with this label, or not so often; nothing is changed.
            VectorError: rows that fit several named records with the same vector and label, not all of which are
                taken out: only a name tells which.
            NoRecordsError: the records were left out of a pickle.
        """
        memory = self._memory_of("partial_unfit")
        assert memory is not None
        vectors, labels = self._checked(X, y, reset=False)
        records = list(memory.records(self._parts(vectors, memory.scale), labels))
        unnamed, keys = memory.found(records)
        self._publish(memory, memory.without(records))
        memory.drop(keys)
        memory.drop_unnamed(unnamed)
        return self

    # --- predicting -------------------------------------------------------------------------------------------

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Scores of classes, float64 [n, classes]; for two classes that of the second against the first, [n].

        A row's result depends neither on the other rows nor on the number of threads.
        """
        self._check_fitted()
        vectors = self._vectors(X, reset=False)
        parts = [scores(self.coef_, self.intercept_, part) for part in self._parts(vectors, self._scale)]
        found: NDArray[np.float64] = np.concatenate(parts)
        return found[:, 0] if len(self.coef_) == 1 else found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of `classes_`, float64 [n, classes]."""
        from scipy.special import expit, softmax

        found = self.decision_function(X)
        shares: NDArray[np.float64]
        if len(self.classes_) == 1:
            shares = np.ones((len(found), 1))
        elif found.ndim == 1:
            shares = np.column_stack([expit(-found), expit(found)])
        else:
            shares = softmax(found, axis=1)
        return shares

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each vector, [n]."""
        found = self.decision_function(X)
        if len(self.classes_) == 1:
            chosen = np.zeros(len(found), np.int64)
        else:
            chosen = (found > 0).astype(np.int64) if found.ndim == 1 else found.argmax(axis=1)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "coef_")

    # --- copies -----------------------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Any:
        return with_payloads(super().__sklearn_tags__(), self.backbone)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        if not self.pickle_records and "_memory" in state:
            return {**state, "_memory": None}
        return state

    def __copy__(self) -> Self:
        return copy.deepcopy(self)  # two estimators that shared records would subtract them from each other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = type(self).__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))  # a copy in memory keeps the records
        return twin

    # --- state ------------------------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if getattr(self, "_memory", None) is not None and not hasattr(self, "coef_"):
            raise NoRecordsError("Every record is forgotten", next_step="teach other records")
        check_is_fitted(self)

    def _checked(self, X: Any, y: ArrayLike, reset: bool) -> tuple[Inputs, list[Label]]:
        vectors: Inputs
        if self.backbone is None:
            vectors, labels = validate_data(self, X, y, reset=reset, dtype=[np.float64, np.float32])
        else:
            rows = rows_of(X)
            labels = column_or_1d(y, warn=True)
            check_consistent_length(rows, labels)
            vectors = self._vectors(rows, reset=reset)
        check_classification_targets(labels)
        return vectors, labels_of(labels)

    def _vectors(self, X: Any, reset: bool) -> Inputs:
        """Vectors as they are given, float [n, d]; of texts and images quantized embeddings, int16 [n, d + 1]."""
        vectors: Inputs
        if self.backbone is None:
            vectors = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
            return vectors
        if scale_of(self.scale, 1) is not None:
            raise VectorError(
                "The vectors of a backbone have a scale of their own", got=repr(self.scale), next_step='set "rms"'
            )
        return self._embedding()(X)

    def _embedding(self) -> Embedder:
        """What makes vectors of texts or images."""
        assert self.backbone is not None
        return embedder(self.backbone, self.modality)

    def _made_by(self) -> str | None:
        """What has made the vectors; None: whoever gave them."""
        return None if self.backbone is None else str(self._embedding().digest)

    def _width(self, vectors: Inputs) -> int:
        """Length of a vector."""
        return int(vectors.shape[1]) - (0 if self.backbone is None else 1)

    def _parts(self, vectors: Inputs, scale: NDArray[np.float64] | None) -> Iterator[QuantizedEmbeddings]:
        """Quantized vectors, int16 [some, d + 1] at a time."""
        if self.backbone is None:
            return quantized(cast("Vectors", vectors), scale)
        return iter([cast("QuantizedEmbeddings", vectors)])

    def _memory_of(self, method: str, fitted: bool = True) -> TaughtRecords | None:
        """The records, which a method needs; None if there are none yet and ``fitted`` does not ask for any."""
        if "_memory" not in self.__dict__:
            if fitted:
                check_is_fitted(self)  # raises: whatever was fitted has a memory
            return None
        memory: TaughtRecords | None = self._memory
        if memory is None:
            raise NoRecordsError(
                "The records were left out of the pickle that this classifier comes from",
                got=f"{method} needs them",
                next_step="set pickle_records=True before pickling, or fit the records again",
            )
        return memory

    def _teach(
        self,
        memory: TaughtRecords,
        vectors: Inputs,
        labels: list[Label],
        ids: Names | None,
        subjects: Names | None,
    ) -> None:
        names = memory.names_for(len(vectors), ids, subjects)
        memory.check_labels(labels)
        records = list(memory.records(self._parts(vectors, memory.scale), labels, names))
        self._publish(memory, memory.including(records))
        memory.add(records)

    def _publish(self, memory: TaughtRecords, changed: ClassSums) -> None:
        """Solve the model of changed sums, then show it, or nothing if no record is left."""
        shrinkage = shrinkage_of(self.shrinkage)
        counts = np.array(changed.statistics.records_by_class, np.int64)
        fitted: dict[str, Any] = {}
        if counts.any():
            weights, biases = solve_shrunk(changed.statistics, shrinkage)
            if len(counts) == 2:
                weights, biases = weights[1:] - weights[:1], biases[1:] - biases[:1]
            fitted = {
                "classes_": np.array(changed.labels),
                "class_count_": counts,
                "coef_": weights,
                "intercept_": biases,
            }
        else:
            for name in ("classes_", "class_count_", "coef_", "intercept_"):
                self.__dict__.pop(name, None)
        memory.sums = changed
        self.__dict__.update(fitted, _memory=memory, _scale=memory.scale)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Undo what a call that is refused has set, such as the number of columns."""
        before = dict(self.__dict__)
        memory: TaughtRecords | None = before.get("_memory")
        declared = memory.declared if memory else None
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            if memory:
                memory.declared = declared
            raise

"""Exact unlearning as a scikit-learn classifier, in memory, for arrays of vectors such as embeddings.

    from lmeraser.sklearn import ExactUnlearningClassifier

    classifier = ExactUnlearningClassifier().fit(X, y, ids=ids, subjects=subjects)
    classifier.forget(ids=["ticket 17"], subjects=["customer 4"])

The model is linear discriminant analysis, solved from integer sums of quantized vectors (`core.lda`,
`core.sufficient_statistics`). After any sequence of `fit`, `partial_fit`, `forget` and `partial_unfit` the
parameters are, byte for byte, those of one `fit` on the records that are left, in any order.

What a record is made of that can be forgotten:

* taught with an id or a subject: its quantized vector and label are kept, and subtracted when it is named;
* taught without either: only a keyed digest of its quantized vector is kept. It can be subtracted by whoever has
  the vector (`partial_unfit`); the digest is how a vector that was never taught is recognised and refused.

There is no workspace here, hence no ledger, no certificate, no encryption and no list of what was deleted. Must
not import torch: a vector needs no backbone.
"""

from __future__ import annotations

import copy
import hashlib
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from lmeraser.core.lda import scores, solve_shrunk
from lmeraser.core.sufficient_statistics import (
    LARGEST_ENTRY,
    SCALE,
    QuantizedEmbeddings,
    SufficientStatistics,
    quantize,
    stack_quantized,
    unit_rms_at_any_size,
)
from lmeraser.data.canonical_names import canonical_name, is_missing
from lmeraser.errors import InputError, NoModelError, UnknownRecordError, listing

__all__ = ["ExactUnlearningClassifier", "NoRecordsError", "NotTaughtError", "VectorError"]

_AT_ONCE = 4096  # vectors that are quantized or scored together: bounds the memory, changes no result

Label = bool | int | float | str
Vectors = NDArray[np.floating]  # [n, d], float32 or float64
Names = Iterable[object]


class VectorError(InputError, ValueError):
    """Parameters, ids, subjects, labels or vectors that cannot be used; a `ValueError`, as in scikit-learn."""


class NotTaughtError(UnknownRecordError, ValueError):
    """Ids, subjects or vectors that were not taught, or are forgotten already; all of them are listed."""


class NoRecordsError(NoModelError, NotFittedError):  # type: ignore[misc]  # scikit-learn is untyped
    """Nothing is left to predict with, or the records were left out of a pickle."""


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
    ) -> None:
        self.shrinkage = shrinkage
        self.scale = scale
        self.pickle_records = pickle_records

    # --- learning ---------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, ids: Names | None = None, subjects: Names | None = None) -> Self:
        """Learn these records and no others.

        Args:
            X: vectors, [n, d]; finite.
            y: labels, [n].
            ids: a name for each record, by which it can be forgotten: texts or whole numbers, no two alike.
            subjects: whom each record is about; None for a record that is about nobody.

        Raises:
            VectorError: of `ValueError`; nothing is changed.
        """
        with self._all_or_nothing():
            vectors, labels = self._checked(X, y, reset=True)
            memory = _Memory(vectors.shape[1], _scale_of(self.scale, vectors.shape[1]))
            self._teach(memory, vectors, labels, ids, subjects)
        return self

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        ids: Names | None = None,
        subjects: Names | None = None,
    ) -> Self:
        """Learn these records in addition to those that are there.

        Args:
            X: vectors, [n, d]; finite.
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
            scale = _scale_of(self.scale, vectors.shape[1])
            if memory is None:
                memory = _Memory(vectors.shape[1], scale)
            elif not _same_scale(memory.scale, scale):
                raise VectorError(
                    "The scale has changed since the first records were taught",
                    got=repr(self.scale),
                    next_step="set it back, or fit all records again",
                )
            memory.declare(None if classes is None else _labels_of(np.asarray(classes)))
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

    def partial_unfit(self, X: ArrayLike, y: ArrayLike) -> Self:
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
        records = list(memory.records(vectors, labels))
        unnamed, keys = memory.found(records)
        self._publish(memory, memory.without(records))
        memory.drop(keys)
        memory.drop_unnamed(unnamed)
        return self

    # --- predicting -------------------------------------------------------------------------------------------

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores of classes, float64 [n, classes]; for two classes that of the second against the first, [n].

        A row's result depends neither on the other rows nor on the number of threads.
        """
        self._check_fitted()
        vectors = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        parts = [scores(self.coef_, self.intercept_, part) for part in _quantized(vectors, self._scale)]
        found: NDArray[np.float64] = np.concatenate(parts)
        return found[:, 0] if len(self.coef_) == 1 else found

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
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

    def predict(self, X: ArrayLike) -> NDArray[Any]:
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

    def _checked(self, X: ArrayLike, y: ArrayLike, reset: bool) -> tuple[Vectors, list[Label]]:
        vectors, labels = validate_data(self, X, y, reset=reset, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        return vectors, _labels_of(labels)

    def _memory_of(self, method: str, fitted: bool = True) -> _Memory | None:
        """The records, which a method needs; None if there are none yet and ``fitted`` does not ask for any."""
        if "_memory" not in self.__dict__:
            if fitted:
                check_is_fitted(self)  # raises: whatever was fitted has a memory
            return None
        memory: _Memory | None = self._memory
        if memory is None:
            raise NoRecordsError(
                "The records were left out of the pickle that this classifier comes from",
                got=f"{method} needs them",
                next_step="set pickle_records=True before pickling, or fit the records again",
            )
        return memory

    def _teach(
        self,
        memory: _Memory,
        vectors: Vectors,
        labels: list[Label],
        ids: Names | None,
        subjects: Names | None,
    ) -> None:
        names = memory.names_for(len(vectors), ids, subjects)
        memory.check_labels(labels)
        records = list(memory.records(vectors, labels, names))
        self._publish(memory, memory.including(records))
        memory.add(records)

    def _publish(self, memory: _Memory, changed: _Sums) -> None:
        """Solve the model of changed sums, then show it, or nothing if no record is left."""
        shrinkage = _shrinkage_of(self.shrinkage)
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
        memory: _Memory | None = before.get("_memory")
        declared = memory.declared if memory else None
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            if memory:
                memory.declared = declared
            raise


class _Record(NamedTuple):
    """One taught record.

    Attributes:
        label: its class.
        vector: its quantized vector as bytes.
        key: its id, or a number if it only has a subject; None if it has neither.
        subject: whom it is about.
    """

    label: Label
    vector: bytes
    key: str | int | None = None
    subject: str | None = None


class _Sums(NamedTuple):
    """Sufficient statistics, and the labels of their classes in order."""

    statistics: SufficientStatistics
    labels: list[Label]


class _Memory:
    """What was taught and is not forgotten.

    Attributes:
        scale: None for "rms", or what vectors are divided by.
        sums: of all records.
        declared: all classes, if a list of them was given.
        named: records with an id or a subject, by key.
        unnamed: how often each other record was taught, by label and keyed digest.
    """

    def __init__(self, width: int, scale: NDArray[np.float64] | None) -> None:
        self.scale = scale
        self.sums = _Sums(SufficientStatistics.zero(width + 1, 0), [])
        self.declared: tuple[Label, ...] | None = None
        self.named: dict[str | int, _Record] = {}
        self.unnamed: Counter[tuple[Label, bytes]] = Counter()
        self._next_key = 0
        self._secret = secrets.token_bytes(32)

    # --- what is taught ---------------------------------------------------------------------------------------

    def declare(self, classes: list[Label] | None) -> None:
        """Fix the list of classes; nothing if none is given."""
        if classes is None:
            return
        declared = tuple(sorted(set(classes)))
        if self.declared not in (None, declared):
            raise VectorError(
                "Classes differ from those given before",
                got=f"{list(declared)} (before: {list(self.declared or ())})",
                next_step="give the same list, or none",
            )
        if missing := sorted(set(self.sums.labels) - set(declared), key=str):
            raise VectorError(
                "Classes that have records are missing from the list of classes",
                got=listing([repr(label) for label in missing]),
                next_step="add them to the list, or forget their records first",
            )
        self.declared = declared

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Refuse labels of another type than those that are there, or not in the list of classes."""
        known = self.declared or self.sums.labels
        if known and type(known[0]) is not type(labels[0]):
            raise VectorError(
                "Labels of another type than those before",
                got=f"{type(labels[0]).__name__} (before: {type(known[0]).__name__})",
                next_step="convert them",
            )
        if self.declared and (others := sorted(set(labels) - set(self.declared))):
            raise VectorError(
                "Labels that are not in the list of classes",
                got=listing([repr(other) for other in others]),
                next_step="correct the labels, or fit all records again with a longer list",
            )

    def names_for(
        self, count: int, ids: Names | None, subjects: Names | None
    ) -> list[tuple[str | int | None, str | None]]:
        """Key and subject of each of ``count`` new records; raises `VectorError` with all faults of the names."""
        faults: list[str] = []
        keys: list[str | int | None] = [None] * count
        about: list[str | None] = [None] * count
        if subjects is not None:
            cells = _per_row(subjects, count, "Subjects")
            about = [
                None if is_missing(cell) else _name(cell, f"subject of row {row}", faults) for row, cell in cells
            ]
            keys = [None if name is None else self._next_key + row for row, name in enumerate(about)]
        if ids is not None:
            seen: set[str] = set()
            for row, cell in _per_row(ids, count, "Ids"):
                name = keys[row] = _name(cell, f"id of row {row}", faults)
                if name is None:
                    continue
                if name in seen:
                    faults.append(f"id of row {row}: {name!r} is the id of another row, too")
                elif name in self.named:
                    faults.append(f"id of row {row}: {name!r} is taught already")
                seen.add(name)
        if faults:
            raise VectorError("Ids or subjects that cannot be used", got=listing(faults))
        return list(zip(keys, about, strict=True))

    def records(
        self,
        vectors: Vectors,
        labels: Sequence[Label],
        names: Sequence[tuple[str | int | None, str | None]] | None = None,
    ) -> Iterator[_Record]:
        """Records of vectors with their labels and, if they have any, keys and subjects."""
        rows = (row.tobytes() for part in _quantized(vectors, self.scale) for row in part)
        for row, (label, vector) in enumerate(zip(labels, rows, strict=True)):
            yield _Record(label, vector, *(names[row] if names else ()))

    # --- which are named --------------------------------------------------------------------------------------

    def named_by(self, ids: Names | None, subjects: Names | None) -> list[str | int]:
        """Keys of the records with these ids and of these subjects.

        Raises:
            NotTaughtError: with all that are unknown.
        """
        keys: dict[str | int, None] = {}
        unknown: list[str] = []
        for given in _names_given(ids):
            name = _name(given, "id")
            if name in self.named:
                keys[name] = None
            else:
                unknown.append(f"id {given!r}")
        wanted = {_name(given, "subject"): given for given in _names_given(subjects)}
        if wanted:
            of_subjects = {key: record.subject for key, record in self.named.items() if record.subject in wanted}
            keys |= dict.fromkeys(of_subjects)
            held = set(of_subjects.values())
            unknown += [f"subject {given!r}" for name, given in wanted.items() if name is None or name not in held]
        if unknown:
            raise NotTaughtError(
                "Ids or subjects that were not taught, or are forgotten already",
                got=listing(unknown),
                next_step="leave them out; nothing was changed"
                if self.named
                else "give partial_unfit the rows: no record has an id or a subject",
            )
        return list(keys)

    def found(self, records: Sequence[_Record]) -> tuple[Counter[tuple[Label, bytes]], list[str | int]]:
        """Which unnamed records, and which keys, have these labels and vectors; each row takes one record."""
        rows: dict[tuple[Label, bytes], list[int]] = {}
        for row, record in enumerate(records):
            rows.setdefault((record.label, record.vector), []).append(row)
        candidates: dict[tuple[Label, bytes], list[str | int]] = {}
        for key, record in self.named.items():
            if (record.label, record.vector) in rows:
                candidates.setdefault((record.label, record.vector), []).append(key)
        unnamed: Counter[tuple[Label, bytes]] = Counter()
        keys: list[str | int] = []
        missing: list[int] = []
        ambiguous: list[int] = []
        for (label, vector), places in rows.items():
            entry = (label, self._digest(vector))
            unnamed[entry] = min(len(places), self.unnamed[entry])
            left = places[unnamed[entry] :]
            known = candidates.get((label, vector), [])
            if len(left) > len(known):
                missing += left[len(known) :]
            elif left and len(left) < len(known):
                ambiguous += left
            elif left:
                keys += known
        if missing:
            raise NotTaughtError(
                "Rows that were not taught with their labels, or are forgotten already",
                got=listing([f"row {row}" for row in sorted(missing)]),
                next_step="leave them out; nothing was changed",
            )
        if ambiguous:
            raise VectorError(
                "Rows that fit more records with different names than are to be taken out",
                got=listing([f"row {row}" for row in sorted(ambiguous)]),
                next_step="name the records with forget; nothing was changed",
            )
        return unnamed, keys

    # --- sums -------------------------------------------------------------------------------------------------

    def including(self, records: Sequence[_Record]) -> _Sums:
        """The sums with these records."""
        return self._changed(records, 1)

    def without(self, records: Sequence[_Record]) -> _Sums:
        """The sums without these records, which they include."""
        return self._changed(records, -1)

    def _changed(self, records: Sequence[_Record], sign: int) -> _Sums:
        declared = self.declared or ()
        labels = sorted({*self.sums.labels, *declared, *(record.label for record in records)})
        before = {label: column for column, label in enumerate(self.sums.labels)}
        statistics = self.sums.statistics.with_classes([before.get(label) for label in labels])
        columns = {label: column for column, label in enumerate(labels)}
        for start in range(0, len(records), _AT_ONCE):
            part = records[start : start + _AT_ONCE]
            vectors = stack_quantized(record.vector for record in part)
            statistics = statistics.plus(vectors, [columns[record.label] for record in part], sign)
        # A class goes with its last record, as if it had never been there.
        kept = [c for c, count in enumerate(statistics.records_by_class) if count or labels[c] in declared]
        return _Sums(statistics.with_classes(kept), [labels[column] for column in kept])

    # --- changes ----------------------------------------------------------------------------------------------

    def add(self, records: Iterable[_Record]) -> None:
        """Keep what is needed to take these records out again."""
        for record in records:
            if record.key is None:
                self.unnamed[record.label, self._digest(record.vector)] += 1
                continue
            self.named[record.key] = record
            if isinstance(record.key, int):
                self._next_key = max(self._next_key, record.key + 1)

    def drop(self, keys: Iterable[str | int]) -> None:
        """Keep nothing of these named records."""
        for key in keys:
            del self.named[key]

    def drop_unnamed(self, unnamed: Counter[tuple[Label, bytes]]) -> None:
        """Keep nothing of so many of these unnamed records."""
        self.unnamed -= unnamed  # leaves out what is 0

    def _digest(self, vector: bytes) -> bytes:
        return hashlib.blake2b(vector, digest_size=32, key=self._secret).digest()


def _quantized(vectors: Vectors, scale: NDArray[np.float64] | None) -> Iterator[QuantizedEmbeddings]:
    """Quantized vectors, int16 [at most 4,096, d + 1] at a time; a row does not depend on the others."""
    for start in range(0, len(vectors), _AT_ONCE):
        part = vectors[start : start + _AT_ONCE]
        if scale is None:
            yield quantize(unit_rms_at_any_size(part))
            continue
        with np.errstate(over="ignore"):
            scaled = part / scale
        beyond = np.argwhere(np.abs(scaled) > LARGEST_ENTRY)
        if len(beyond):
            raise VectorError(
                f"Numbers beyond {LARGEST_ENTRY * SCALE:.0f} / {SCALE} times the scale",
                got=listing([f"row {start + row}, column {column}" for row, column in beyond]),
                next_step="leave these rows out, or fit all records with a larger scale",
            )
        yield quantize(scaled.astype(np.float32))


def _scale_of(scale: object, width: int) -> NDArray[np.float64] | None:
    """None for "rms", or what vectors are divided by, float64 [] or [width]."""
    if isinstance(scale, str) and scale == "rms":
        return None
    wrong = VectorError(
        "Scale cannot be used",
        got=f'{scale!r} (possible: "rms", a number above 0, or one for each of {width} columns)',
    )
    try:
        numbers = np.array(scale, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong from None
    if isinstance(scale, (str, bool)) or numbers.shape not in ((), (width,)):
        raise wrong
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise wrong
    return numbers


def _same_scale(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool((one == other).all())


def _shrinkage_of(shrinkage: object) -> float | None:
    """None for "oas", or a number from 0 to 1."""
    if isinstance(shrinkage, str) and shrinkage == "oas":
        return None
    if isinstance(shrinkage, Real) and not isinstance(shrinkage, bool) and 0 <= float(shrinkage) <= 1:
        return float(shrinkage)
    raise VectorError("Shrinkage cannot be used", got=f'{shrinkage!r} (possible: 0 to 1, or "oas")')


def _labels_of(labels: NDArray[Any]) -> list[Label]:
    """Labels as Python's own values, all of one type."""
    found = [str(label) if isinstance(label, str) else label for label in labels.ravel().tolist()]
    found = [label + 0.0 if isinstance(label, float) else label for label in found]  # -0.0 is 0.0
    kinds = {type(label) for label in found}
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        raise VectorError(
            "Labels are neither all texts nor all numbers of one type",
            got=", ".join(sorted(kind.__name__ for kind in kinds)) or "none",
            next_step="convert them to one type",
        )
    if any(isinstance(label, float) and not math.isfinite(label) for label in found):
        raise VectorError("Labels that are not finite", got="nan or inf", next_step="leave them out")
    return found


def _name(value: object, place: str, faults: list[str] | None = None) -> str | None:
    """The canonical form of a name; None, and a line in ``faults``, if it cannot be one."""
    try:
        return canonical_name(value)
    except ValueError as error:
        if faults is not None:
            faults.append(f"{place}: {error}")
        return None


def _per_row(names: Names, count: int, what: str) -> Iterable[tuple[int, object]]:
    """Names with the numbers of their rows; refuses what has no order, or is not one per row."""
    if isinstance(names, (str, bytes, Set, Mapping)) or not isinstance(names, Iterable) or _is_table(names):
        raise VectorError(
            f"{what} are not a list",
            got=type(names).__name__,
            next_step="give one for each row, in the same order",
        )
    cells = list(names)
    if len(cells) != count:
        raise VectorError(
            f"{what} and rows differ in number", got=f"{len(cells)} and {count}", next_step="give one for each row"
        )
    return enumerate(cells)


def _names_given(names: Names | None) -> list[object]:
    """Names of records to forget: several, or a single one, which is never taken for a list of its letters."""
    if names is None:
        return []
    if isinstance(names, str) or not isinstance(names, Iterable):
        return [names]
    if isinstance(names, (bytes, Mapping)) or _is_table(names):
        raise VectorError("Names are not a list", got=type(names).__name__, next_step="give a list of names")
    return list(names)


def _is_table(names: object) -> bool:
    """Whether names are an array or data frame of other than one dimension."""
    return getattr(names, "ndim", 1) != 1

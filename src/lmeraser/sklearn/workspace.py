"""A workspace as a scikit-learn classifier: what is taught and forgotten is in its folder, with all evidence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array, check_consistent_length, column_or_1d

from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config, merge
from lmeraser.errors import NoModelError
from lmeraser.sklearn.errors import NoRecordsError, VectorError
from lmeraser.sklearn.identifiers import Names, names_given, per_row
from lmeraser.sklearn.payloads import payload_settings, rows_of, with_payloads

if TYPE_CHECKING:
    from lmeraser.eraser import Eraser

_SETTINGS = "lmeraser.toml"
_ID = "id"
_SUBJECT = "subject"
_LABEL = "label"


class WorkspaceClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """The records and the model of a workspace, with scikit-learn's methods.

    Nothing is kept in this object: two of them with one path are the same classifier, and the command line and the
    service work on the same workspace. Labels are texts, as in every workspace.

    Args:
        path: folder of the workspace; `fit` and `partial_fit` create it if there is none.
        preset: of a workspace that is created.
        settings: further settings of a workspace that is created, as in ``lmeraser.toml``.
        backbone: as of `ExactUnlearningClassifier`, for a workspace that is created.
        modality: as of `ExactUnlearningClassifier`.

    Attributes:
        classes_: the class names of the workspace, in the order of `predict_proba`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        preset: PresetName = "instant",
        settings: Mapping[str, Any] | None = None,
        backbone: str | None = None,
        modality: str | None = None,
    ) -> None:
        self.path = path
        self.preset = preset
        self.settings = settings
        self.backbone = backbone
        self.modality = modality

    def fit(self, X: Any, y: ArrayLike, ids: Names | None = None, subjects: Names | None = None) -> Self:
        """Learn these records in a workspace that has none.

        Args:
            X: vectors, [n, d], or a list of texts or images.
            y: class names, [n].
            ids: a name for each record. Default: the row numbers.
            subjects: whom each record is about; None for a record that is about nobody.

        Raises:
            VectorError: the workspace has records already, or labels are no texts.
            LmeraserError: what `Eraser.add` and `Eraser.train` raise; nothing was added.
        """
        if self._exists():
            with self._open() as eraser:
                count = len(eraser.record_ids())
            if count:
                raise VectorError(
                    "The workspace has records already",
                    got=f"{count} in {self.path}",
                    next_step="add to them with partial_fit, or fit into another folder",
                )
        return self._learn(X, y, ids if ids is not None else range(len(_rows(X))), subjects)

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
            X: as of `fit`, as are ``y`` and ``subjects``.
            y: class names.
            classes: further class names, also of classes that have no records yet.
            ids: a name for each record; none of them known already.
            subjects: whom each record is about.

        Raises:
            VectorError: records have no ids, or labels are no texts.
            LmeraserError: as `fit`.
        """
        if ids is None:
            raise VectorError(
                "Records that are added to a workspace need ids", next_step="pass ids, one for each row"
            )
        return self._learn(X, y, ids, subjects, () if classes is None else _texts(classes))

    def forget(self, ids: Names | None = None, subjects: Names | None = None) -> Self:
        """Carry out a deletion request for these records; its certificate is in the workspace.

        Raises:
            VectorError: neither ids nor subjects are named.
            LmeraserError: what `Eraser.unlearn` raises, above all for names that are not known; nothing changes.
        """
        if ids is None and subjects is None:
            raise VectorError("Neither ids nor subjects are named", next_step="name the records to forget")
        with self._open() as eraser:
            eraser.unlearn(ids=_named(ids), subjects=_named(subjects))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Probabilities of `classes_`, float32 [n, classes], by the served model.

        Raises:
            NoRecordsError: there is no model to predict with.
        """
        with self._open() as eraser:
            try:
                return eraser.predict_proba(_rows(X))
            except NoModelError as error:
                raise NoRecordsError(
                    "The workspace has no model", got=str(self.path), next_step="fit it"
                ) from error

    def predict(self, X: Any) -> NDArray[np.str_]:
        """The most probable class of each record, [n]."""
        chosen = self.predict_proba(X).argmax(axis=1)
        labels: NDArray[np.str_] = self.classes_[chosen]
        return labels

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The class names of the workspace."""
        if not self._exists():
            raise AttributeError("classes_: there is no workspace yet")  # as of an estimator that is not fitted
        with self._open() as eraser:
            return np.array(eraser.classes, dtype=np.str_)

    def open(self) -> Eraser:
        """The workspace itself, with audits, plans, certificates and all else; close it after use."""
        return self._open()

    def __sklearn_is_fitted__(self) -> bool:
        return self._exists()

    def __sklearn_tags__(self) -> Any:
        return with_payloads(super().__sklearn_tags__(), self.backbone)

    def _exists(self) -> bool:
        return (Path(self.path) / _SETTINGS).is_file()

    def _open(self) -> Eraser:
        from lmeraser.eraser import Eraser

        if not self._exists():
            raise NoRecordsError("There is no workspace", got=str(self.path), next_step="fit it")
        return Eraser(self.path)

    def _create(self, width: int | None, classes: list[str]) -> None:
        """Create the workspace, for vectors of a length, or for what the backbone takes."""
        from lmeraser.eraser import Eraser

        if self.backbone is None:
            own: dict[str, Any] = {"data": {"modality": "vector", "length": width}}
        else:
            own = payload_settings(self.backbone, self.modality)
        settings = merge(own, self.settings or {})
        Eraser.create(self.path, settings, preset=self.preset, classes=classes).close()

    def _learn(
        self, X: Any, y: ArrayLike, ids: Names, subjects: Names | None, classes: list[str] | tuple[str, ...] = ()
    ) -> Self:
        """Add records to the workspace, which is created if there is none, and train."""
        rows, labels = _rows(X), _texts(y)
        check_consistent_length(rows, labels)
        names = [name for _, name in per_row(ids, len(rows), "Ids")]
        about = [name for _, name in per_row(subjects, len(rows), "Subjects")] if subjects is not None else None
        known = sorted({*labels, *classes})
        created = not self._exists()
        if created:
            self._create(None if self.backbone else len(rows[0]), known)
        with self._open() as eraser, _removed_if_refused(eraser, created=created):
            new = [name for name in known if name not in eraser.classes]
            column = _column(eraser.workspace.config)
            records = [
                {_ID: name, column: row, _LABEL: label}
                for name, row, label in zip(names, rows, labels, strict=True)
            ]
            if about is not None:
                records = [{**record, _SUBJECT: name} for record, name in zip(records, about, strict=True)]
            _add(eraser, records, subjects=about is not None, extend=bool(new))
            if further := [name for name in classes if name not in eraser.classes]:
                eraser.extend_classes(further)
            eraser.train()
        return self


@contextmanager
def _removed_if_refused(eraser: Eraser, *, created: bool) -> Iterator[None]:
    """Remove a workspace made for records that are refused: they fixed its classes and the length of vectors."""
    try:
        yield
    except BaseException:
        if created and not eraser.workspace.records.count():
            eraser.close()
            for path in eraser.workspace.root.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _add(eraser: Eraser, records: list[dict[str, Any]], *, subjects: bool, extend: bool) -> None:
    from lmeraser.data.sources import Columns

    columns = Columns(id=_ID, subject=_SUBJECT if subjects else None, payload=_column(eraser.workspace.config))
    eraser.add(records, columns=columns, extend_classes=extend)


def _column(config: Config) -> str:
    """The column of the payload: the name of the modality."""
    return str(config.data.modality)


def _rows(X: Any) -> list[Any]:
    """Vectors, texts or images one by one."""
    if hasattr(X, "toarray"):  # sparse, which is refused
        check_array(X)
    array = X if isinstance(X, np.ndarray) else None
    if array is not None and array.ndim == 2 and array.dtype.kind in "fiub":
        return list(check_array(array, dtype=np.float32))
    return rows_of(X)


def _texts(labels: ArrayLike) -> list[str]:
    """Class names."""
    found = column_or_1d(np.asarray(labels)).tolist()
    if others := [label for label in found if not isinstance(label, str)]:
        raise VectorError(
            "Labels of a workspace are texts",
            got=f"{others[0]!r} of type {type(others[0]).__name__}",
            next_step="convert them, for instance with y.astype(str)",
        )
    return [str(label) for label in found]


def _named(names: Names | None) -> list[Any] | None:
    return None if names is None else names_given(names)

"""The scikit-learn classifier: its parameters are those of one fit on what is left, and its contract is kept."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.covariance import oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from conftest import examples
from lmeraser import LmeraserError
from lmeraser.core.sufficient_statistics import dequantize, quantize, unit_rms_at_any_size
from lmeraser.errors import InputError, NoModelError, UnknownRecordError
from lmeraser.sklearn import ExactUnlearningClassifier, NoRecordsError, NotTaughtError, VectorError
from sklearn import config_context

Vectors = NDArray[np.float64]

COUNT = 14
WIDTH = 5
LABELS = np.array(["ant", "bee", "cat"] * 5)[:COUNT]
SUBJECTS = [None if row % 4 == 0 else f"person {row % 3}" for row in range(COUNT)]


def vectors(count: int = COUNT, width: int = WIDTH, seed: int = 0) -> Vectors:
    found: Vectors = np.random.default_rng(seed).standard_normal((count, width)) * 3
    return found


def names(rows: Iterable[int]) -> list[str]:
    return [f"record {row}" for row in rows]


def taught(**parameters: Any) -> ExactUnlearningClassifier:
    """A classifier that knows all records by id and subject."""
    return ExactUnlearningClassifier(**parameters).fit(vectors(), LABELS, names(range(COUNT)), SUBJECTS)


def parameters_of(classifier: ExactUnlearningClassifier) -> tuple[Any, ...]:
    """Everything that was learned, as bytes."""
    if not hasattr(classifier, "coef_"):
        return ()
    arrays = [classifier.classes_, classifier.class_count_, classifier.coef_, classifier.intercept_]
    return tuple((array.dtype, array.shape, array.tobytes()) for array in arrays)


def everything(classifier: ExactUnlearningClassifier) -> tuple[Any, ...]:
    """The parameters and what is kept of records."""
    memory = classifier.__dict__.get("_memory")
    kept = None if memory is None else (dict(memory.named), dict(memory.unnamed), memory.sums.statistics.digest)
    return parameters_of(classifier), kept, memory and memory.declared, classifier.__dict__.get("n_features_in_")


# --- exactness ---------------------------------------------------------------------------------------------


class History:
    """A classifier, and beside it the rows that it ought to know: the numbers of rows, by how they were taught."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.classifier = ExactUnlearningClassifier(**parameters)
        self.parameters = parameters
        self.rows = vectors()
        self.known: dict[int, str] = {}

    def teach(self, rows: Sequence[int], how: str, anew: bool) -> None:
        rows = list(rows) if anew else [row for row in rows if row not in self.known]
        if not rows:
            return
        teach = self.classifier.fit if anew else self.classifier.partial_fit
        more: dict[str, Any] = {}
        if how in ("ids", "both"):
            more["ids"] = names(rows)
        if how in ("subjects", "both"):
            more["subjects"] = [SUBJECTS[row] for row in rows]
        teach(self.rows[rows], LABELS[rows], **more)
        self.known = ({} if anew else self.known) | dict.fromkeys(rows, how)

    def forget(self, rows: Sequence[int], subject: bool) -> None:
        """Forget these rows by their ids or vectors, or everything of their subjects."""
        if subject:
            about = {SUBJECTS[row] for row in rows if self.known.get(row) in ("subjects", "both")} - {None}
            gone = [r for r, how in self.known.items() if how in ("subjects", "both") and SUBJECTS[r] in about]
            self.classifier.forget(subjects=sorted(filter(None, about)))
        else:
            by_id = [row for row in rows if self.known.get(row) in ("ids", "both")]
            self.classifier.forget(ids=names(by_id)) if by_id else None
            by_row = [row for row in rows if self.known.get(row) in ("none", "subjects")]
            self.classifier.partial_unfit(self.rows[by_row], LABELS[by_row]) if by_row else None
            gone = [*by_id, *by_row]
        self.known = {row: how for row, how in self.known.items() if row not in gone}

    def expected(self, order: Sequence[int]) -> tuple[Any, ...]:
        left = [row for row in order if row in self.known]
        if not left:
            return ()
        return parameters_of(ExactUnlearningClassifier(**self.parameters).fit(self.rows[left], LABELS[left]))


_rows = st.lists(st.integers(0, COUNT - 1), unique=True, min_size=1, max_size=COUNT)
_how = st.sampled_from(["ids", "subjects", "both", "none"])
_steps = st.lists(
    st.tuples(st.just("fit"), _rows, _how)
    | st.tuples(st.just("partial_fit"), _rows, _how)
    | st.tuples(st.just("forget"), _rows, st.booleans()),
    min_size=1,
    max_size=6,
)
_parameters = st.sampled_from(
    [{}, {"shrinkage": 0.3}, {"shrinkage": 0}, {"scale": 2.0}, {"scale": [1.0, 2.0, 3.0, 4.0, 5.0]}]
)
_all = list(range(COUNT))


@given(_parameters, _steps, st.permutations(range(COUNT)))
@examples(fast=40, explore=600)
@example({}, [("fit", _all, "both"), ("forget", _all, False)], _all)
@example({}, [("fit", _all, "subjects"), ("forget", _all, True), ("partial_fit", _all, "ids")], _all)
def test_after_any_history_the_parameters_are_those_of_one_fit_on_what_is_left(
    parameters: dict[str, Any], steps: list[tuple[str, list[int], Any]], order: list[int]
) -> None:
    history = History(parameters)
    for verb, rows, how in steps:
        if verb == "forget":
            if history.known:
                history.forget(rows, how)
        else:
            history.teach(rows, how, anew=verb == "fit")
        assert parameters_of(history.classifier) == history.expected(order)


@given(st.permutations(range(COUNT)), st.integers(1, COUNT - 1))
@examples(fast=8, explore=100)
def test_predictions_depend_neither_on_the_history_nor_on_other_rows_nor_on_threads(
    order: list[int], cut: int
) -> None:
    once, asked = taught(), vectors(40, seed=1)
    history = ExactUnlearningClassifier()
    for part in (order[:cut], order[cut:]):
        with threadpool_limits(2, user_api="blas"):
            history.partial_fit(vectors()[part], LABELS[part])
    together = once.predict_proba(asked)
    assert history.predict_proba(asked).tobytes() == together.tobytes()
    for row in range(5):
        assert history.predict_proba(asked[[row]]).tobytes() == together[[row]].tobytes()


def test_many_more_vectors_than_are_quantized_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = parameters_of(taught())
    monkeypatch.setattr("lmeraser.sklearn.quantization.AT_ONCE", 3)
    again = taught()
    assert parameters_of(again) == expected
    again.forget(ids=names(range(8)))
    assert parameters_of(again) == parameters_of(ExactUnlearningClassifier().fit(vectors()[8:], LABELS[8:]))


@pytest.mark.parametrize(
    "change", [np.asfortranarray, lambda X: X[:, ::-1][:, ::-1], lambda X: np.repeat(X, 2, 0)[::2]]
)
def test_how_vectors_lie_in_memory_does_not_matter(change: Callable[[Vectors], Vectors]) -> None:
    X = vectors(COUNT, 300)
    expected = parameters_of(ExactUnlearningClassifier().fit(X, LABELS))
    assert parameters_of(ExactUnlearningClassifier().fit(change(X), LABELS)) == expected


# --- the same as scikit-learn's discriminants ----------------------------------------------------------------


def quantized(X: Vectors, scale: float | None) -> Vectors:
    """What the classifier computes with, by hand."""
    scaled = unit_rms_at_any_size(X) if scale is None else (X / scale).astype(np.float32)
    found: Vectors = dequantize(quantize(scaled))[:, :-1].astype(np.float64)
    return found


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 5),
    st.sampled_from([1, 3, 40]),
    st.sampled_from([0.01, 0.3, 1.0]),
    st.sampled_from([None, 1.0]),
)
@examples(fast=25, explore=200)
def test_with_a_number_as_shrinkage_it_is_linear_discriminant_analysis(
    seed: int, classes: int, width: int, shrinkage: float, scale: float | None
) -> None:
    random = np.random.default_rng(seed)
    y = np.r_[np.arange(classes), np.arange(classes), random.integers(0, classes, 30)]
    X = random.standard_normal((len(y), width + 1)) + random.standard_normal((classes, width + 1))[y]
    ours = ExactUnlearningClassifier(shrinkage=shrinkage, scale="rms" if scale is None else scale).fit(X, y)
    points = quantized(X, scale)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(points, y)
    for name in ("coef_", "intercept_"):
        expected = getattr(theirs, name)
        np.testing.assert_allclose(
            getattr(ours, name), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max(), err_msg=name
        )
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(points), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours.classes_, theirs.classes_)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(points), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(12, 3), (40, 60), (300, 8)])
def test_oas_is_the_published_shrinkage_of_the_covariance_around_class_means(count: int, width: int) -> None:
    random = np.random.default_rng(count)
    X, y = random.standard_normal((count, width)) * random.uniform(0.2, 3, width), np.arange(count) % 3
    points = quantized(X, 1.0)
    around = points - np.stack([points[y == label].mean(axis=0) for label in range(3)])[y]
    covariance, _ = oas(around, assume_centered=True)
    means = np.stack([points[y == label].mean(axis=0) for label in range(3)])
    expected = np.linalg.solve(covariance, means.T).T
    ours = ExactUnlearningClassifier(scale=1.0).fit(X, y)
    np.testing.assert_allclose(ours.coef_, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


# --- scikit-learn's contract -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"scale": 4.0, "shrinkage": 0.2}])
def test_check_estimator(parameters: dict[str, Any]) -> None:
    results = check_estimator(ExactUnlearningClassifier(**parameters), on_fail=None, on_skip=None)
    others = {r["check_name"]: r["status"] for r in results if r["status"] != "passed"}
    # Skipped unless a process was started with SCIPY_ARRAY_API: arrays of other libraries are optional.
    assert {name for name, status in others.items() if status != "skipped"} == set(), others
    assert set(others) <= {"check_array_api_input"}


def test_it_works_in_a_pipeline_and_a_grid_search_with_ids() -> None:
    X, y = vectors(60, 6), np.arange(60) % 2
    X[:, 0] += 20 * y
    pipeline = make_pipeline(Normalizer(), ExactUnlearningClassifier())
    grid = {"exactunlearningclassifier__shrinkage": [0.1, "oas"], "exactunlearningclassifier__scale": ["rms", 1.0]}
    search = GridSearchCV(pipeline, grid, cv=3)
    search.fit(X, y, exactunlearningclassifier__ids=names(range(60)))
    assert search.best_score_ > 0.8
    best = search.best_estimator_
    best[-1].forget(ids=names(range(20)))
    left = clone(best).fit(X[20:], y[20:])
    assert parameters_of(best[-1]) == parameters_of(left[-1])
    assert best.score(X, y) > 0.8
    assert cross_val_score(make_pipeline(FunctionTransformer(np.abs), best[-1]), X, y, cv=2).shape == (2,)


def test_a_clone_has_the_parameters_and_no_records() -> None:
    classifier = taught(shrinkage=0.25, scale=[2.0] * WIDTH, pickle_records=True)
    twin = clone(classifier)
    assert twin.get_params() == classifier.get_params()
    with pytest.raises(NotFittedError):
        twin.predict(vectors())
    with pytest.raises(NotFittedError):
        twin.forget(ids=["record 1"])


def test_partial_fit_with_a_list_of_classes_never_predicts_those_without_records() -> None:
    classifier = ExactUnlearningClassifier().partial_fit(vectors(), LABELS, classes=["ant", "bee", "cat", "dog"])
    assert classifier.classes_.tolist() == ["ant", "bee", "cat", "dog"]
    assert classifier.class_count_.tolist() == [5, 5, 4, 0]
    shares = classifier.predict_proba(vectors(50, seed=3))
    assert not shares[:, 3].any()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    with pytest.raises(VectorError, match="not in the list of classes"):
        classifier.partial_fit(vectors(1), ["eel"])
    with pytest.raises(VectorError, match="Classes differ"):
        classifier.partial_fit(vectors(1), ["ant"], classes=["ant", "bee"])
    two = ExactUnlearningClassifier().partial_fit(vectors(3), ["b", "b", "b"], classes=["a", "b"])
    assert two.predict_proba(vectors(2)).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(VectorError, match="missing from the list"):
        taught().partial_fit(vectors(1), ["ant"], classes=["ant", "bee"])


def test_a_class_goes_with_its_last_record_and_the_last_class_with_the_last_record() -> None:
    classifier = taught()
    rows = np.arange(COUNT)
    classifier.forget(ids=names(rows[LABELS == "cat"]))
    assert classifier.classes_.tolist() == ["ant", "bee"]
    assert classifier.decision_function(vectors()).shape == (COUNT,)
    classifier.forget(ids=names(rows[LABELS == "ant"]))
    assert classifier.predict(vectors(3)).tolist() == ["bee"] * 3
    assert classifier.predict_proba(vectors(3)).tolist() == [[1.0]] * 3
    classifier.forget(ids=names(rows[LABELS == "bee"]))
    for predict in (classifier.predict, classifier.predict_proba, classifier.decision_function):
        with pytest.raises(NoRecordsError, match="Every record is forgotten"):
            predict(vectors())
    again = classifier.partial_fit(vectors(), np.arange(COUNT) % 2 == 0)  # even labels of another type
    assert again.classes_.tolist() == [False, True]


def test_it_does_not_matter_who_wrote_a_label_first() -> None:
    X = vectors(4)
    history = ExactUnlearningClassifier().fit(X[:2], [-0.0, 1.0], ids=[0, 1]).partial_fit(X[2:], [0.0, 1.0])
    anew = ExactUnlearningClassifier().fit(X[1:], [1.0, 0.0, 1.0])
    assert parameters_of(history.forget(ids=[0])) == parameters_of(anew)


def test_labels_have_the_types_that_numpy_gives_them() -> None:
    X = vectors(4)
    for y in ([3, 1, 3, 1], [True, False, True, False], [2.0, 1.0, 2.0, 1.0], ["b", "a", "b", "a"]):
        for given_as in (np.array(y), pd.Series(y), y):
            classifier = ExactUnlearningClassifier(scale=1.0).fit(X, given_as)
            assert classifier.classes_.tolist() == np.unique(y).tolist()
            assert classifier.classes_.dtype == np.unique(y).dtype
            assert classifier.predict(X).dtype == np.unique(y).dtype


def test_ids_are_routed_as_metadata() -> None:
    X, y = vectors(20), np.arange(20) % 2
    with config_context(enable_metadata_routing=True):
        classifier = ExactUnlearningClassifier().set_fit_request(ids=True, subjects=True)
        pipeline = make_pipeline(Normalizer(), classifier).fit(X, y, ids=range(20), subjects=[None] * 19 + ["she"])
    pipeline[-1].forget(ids=[3], subjects=["she"])
    assert pipeline[-1].class_count_.tolist() == [10, 8]


def test_columns_of_a_data_frame_keep_their_names() -> None:
    frame = pd.DataFrame(vectors(), columns=list("abcde"))
    classifier = ExactUnlearningClassifier().fit(frame, pd.Series(LABELS), ids=pd.Series(names(range(COUNT))))
    assert parameters_of(classifier) == parameters_of(ExactUnlearningClassifier().fit(vectors(), LABELS))
    with pytest.raises(ValueError, match="feature names"):
        classifier.partial_fit(frame[list("edcba")], LABELS)
    with pytest.raises(VectorError, match="not a list"):
        classifier.fit(frame, LABELS, ids=frame)


@pytest.mark.parametrize("size", [1e-300, 1e-40, 1e-10, 1.0, 1e10, 1e200])
def test_with_rms_the_size_of_vectors_does_not_matter(size: float) -> None:
    X = vectors()
    power = 2.0 ** np.round(np.log2(size))
    assert parameters_of(ExactUnlearningClassifier().fit(X * power, LABELS)) == parameters_of(taught())


# --- forgetting ------------------------------------------------------------------------------------------------


def test_names_have_one_canonical_form() -> None:
    X, y = vectors(4), [0, 1, 0, 1]
    classifier = ExactUnlearningClassifier().fit(X, y, ids=[1, np.int64(2), "Rene\u0301e", " x "])
    classifier.forget(ids=["1", 2.0])
    classifier.forget(ids="Ren\u00e9e")  # one name, not seven letters
    assert parameters_of(classifier) == parameters_of(ExactUnlearningClassifier().fit(X[3:], y[3:]))


def test_what_was_not_taught_is_listed_and_nothing_is_changed() -> None:
    classifier = taught()
    classifier.forget(ids=["record 1"])
    before = everything(classifier)
    with pytest.raises(NotTaughtError) as caught:
        classifier.forget(ids=["record 2", "record 1", "nobody", None], subjects=["person 1", "person 9"])
    assert [line[4:] for line in caught.value.got.splitlines()[1:]] == [
        "id 'record 1'",
        "id 'nobody'",
        "id None",
        "subject 'person 9'",
    ]
    assert everything(classifier) == before
    several: list[dict[str, Any]] = [
        {},
        {"ids": {"record 2": 1}},
        {"subjects": np.array([["person 1"]])},
        {"ids": b"record 2"},
    ]
    for wrong in several:
        with pytest.raises(VectorError):
            classifier.forget(**wrong)
    assert everything(classifier.forget(ids=[])) == before
    with pytest.raises(NotTaughtError, match="partial_unfit"):
        ExactUnlearningClassifier().fit(vectors(), LABELS).forget(ids=["record 1"])


def test_rows_that_were_not_taught_are_listed_and_nothing_is_changed() -> None:
    X, y = vectors(), np.arange(COUNT) % 3
    classifier = ExactUnlearningClassifier().fit(X[:6], y[:6]).partial_fit(X[6:9], y[6:9], ids=[6, 7, 8])
    before = everything(classifier)
    for rows, labels, listed in (
        ([0, 9, 1], y[[0, 9, 1]], ["row 1"]),  # never taught
        ([0, 1], [y[0], y[1] + 1], ["row 1"]),  # another label
        ([2, 7, 2, 7], y[[2, 7, 2, 7]], ["row 2", "row 3"]),  # more often than they were taught
    ):
        with pytest.raises(NotTaughtError) as caught:
            classifier.partial_unfit(X[rows], labels)
        assert [line[4:] for line in caught.value.got.splitlines()[1:]] == listed
        assert everything(classifier) == before
    with pytest.raises(NotTaughtError):
        classifier.partial_unfit(X[[0]], ["text"])
    classifier.partial_unfit(X[[2, 7]], y[[2, 7]])
    with pytest.raises(NotTaughtError):
        classifier.partial_unfit(X[[2]], y[[2]])
    with pytest.raises(NotTaughtError, match="id 7"):
        classifier.forget(ids=[7])
    left = [0, 1, 3, 4, 5, 6, 8]
    assert parameters_of(classifier) == parameters_of(ExactUnlearningClassifier().fit(X[left], y[left]))


def test_equal_records_with_different_names_are_only_taken_out_by_name_or_all_together() -> None:
    X, y = vectors(3)[[0, 0, 0, 1, 2]], [0, 0, 0, 0, 1]
    classifier = ExactUnlearningClassifier().fit(X[1:], y[1:], ids=list("bcde")).partial_fit(X[:1], y[:1])
    classifier.partial_unfit(X[:1], y[:1])  # the one without a name
    before = everything(classifier)
    with pytest.raises(VectorError, match="different names"):
        classifier.partial_unfit(X[:1], y[:1])
    assert everything(classifier) == before
    classifier.partial_unfit(X[:2], y[:2])
    assert parameters_of(classifier) == parameters_of(ExactUnlearningClassifier().fit(X[3:], y[3:]))
    with pytest.raises(NotTaughtError):
        classifier.forget(ids=["b"])


def test_a_record_named_by_id_and_by_subject_is_forgotten_once() -> None:
    classifier = taught().forget(ids=["record 1", "record 1", "record 2"], subjects=["person 1"])
    left = [row for row in range(COUNT) if row != 2 and SUBJECTS[row] != "person 1"]
    assert 1 not in left
    assert parameters_of(classifier) == parameters_of(
        ExactUnlearningClassifier().fit(vectors()[left], LABELS[left])
    )


def test_a_forgotten_id_can_be_taught_again_and_a_taught_one_cannot() -> None:
    classifier = taught().forget(ids=["record 3"])
    before = everything(classifier)
    with pytest.raises(VectorError) as caught:
        classifier.partial_fit(vectors(3), LABELS[:3], ids=["record 4", "new", "new"])
    assert "'record 4' is taught already" in caught.value.got
    assert "'new' is the id of another row" in caught.value.got
    assert everything(classifier) == before
    assert parameters_of(classifier.partial_fit(vectors()[[3]], LABELS[[3]], ids=["record 3"])) == parameters_of(
        taught()
    )


# --- input that is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": [[np.nan] * WIDTH] * COUNT}, "NaN"),
        ({"X": [[np.inf] * WIDTH] * COUNT}, "infinity"),
        ({"X": vectors(COUNT, WIDTH + 1)}, "features"),
        ({"X": vectors(COUNT - 1)}, "inconsistent"),
        ({"y": [0.5] * COUNT}, "Unknown label type"),
        ({"y": [1] * COUNT}, "another type"),
        ({"ids": names(range(3))}, "Ids and rows differ"),
        ({"ids": "record 1"}, "Ids are not a list"),
        ({"ids": set(names(range(COUNT)))}, "Ids are not a list"),
        ({"ids": [None] * COUNT}, "cannot be used"),
        ({"ids": [1.5] * COUNT}, "cannot be used"),
        ({"subjects": ["a\nb"] * COUNT}, "cannot be used"),
        ({"subjects": [[1]] * COUNT}, "cannot be used"),
    ],
)
def test_what_cannot_be_used_is_a_value_error_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    classifier = taught()
    before = everything(classifier)
    arguments: dict[str, Any] = {
        "X": vectors(),
        "y": LABELS,
        "ids": [f"new {row}" for row in range(COUNT)],
    } | change
    with pytest.raises(ValueError, match=message):
        classifier.partial_fit(**arguments)
    assert everything(classifier) == before
    if message not in ("features", "another type"):
        with pytest.raises(ValueError, match=message):
            classifier.fit(**arguments)
        assert everything(classifier) == before
        untaught = ExactUnlearningClassifier()
        with pytest.raises(ValueError, match=message):
            untaught.partial_fit(**arguments)
        assert not hasattr(untaught, "n_features_in_")


@pytest.mark.parametrize(
    "parameters",
    [
        {"shrinkage": -0.1},
        {"shrinkage": 1.1},
        {"shrinkage": "auto"},
        {"shrinkage": None},
        {"shrinkage": float("nan")},
        {"scale": 0},
        {"scale": -1.0},
        {"scale": True},
        {"scale": "1"},
        {"scale": None},
        {"scale": [1.0, 2.0]},
        {"scale": [1.0, 2.0, 3.0, 4.0, np.inf]},
    ],
)
def test_parameters_that_mean_nothing_are_refused_when_they_are_used(parameters: dict[str, Any]) -> None:
    classifier = ExactUnlearningClassifier(**parameters)
    with pytest.raises(VectorError):
        classifier.fit(vectors(), LABELS)
    assert everything(classifier)[0] == ()


def test_numbers_beyond_the_range_of_a_scale_are_refused_and_the_scale_stays() -> None:
    X = vectors()
    X[3, 2] = 32.0
    X[5, 0] = -1e300
    with pytest.raises(VectorError) as caught:
        ExactUnlearningClassifier(scale=1.0).fit(X, LABELS)
    assert caught.value.got == "2\n  - row 3, column 2\n  - row 5, column 0"
    classifier = taught(scale=1.0)
    with pytest.raises(VectorError):
        classifier.predict(X)
    assert ExactUnlearningClassifier(scale=1e300).fit(X, LABELS).predict(X).shape == (COUNT,)
    classifier.set_params(scale=2.0)
    before = classifier.predict_proba(vectors())
    with pytest.raises(VectorError, match="scale has changed"):
        classifier.partial_fit(vectors(), LABELS)
    assert classifier.predict_proba(vectors()).tobytes() == before.tobytes()


def test_errors_are_caught_as_those_of_either_library() -> None:
    assert issubclass(VectorError, InputError)
    assert issubclass(NotTaughtError, UnknownRecordError)
    assert issubclass(NoRecordsError, NoModelError)
    for error in (VectorError, NotTaughtError, NoRecordsError):
        assert issubclass(error, LmeraserError)
        assert issubclass(error, ValueError)
        again = pickle.loads(pickle.dumps(error("Wrong", got="this", next_step="stop")))
        assert str(again) == "Wrong: this\nnext: stop"


# --- copies ----------------------------------------------------------------------------------------------------


def test_a_pickle_predicts_and_holds_no_record() -> None:
    classifier = taught().partial_fit(vectors(20, seed=5), np.repeat(LABELS[:2], 10))
    stored = pickle.dumps(classifier)
    memory = classifier.__dict__["_memory"]
    assert not any(record.vector in stored for record in memory.named.values())
    assert not any(digest in stored for _, digest in memory.unnamed)
    assert not any(text in stored for text in (b"record 1", b"person 1", memory.sums.statistics.moments.tobytes()))
    again = pickle.loads(stored)
    assert again.predict_proba(vectors()).tobytes() == classifier.predict_proba(vectors()).tobytes()
    calls: list[Callable[[], object]] = [
        lambda: again.forget(ids=["record 1"]),
        lambda: again.partial_unfit(vectors(), LABELS),
        lambda: again.partial_fit(vectors(), LABELS),
    ]
    for call in calls:
        with pytest.raises(NoRecordsError, match=r"left out of the pickle[^$]*pickle_records=True"):
            call()
    assert parameters_of(again.fit(vectors(), LABELS)) == parameters_of(taught())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_with_records_forget_apart(copied: Callable[[Any], ExactUnlearningClassifier]) -> None:
    classifier = taught(pickle_records=True).partial_fit(vectors(2, seed=5), LABELS[:2])
    before = everything(classifier)
    twin = copied(classifier)
    twin.forget(subjects=["person 1", "person 2"]).partial_unfit(vectors(2, seed=5), LABELS[:2])
    assert everything(classifier) == before
    left = [row for row in range(COUNT) if SUBJECTS[row] in (None, "person 0")]
    assert parameters_of(twin) == parameters_of(ExactUnlearningClassifier().fit(vectors()[left], LABELS[left]))


def test_nothing_of_a_forgotten_record_is_kept() -> None:
    classifier = taught(pickle_records=True)
    vector, label = vectors(1, seed=9), ["only here"]
    classifier.partial_fit(vector, label, ids=["its id"], subjects=["its subject"])
    bytes_of_it = classifier.__dict__["_memory"].named["its id"].vector
    assert bytes_of_it in pickle.dumps(classifier)
    classifier.forget(ids=["its id"])
    stored = pickle.dumps(classifier)
    assert not any(text in stored for text in (bytes_of_it, b"only here", b"its id", b"its subject"))

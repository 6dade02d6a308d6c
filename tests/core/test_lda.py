"""The global head: linear discriminants, the same bytes for the same records; probabilities of single images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from threadpoolctl import threadpool_info, threadpool_limits

from conftest import examples
from lmeraser.core.lda import (
    cross_validated_ridge,
    least_generalised_error,
    probabilities,
    scores,
    solve,
    solve_cross_validated,
    solve_shrunk,
)
from lmeraser.core.sufficient_statistics import (
    SCALE,
    SufficientStatistics,
    dequantize,
    quantize,
)
from lmeraser.core.tensors import to_bytes
from random_embeddings import quantized_of

_seeds = st.integers(0, 2**32 - 1)


def head_and_images(
    seed: int, count: int, width: int, classes: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((classes, width + 1)).astype(np.float32) / np.float32(np.sqrt(width))
    return weight, random.standard_normal((count, width)).astype(np.float32)


def exact_scores(weight: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = dequantize(quantize(images)).astype(np.float64) @ weight.astype(np.float64).T
    return scores


# --- the head ----------------------------------------------------------------------------------------------


def penalised(points: NDArray[Any], labels: Sequence[int], penalty: float) -> float:
    """What the penalty adds to the diagonal of the scatter."""
    means = {y: points[np.equal(labels, y)].mean(axis=0, dtype=np.float64) for y in set(labels)}
    squares = [float(((point - means[y]) ** 2).sum()) for point, y in zip(points, labels, strict=True)]
    return penalty * sum(squares) / len(squares) + 1


def trust(labels: Sequence[int]) -> float:
    """What scores are multiplied with: half of it at 50 records per class."""
    per_class = len(labels) / len(set(labels))
    return per_class / (per_class + 50)


class Penalised:
    """The covariance of one class as scikit-learn asks for it, with something added to its diagonal."""

    def __init__(self, added: float) -> None:
        self._added = added

    def fit(self, points: NDArray[np.float64]) -> None:
        spread = points - points.mean(axis=0)
        self.covariance_ = spread.T @ spread / len(points) + self._added * np.eye(points.shape[1])


@given(_seeds, st.integers(10, 60), st.integers(1, 16), st.integers(3, 5), st.floats(1e-3, 10))
@settings(examples(fast=13, explore=40))
def test_the_head_is_that_of_another_implementation(
    seed: int, count: int, width: int, classes: int, penalty: float
) -> None:
    quantized, labels = quantized_of(seed, count, width, classes)
    labels[:classes] = range(classes)  # the other one takes no class without records
    head = solve(SufficientStatistics.zero(width + 1, classes).plus(quantized, labels), penalty)["weight"]
    added = penalised(dequantize(quantized)[:, :-1], labels, penalty)
    other = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Penalised(added / count))
    other.fit(dequantize(quantized)[:, :-1].astype(np.float64), labels)
    expected = np.column_stack([other.coef_, other.intercept_]) * trust(labels)
    assert head.shape == (classes, width + 1)
    assert head.dtype == np.float32
    np.testing.assert_allclose(head, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@given(_seeds, st.integers(1, 40), st.integers(1, 16), st.integers(1, 5), st.floats(1e-3, 10))
@settings(examples(fast=13, explore=40))
def test_the_head_is_that_of_its_formula(seed: int, count: int, width: int, classes: int, penalty: float) -> None:
    """By hand, from the records themselves instead of their statistics."""
    quantized, labels = quantized_of(seed, count, width, classes)
    head = solve(SufficientStatistics.zero(width + 1, classes).plus(quantized, labels), penalty)["weight"]
    points = quantized[:, :-1].astype(np.float64) / SCALE
    means = {y: points[np.equal(labels, y)].mean(axis=0) for y in set(labels)}
    around = points - np.stack([means[y] for y in labels])
    added = penalised(points, labels, penalty)
    precision = count * np.linalg.inv(around.T @ around + added * np.eye(width))
    for y in range(classes):
        if y not in means:
            assert head[y].tolist() == [0.0] * width + [-1e9]
            continue
        weight = precision @ means[y]
        expected = np.array([*weight, np.log(labels.count(y) / count) - means[y] @ weight / 2]) * trust(labels)
        np.testing.assert_allclose(head[y], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@given(_seeds, st.integers(1, 24), st.data())
@settings(examples(fast=13, explore=40))
def test_any_history_that_leaves_the_same_records_gives_the_same_bytes(
    seed: int, count: int, data: st.DataObject
) -> None:
    quantized, labels = quantized_of(seed, count + 10, 13, 4)
    order = data.draw(st.permutations(range(count + 10)))
    gone = data.draw(st.lists(st.sampled_from(order), unique=True, max_size=count))
    cut = data.draw(st.integers(0, len(order)))
    statistics = SufficientStatistics.zero(14, 4)
    for part in (order[:cut], order[cut:]):
        statistics = statistics.plus(quantized[part], [labels[number] for number in part])
    for number in gone:
        statistics = statistics.plus(quantized[[number]], [labels[number]], sign=-1)
    kept = [number for number in range(count + 10) if number not in gone]
    once = SufficientStatistics.zero(14, 4).plus(quantized[kept], [labels[number] for number in kept])
    assert to_bytes(solve(statistics, 10.0)) == to_bytes(solve(once, 10.0))


def test_solving_leaves_the_statistics_unchanged() -> None:
    quantized, labels = quantized_of(1, 20, 8, 3)
    statistics = SufficientStatistics.zero(9, 3).plus(quantized, labels)
    before = statistics.digest
    first = to_bytes(solve(statistics, 1.0))
    assert statistics.digest == before
    assert to_bytes(solve(statistics, 1.0)) == first


def test_the_bytes_of_a_head_do_not_depend_on_the_number_of_threads() -> None:
    quantized, labels = quantized_of(5, 300, 700, 10)
    bytes_of = {}
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            statistics = SufficientStatistics.zero(701, 10).plus(quantized, labels)
            bytes_of[threads] = (statistics.digest, to_bytes(solve(statistics, 10.0)))
            after = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
            assert after == {threads}, "the caller's number of threads is given back"
    assert bytes_of[1] == bytes_of[2]


def test_a_larger_penalty_gives_a_smaller_head() -> None:
    quantized, labels = quantized_of(2, 40, 12, 3)
    statistics = SufficientStatistics.zero(13, 3).plus(quantized, labels)
    heads = [solve(statistics, penalty)["weight"][:, :-1] for penalty in (1e-3, 0.1, 1.0, 10.0, 1e3)]
    norms = [float(np.linalg.norm(head)) for head in heads]
    assert norms == sorted(norms, reverse=True)
    assert len(set(norms)) == len(norms)


def test_the_penalty_does_not_depend_on_the_scale_of_the_features() -> None:
    """A backbone whose features vary half as much has the same scores, but for the 1 that keeps them regular."""
    coins = np.random.default_rng(0)
    labels = [number % 3 for number in range(300)]
    points = np.eye(3, 6)[labels] * 2 + coins.standard_normal((300, 6))
    scores = []
    for scale in (8.0, 4.0):
        quantized = np.rint(np.column_stack([points * scale / 8, np.ones(300)]) * SCALE).astype(np.int16)
        head = solve(SufficientStatistics.zero(7, 3).plus(quantized, labels), 0.4)["weight"]
        scores.append(dequantize(quantized).astype(np.float64) @ head.T)
    np.testing.assert_allclose(scores[0], scores[1], rtol=0.02, atol=0.02)


def test_a_class_without_records_has_no_weight_and_changes_no_other() -> None:
    quantized, labels = quantized_of(4, 30, 12, 3)
    statistics = SufficientStatistics.zero(13, 3).plus(quantized, labels)
    wider = solve(statistics.widened(5), 10.0)["weight"]
    assert not wider[3:, :-1].any()
    assert (wider[3:, -1] == np.float32(-1e9)).all()
    shares = probabilities(wider[None], dequantize(quantized)[:, :-1], sharpness=0.3)
    assert not shares[:, 3:].any()
    np.testing.assert_allclose(wider[:3], solve(statistics, 10.0)["weight"], rtol=1e-5, atol=1e-7)


def test_the_head_finds_the_classes_it_was_fitted_on() -> None:
    quantized, labels = quantized_of(6, 200, 64, 4)
    head = solve(SufficientStatistics.zero(65, 4).plus(quantized, labels), 1.0)
    shares = probabilities(head["weight"][None], dequantize(quantized)[:, :-1])
    assert (shares.argmax(axis=1) == labels).mean() > 0.95


def test_one_record_is_enough_for_a_head_and_all_images_are_of_its_class() -> None:
    quantized, _ = quantized_of(9, 1, 12, 3)
    head = solve(SufficientStatistics.zero(13, 3).plus(quantized, [1]), 10.0)["weight"]
    assert np.isfinite(head).all()
    images = np.random.default_rng(9).standard_normal((5, 12)).astype(np.float32)
    assert probabilities(head[None], images).tolist() == [[0.0, 1.0, 0.0]] * 5


def test_a_head_is_solved_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here two threads happen to give the same bytes; elsewhere, or with more of them, they need not."""
    seen: set[int] = set()
    real: Any = np.linalg.cholesky

    def watched(*arguments: object, **options: object) -> object:
        seen.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return real(*arguments, **options)

    monkeypatch.setattr(np.linalg, "cholesky", watched)
    quantized, labels = quantized_of(5, 30, 20, 3)
    with threadpool_limits(2, user_api="blas"):
        solve(SufficientStatistics.zero(21, 3).plus(quantized, labels), 10.0)
    assert seen == {1}


# --- probabilities -----------------------------------------------------------------------------------------

_sizes = st.tuples(st.integers(1, 9), st.sampled_from([1, 7, 64, 1280]), st.integers(1, 10))
_sharpness = st.sampled_from([0.01, 0.5, 1.0, 8.0, 100.0])


@given(_seeds, _sizes, _sharpness)
def test_probabilities_are_those_of_the_scores(seed: int, sizes: tuple[int, int, int], sharpness: float) -> None:
    weight, images = head_and_images(seed, *sizes)
    shares = probabilities(weight[None], images, sharpness)
    assert shares.shape == (sizes[0], sizes[2])
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=1, dtype=np.float64), 1, rtol=1e-5)
    assert (shares >= 0).all()
    scores = exact_scores(weight, images) * sharpness
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(shares, powers / powers.sum(axis=1, keepdims=True), rtol=0, atol=1e-3)


@given(_seeds, _sizes)
def test_probabilities_do_not_depend_on_neighbours(seed: int, sizes: tuple[int, int, int]) -> None:
    weight, images = head_and_images(seed, *sizes)
    together = probabilities(weight[None], images, 8.0)
    for place in range(len(images)):
        alone = probabilities(weight[None], images[place : place + 1], 8.0)
        assert alone[0].tobytes() == together[place].tobytes()
    assert probabilities(weight[None], images[::-1], 8.0).tobytes() == together[::-1].tobytes()


@given(_seeds, _sizes)
def test_one_head_for_all_is_the_same_head_repeated(seed: int, sizes: tuple[int, int, int]) -> None:
    weight, images = head_and_images(seed, *sizes)
    shared = probabilities(weight[None], images, 8.0)
    repeated = probabilities(np.repeat(weight[None], len(images), axis=0), images, 8.0)
    assert shared.tobytes() == repeated.tobytes()


@given(_seeds, st.integers(2, 9), st.integers(2, 6))
def test_every_image_may_have_a_head_of_its_own(seed: int, count: int, classes: int) -> None:
    _, images = head_and_images(seed, count, 64, classes)
    weights = np.stack([head_and_images(seed + n, 1, 64, classes)[0] for n in range(count)])
    together = probabilities(weights, images)
    for place in range(count):
        alone = probabilities(weights[place][None], images[place : place + 1])
        assert alone[0].tobytes() == together[place].tobytes()


@given(_seeds, _sizes, _sharpness)
def test_probabilities_order_the_classes_as_the_scores_do(
    seed: int, sizes: tuple[int, int, int], sharpness: float
) -> None:
    weight, images = head_and_images(seed, *sizes)
    shares = probabilities(weight[None], images, sharpness)
    scores = exact_scores(weight, images)
    higher = scores[:, :, None] > scores[:, None, :] + 1e-4
    assert (shares[:, :, None] >= shares[:, None, :])[higher].all()


@given(_seeds, st.tuples(st.integers(1, 9), st.sampled_from([7, 64, 1280]), st.integers(2, 10)))
def test_a_larger_sharpness_gives_sharper_probabilities(seed: int, sizes: tuple[int, int, int]) -> None:
    weight, images = head_and_images(seed, *sizes)
    tops = [probabilities(weight[None], images, sharpness).max(axis=1) for sharpness in (0.1, 1.0, 8.0, 64.0)]
    assert all((sharper >= duller - 1e-6).all() for duller, sharper in itertools.pairwise(tops))
    assert tops[-1].mean() > tops[0].mean()


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e7])
def test_scores_of_any_size_give_finite_probabilities(size: float) -> None:
    weight, images = head_and_images(3, 5, 16, 4)
    shares = probabilities(weight[None] * np.float32(size), images, 100.0)
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_probabilities_are_of_the_code_and_not_of_what_was_rounded_off() -> None:
    weight, images = head_and_images(8, 5, 16, 4)
    rounded = dequantize(quantize(images))[:, :-1]
    assert not np.array_equal(rounded, images)
    assert probabilities(weight[None], rounded).tobytes() == probabilities(weight[None], images).tobytes()


# --- discriminants with a share of shrinkage -----------------------------------------------------------------


@given(_seeds, st.integers(1, 40), st.integers(1, 16), st.integers(1, 5), st.sampled_from([None, 0.0, 0.2, 1.0]))
@settings(examples(fast=25, explore=100))
def test_discriminants_exist_for_any_records_and_shrinkage(
    seed: int, count: int, width: int, classes: int, shrinkage: float | None
) -> None:
    quantized, labels = quantized_of(seed, count, width, classes)
    quantized[:, 0] = quantized[0, 0]  # a covariance that is singular
    statistics = SufficientStatistics.zero(width + 1, classes).plus(quantized, labels)
    before = statistics.digest
    weights, biases = solve_shrunk(statistics, shrinkage)
    assert np.isfinite(weights).all()
    assert (biases == -1e9).tolist() == [y not in labels for y in range(classes)]
    assert np.isfinite(biases).all()
    assert statistics.digest == before


@given(_seeds, st.integers(1, 9), st.sampled_from([1, 2, 3, 64, 769]), st.integers(1, 5), st.integers(-30, 30))
@settings(examples(fast=15, explore=100))
def test_scores_are_the_exact_sums_rounded_once_or_twice_and_those_of_single_rows(
    seed: int, count: int, width: int, classes: int, size: int
) -> None:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((classes, width)) * 10.0 ** random.integers(-3, 3, (classes, 1)) * 2.0**size
    biases = random.standard_normal(classes)
    quantized, _ = quantized_of(seed, count, width, 2)
    together = scores(weights, biases, quantized)
    for row in range(count):
        assert scores(weights, biases, quantized[[row]]).tobytes() == together[[row]].tobytes()
    for label in range(classes):
        terms = [
            Fraction(float(w)) * int(q) / SCALE for w, q in zip(weights[label], quantized[0, :-1], strict=True)
        ]
        exact = sum(terms, Fraction(float(biases[label])))
        largest = sum(map(abs, terms), abs(Fraction(float(biases[label]))))
        assert abs(Fraction(float(together[0, label])) - exact) <= largest * Fraction(2) ** -51


def test_scores_do_not_depend_on_the_number_of_threads() -> None:
    random = np.random.default_rng(2)
    weights, biases = random.standard_normal((7, 300)), random.standard_normal(7)
    quantized, _ = quantized_of(5, 200, 300, 3)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(scores(weights, biases, quantized).tobytes())
    assert found[0] == found[1]


def test_no_weights_score_their_biases() -> None:
    quantized, _ = quantized_of(5, 4, 3, 2)
    assert scores(np.zeros((2, 3)), np.array([1.5, -2.0]), quantized).tolist() == [[1.5, -2.0]] * 4


# --- the penalty from the statistics -----------------------------------------------------------------------


@examples(8, 300)
@given(_seeds, st.integers(2, 40), st.integers(1, 12), st.integers(1, 4))
def test_the_head_with_a_penalty_from_the_sums_is_the_same_after_a_subtraction(
    seed: int, count: int, width: int, classes: int
) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    every = SufficientStatistics.zero(width + 1, classes).plus(rows, labels)
    without = SufficientStatistics.zero(width + 1, classes).plus(rows[1:], labels[1:])
    subtracted = every.plus(rows[:1], labels[:1], sign=-1)
    heads = []
    for threads, statistics in ((1, without), (2, subtracted)):
        with threadpool_limits(threads):
            heads.append(solve_cross_validated(statistics))
    assert to_bytes(heads[0]) == to_bytes(heads[1])
    assert all(np.isfinite(each["weight"]).all() for each in (heads[0], solve_cross_validated(every)))


@examples(10, 200)
@given(_seeds, st.integers(12, 60), st.integers(1, 8), st.integers(2, 4))
def test_cross_validation_is_that_of_a_ridge_regression_of_class_indicators(
    seed: int, count: int, width: int, classes: int
) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    ridge = least_generalised_error(SufficientStatistics.zero(width + 1, classes).plus(rows, labels))
    points = dequantize(rows)[:, :-1].astype(np.float64)
    centred = points - points.mean(axis=0)
    indicators = np.eye(classes)[labels]
    targets = indicators - indicators.mean(axis=0)

    def error(candidate: float) -> float:
        hat = centred @ np.linalg.solve(centred.T @ centred + candidate * np.eye(width), centred.T)
        freedom = 1 + np.trace(hat)
        return float(np.square(targets - hat @ targets).sum() / (1 - freedom / count) ** 2)

    errors = {2.0 ** (step / 2): error(2.0 ** (step / 2)) for step in range(49)}
    assert errors[ridge] <= min(errors.values()) * (1 + 1e-9) + 1e-12


@examples(8, 100)
@given(_seeds, st.integers(2, 60), st.sampled_from([3, 40, 300]), st.integers(2, 5))
def test_the_head_with_a_penalty_from_the_sums_is_that_of_its_formula(
    seed: int, count: int, width: int, classes: int
) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    statistics = SufficientStatistics.zero(width + 1, classes + 1).plus(rows, labels)
    ridge = cross_validated_ridge(statistics)
    points = dequantize(rows)[:, :-1].astype(np.float64)
    counts = np.bincount(labels, minlength=classes + 1)
    sums = np.array([points[np.equal(labels, label)].sum(axis=0) for label in range(classes + 1)])
    means = sums / np.maximum(counts, 1)[:, None]
    within = points - means[labels]
    weights = count * np.linalg.solve(within.T @ within + ridge * np.eye(width), means.T).T
    with np.errstate(divide="ignore"):
        biases = np.log(counts / count) - 0.5 * (weights * means).sum(axis=1)
    expected = np.column_stack([weights, biases])[counts > 0] * trust(labels)
    found = solve_cross_validated(statistics)["weight"]
    np.testing.assert_allclose(found[counts > 0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert not found[counts == 0, :-1].any()


@examples(20, 200)
@given(_seeds, st.integers(1, 60), st.integers(1, 40), st.integers(1, 5))
def test_the_ridge_lies_between_the_usual_one_and_the_chosen_one(
    seed: int, count: int, width: int, classes: int
) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    statistics = SufficientStatistics.zero(width + 1, classes + 1).plus(rows, labels)
    points = dequantize(rows)[:, :-1].astype(np.float64)
    usual = penalised(points, labels, 0.4)
    per_class = count / len(set(labels))
    share = per_class / (per_class + 10)
    expected = share * np.log(least_generalised_error(statistics)) + (1 - share) * np.log(usual)
    assert np.log(cross_validated_ridge(statistics)) == pytest.approx(expected, abs=1e-9)


def test_noise_is_shrunk_more_than_classes_that_are_apart() -> None:
    rows, _ = quantized_of(0, 200, 30, 4)
    random = np.random.default_rng(1).integers(0, 4, 200).tolist()
    noise = SufficientStatistics.zero(31, 4).plus(rows, random)
    near, labels = quantized_of(0, 200, 30, 4)
    assert cross_validated_ridge(noise) > cross_validated_ridge(
        SufficientStatistics.zero(31, 4).plus(near, labels)
    )

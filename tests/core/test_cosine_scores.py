"""Scores by angles: as their formula says, the same bytes for the same records, and never degenerate."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from conftest import examples
from lmeraser.core.lda import Score, cross_validated_ridge, solve_cross_validated
from lmeraser.core.sufficient_statistics import (
    QuantizedEmbeddings,
    SufficientStatistics,
    dequantize,
    embedding,
    quantize,
)
from lmeraser.core.tensors import to_bytes
from lmeraser.core.traces import effective_parameters, probes_for
from random_embeddings import quantized_of

SCORES: tuple[Score, ...] = ("cosine", "blend")
_seeds = st.integers(0, 2**32 - 1)


def statistics_of(rows: QuantizedEmbeddings, labels: list[int], classes: int) -> SufficientStatistics:
    return SufficientStatistics.zero(rows.shape[1], classes).plus(rows, labels)


def expected_scores(
    rows: QuantizedEmbeddings, labels: list[int], ridge: float, *, blended: bool
) -> NDArray[np.float64]:
    """Scores of the records for the classes that they have, by the formula, from the records."""
    points = dequantize(rows)[:, :-1].astype(np.float64)
    classes, positions, counts = np.unique(labels, return_inverse=True, return_counts=True)
    means = np.array([points[positions == number].mean(axis=0) for number in range(len(classes))])
    within = points - means[positions]
    inverse = np.linalg.inv(within.T @ within + ridge * np.eye(points.shape[1]))
    metric = len(points) * inverse
    away = means - points.mean(axis=0)
    lengths = np.einsum("yi,ij,yj->y", away, metric, away)
    prior = counts / len(points)
    distance = used = 0.0
    if blended:
        distance = 10 / (10 + len(classes))
        signs = probes_for(points.shape[1])
        used = min(max(effective_parameters(signs, signs @ inverse, ridge) / len(points), 0), 0.95)
        lengths = np.maximum(lengths - len(points) * used / (1 - used) / counts, lengths / 2)
        chance = 1 / max(counts.var(ddof=1) / counts.mean(), 1)
        prior = (1 - chance) * prior + chance / len(classes)
    mean_length = (lengths * counts).sum() / len(points)
    factors = (1 - distance) * np.sqrt(mean_length / lengths) + distance
    scores = (points - points.mean(axis=0)) @ metric @ away.T * factors
    centred = (
        scores - np.array([scores[positions == number].mean(axis=0) for number in range(len(classes))])[positions]
    )
    pairs = [
        np.square(centred[:, y] - centred[:, z]).mean() for y, z in itertools.combinations(range(len(classes)), 2)
    ]
    per_class = len(points) / len(classes)
    noise = np.sqrt(np.mean(pairs))
    scale = min(1.5 * np.sqrt(per_class / (per_class + 50)) / noise, 0.5)
    if blended:
        scale = (1 - used) * np.sqrt(per_class / (per_class + 14)) * min(3 / noise**1.2, 0.6)
    weight = min(3, 1 / scale) if blended else 1
    found: NDArray[np.float64] = scale * (scores + weight * np.log(prior) - distance * lengths / 2)
    return found


@pytest.mark.parametrize("score", SCORES)
@examples(8, 200)
@given(_seeds, st.integers(30, 80), st.integers(2, 12), st.integers(2, 5))
def test_scores_are_those_of_the_formula(score: Score, seed: int, count: int, width: int, classes: int) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    statistics = statistics_of(rows, labels, classes + 1)
    weight = solve_cross_validated(statistics, score)["weight"].astype(np.float64)
    present = sorted(set(labels))
    found = 0.3 * (dequantize(rows) @ weight.T)[:, present]  # the usual sharpness
    expected = expected_scores(rows, labels, cross_validated_ridge(statistics), blended=score == "blend")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert (weight[[y for y in range(classes + 1) if y not in present], -1] < -1e8).all()


@pytest.mark.parametrize("score", SCORES)
@examples(8, 200)
@given(_seeds, st.integers(2, 40), st.integers(1, 12), st.integers(1, 4))
def test_the_same_records_give_the_same_bytes_on_any_number_of_threads(
    score: Score, seed: int, count: int, width: int, classes: int
) -> None:
    rows, labels = quantized_of(seed, count, width, classes)
    subtracted = statistics_of(rows, labels, classes).plus(rows[:1], labels[:1], sign=-1)
    heads = []
    for threads, statistics in ((1, statistics_of(rows[1:], labels[1:], classes)), (2, subtracted)):
        with threadpool_limits(threads):
            heads.append(to_bytes(solve_cross_validated(statistics, score)))
    assert heads[0] == heads[1]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("labels", "vectors"),
    [
        ([1], "apart"),  # one record
        ([1, 1, 1], "apart"),  # one class
        ([0, 1, 2], "apart"),  # one record of each class: no scatter
        ([0, 1, 2, 0, 1, 2], "equal"),  # nothing tells classes apart
        ([0, 0, 0, 1, 2, 2], "equal"),
    ],
)
def test_heads_of_records_that_tell_little_are_finite_and_moderate(
    labels: list[int], vectors: str, score: Score
) -> None:
    random = np.random.default_rng(3).standard_normal((len(labels), 1, 6)).astype(np.float32)
    rows = quantize(embedding(random if vectors == "apart" else np.repeat(random[:1], len(labels), axis=0)))
    weight = solve_cross_validated(statistics_of(rows, labels, 4), score)["weight"]
    present = sorted(set(labels))
    scores = (dequantize(rows) @ weight.T)[:, present]
    assert np.isfinite(weight).all()
    assert np.abs(scores).max() < 1e5
    if vectors == "equal":
        assert set(scores.argmax(axis=1).tolist()) == {int(np.argmax(np.bincount(labels)[present]))}
    elif len(present) > 1:
        assert scores.argmax(axis=1).tolist() == [present.index(label) for label in labels]


def test_classes_near_the_mean_of_all_are_not_preferred() -> None:
    """Embeddings between the mean of all and the mean of a class belong to that class, however far away it is."""
    random = np.random.default_rng(0)
    centres = np.zeros((3, 8))
    centres[:, :3] = np.diag([1.0, 1.0, 6.0])
    labels = np.repeat(np.arange(3), 40)
    rows = quantize((centres[labels] + 0.3 * random.standard_normal((120, 8))).astype(np.float32))
    statistics = statistics_of(rows, labels.tolist(), 3)
    middle = (dequantize(rows)[:, :-1].mean(axis=0) * 0.85 + centres[2] * 0.15).astype(np.float32)
    query = dequantize(quantize(middle[None]))
    by_distance = query @ solve_cross_validated(statistics)["weight"].T
    by_angle = query @ solve_cross_validated(statistics, "cosine")["weight"].T
    assert by_distance.argmax() != 2
    assert by_angle.argmax() == 2


def test_a_mean_that_is_far_away_by_chance_is_not_taken_for_far_away() -> None:
    """Means of four records are further from the mean of all than means of forty, whatever the classes are."""
    random = np.random.default_rng(1)
    labels = np.repeat(np.arange(20), [4] * 10 + [40] * 10)
    centres = random.standard_normal((20, 30))
    rows = quantize((centres[labels] + 2 * random.standard_normal((len(labels), 30))).astype(np.float32))
    statistics = statistics_of(rows, labels.tolist(), 20)
    few_over_many = []
    for score in SCORES:
        lengths = np.linalg.norm(solve_cross_validated(statistics, score)["weight"][:, :-1], axis=1)
        few_over_many.append(lengths[:10].mean() / lengths[10:].mean())
    assert few_over_many[1] > 1.1 * few_over_many[0]


def test_priors_of_counts_that_differ_by_chance_are_nearly_equal() -> None:
    vectors = np.zeros((41, 4), np.float32)
    labels = [0] * 20 + [1] * 21
    weight = solve_cross_validated(statistics_of(quantize(vectors), labels, 2), "blend")["weight"]
    assert weight[0, -1] == weight[1, -1]
    labels = [0] * 5 + [1] * 36
    weight = solve_cross_validated(statistics_of(quantize(vectors), labels, 2), "blend")["weight"]
    assert weight[0, -1] < weight[1, -1]

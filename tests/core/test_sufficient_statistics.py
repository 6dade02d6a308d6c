"""Sums are those of the retained records, as integers, whatever was added and subtracted and in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lmeraser.core.sufficient_statistics as module
from conftest import examples
from lmeraser.core.sufficient_statistics import (
    SCALE,
    QuantizedEmbeddings,
    SufficientStatistics,
    dequantize,
    embedding,
    pack,
    quantize,
    stack_quantized,
    unit_rms,
    unit_rms_at_any_size,
    unpack,
)

CLASSES = 3
LARGEST = 32767
HALF_STEP = 1 / (2 * SCALE)

Row = tuple[tuple[int, ...], int]  # the values of a record, and its label

_entries = st.integers(-LARGEST, LARGEST) | st.sampled_from([-LARGEST, LARGEST])
_tables = st.integers(1, 3).flatmap(
    lambda d: st.lists(
        st.tuples(st.tuples(*[_entries] * d).map(lambda values: (*values, SCALE)), st.integers(0, CLASSES - 1)),
        min_size=1,
        max_size=8,
    )
)
_seeds = st.integers(0, 2**32 - 1)
_shapes = st.tuples(st.integers(1, 9), st.integers(1, 6), st.sampled_from([1, 2, 7, 64, 257, 1280]))


def added(statistics: SufficientStatistics, rows: Sequence[Row], sign: int = 1) -> SufficientStatistics:
    quantized = np.array([values for values, _ in rows], np.int16).reshape(len(rows), len(statistics.gram))
    return statistics.plus(quantized, [label for _, label in rows], sign=sign)


def once(rows: Sequence[Row], width: int) -> SufficientStatistics:
    return added(SufficientStatistics.zero(width, CLASSES), rows)


def same(ours: SufficientStatistics, theirs: SufficientStatistics) -> bool:
    return np.array_equal(ours.gram, theirs.gram) and np.array_equal(ours.moments, theirs.moments)


def features_of(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    scale = 10 ** random.uniform(-2, 3, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))
    return (random.standard_normal(shape) * scale).astype(np.float32)


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = vectors / np.sqrt((vectors**2).mean(axis=-1, keepdims=True))
    return scaled


# --- any history -------------------------------------------------------------------------------------------


@given(_tables)
def test_statistics_are_those_of_pythons_own_integers(rows: list[Row]) -> None:
    width = len(rows[0][0])
    statistics = once(rows, width)
    gram = [[sum(values[i] * values[j] for values, _ in rows) for j in range(width)] for i in range(width)]
    moments = [
        [sum(values[i] for values, label in rows if label == y) for y in range(CLASSES)] for i in range(width)
    ]
    assert statistics.gram.tolist() == gram
    assert statistics.moments.tolist() == moments
    assert statistics.gram.dtype == statistics.moments.dtype == np.int64


@given(_tables, st.data())
def test_any_order_and_split_of_additions_and_subtractions_gives_the_statistics_of_the_retained_records(
    rows: list[Row], data: st.DataObject
) -> None:
    width, numbers = len(rows[0][0]), range(len(rows))
    removed = data.draw(st.sets(st.sampled_from(numbers)))
    changes = data.draw(st.permutations([*((1, n) for n in numbers), *((-1, n) for n in removed)]))
    statistics, batch, batch_sign = SufficientStatistics.zero(width, CLASSES), list[Row](), 1
    for sign, number in changes:
        if sign != batch_sign or data.draw(st.booleans()):
            statistics, batch, batch_sign = added(statistics, batch, batch_sign), [], sign
        batch.append(rows[number])
    statistics = added(statistics, batch, batch_sign)
    retained = once([rows[number] for number in numbers if number not in removed], width)
    assert same(statistics, retained)
    assert statistics.digest == retained.digest


@given(_tables)
def test_subtracting_every_record_leaves_zeros(rows: list[Row]) -> None:
    width = len(rows[0][0])
    left = added(once(rows, width), rows, sign=-1)
    assert same(left, SufficientStatistics.zero(width, CLASSES))
    assert left.digest == SufficientStatistics.zero(width, CLASSES).digest
    assert left.records_by_class == (0,) * CLASSES


@given(_tables)
def test_adding_records_leaves_the_given_statistics_unchanged(rows: list[Row]) -> None:
    statistics = once(rows, len(rows[0][0]))
    before = statistics.digest
    for sign in (1, -1):
        added(statistics, rows, sign)
        assert statistics.digest == before
    added(statistics.widened(CLASSES + 1), rows)
    assert statistics.digest == before


@given(_tables, _tables)
def test_other_records_have_another_digest(rows: list[Row], others: list[Row]) -> None:
    ours, theirs = once(rows, len(rows[0][0])), once(others, len(others[0][0]))
    assert (ours.digest == theirs.digest) == same(ours, theirs)


def test_no_record_adds_nothing() -> None:
    statistics = once([((5, -7, SCALE), 1)], 3)
    assert same(added(statistics, []), statistics)
    assert SufficientStatistics.zero(3, 2).records_by_class == (0, 0)


@pytest.mark.parametrize("count", [3_000, 2**20 + 5])
def test_extreme_values_of_many_records_stay_exact(count: int) -> None:
    row = [LARGEST, -LARGEST, SCALE]
    quantized = np.tile(np.array(row, np.int16), (count, 1))
    statistics = SufficientStatistics.zero(3, 1).plus(quantized, np.zeros(count, np.int64).tolist())
    assert statistics.gram.tolist() == [[count * a * b for b in row] for a in row]
    assert statistics.moments.tolist() == [[count * a] for a in row]
    assert statistics.records_by_class == (count,)
    one = ((LARGEST, -LARGEST, SCALE), 0)
    less = statistics.plus(np.array([one[0]], np.int16), [0], sign=-1)
    assert less.gram.tolist() == [[(count - 1) * a * b for b in row] for a in row]


@pytest.mark.parametrize("at_once", [1, 2, 7, 100])
def test_it_does_not_matter_how_many_records_are_added_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    random = np.random.default_rng(3)
    quantized, labels = random.integers(-LARGEST, LARGEST + 1, (23, 5)).astype(np.int16), random.integers(0, 4, 23)
    expected = SufficientStatistics.zero(5, 4).plus(quantized, labels.tolist())
    monkeypatch.setattr(module, "_EXACT", at_once)
    assert SufficientStatistics.zero(5, 4).plus(quantized, labels.tolist()).digest == expected.digest


@given(_tables, st.data())
def test_records_are_counted_by_class(rows: list[Row], data: st.DataObject) -> None:
    removed = data.draw(st.sets(st.sampled_from(range(len(rows)))))
    statistics = added(once(rows, len(rows[0][0])), [rows[number] for number in sorted(removed)], sign=-1)
    counts = Counter(label for number, (_, label) in enumerate(rows) if number not in removed)
    assert statistics.records_by_class == tuple(counts[label] for label in range(CLASSES))
    assert all(isinstance(count, int) for count in statistics.records_by_class)


# --- more classes ------------------------------------------------------------------------------------------


@given(_tables, st.integers(0, 4))
def test_new_classes_have_zeros_and_the_rest_is_kept(rows: list[Row], more: int) -> None:
    statistics = once(rows, len(rows[0][0]))
    wider = statistics.widened(CLASSES + more)
    np.testing.assert_array_equal(wider.gram, statistics.gram)
    np.testing.assert_array_equal(wider.moments[:, :CLASSES], statistics.moments)
    assert wider.moments.shape == (len(statistics.gram), CLASSES + more)
    assert not wider.moments[:, CLASSES:].any()
    assert wider.records_by_class == (*statistics.records_by_class, *[0] * more)
    assert same(wider.widened(1), wider), "a list of classes never gets shorter"


@given(_tables, st.integers(0, 8))
def test_it_does_not_matter_when_the_list_of_classes_is_extended(rows: list[Row], cut: int) -> None:
    width = len(rows[0][0])
    late = added(once(rows[:cut], width).widened(CLASSES + 2), rows[cut:])
    early = added(SufficientStatistics.zero(width, CLASSES + 2), rows)
    assert late.digest == early.digest


@given(_tables, st.permutations(range(CLASSES)))
def test_classes_can_be_put_in_another_order_and_left_out_without_records(
    rows: list[Row], order: list[int]
) -> None:
    width = len(rows[0][0])
    statistics = once(rows, width)
    reordered = statistics.with_classes([*order, None])
    renamed = [(values, order.index(label)) for values, label in rows]
    assert reordered.digest == added(SufficientStatistics.zero(width, CLASSES + 1), renamed).digest
    counts = statistics.records_by_class
    kept = [label for label in range(CLASSES) if counts[label]]
    fewer = statistics.with_classes(kept)
    assert fewer.records_by_class == tuple(counts[label] for label in kept)
    assert same(fewer.with_classes([kept.index(y) if y in kept else None for y in range(CLASSES)]), statistics)


# --- stored ------------------------------------------------------------------------------------------------


@given(_tables, st.data())
def test_stored_statistics_come_back(rows: list[Row], data: st.DataObject) -> None:
    width = len(rows[0][0])
    statistics = added(once(rows, width), rows[: data.draw(st.integers(0, len(rows)))], sign=-1)
    gram, moments = pack(statistics)
    back = unpack(gram, moments, width)
    assert back.digest == statistics.digest
    assert same(back, statistics)
    assert same(added(back, rows), added(statistics, rows)), "they can be added to"
    products = width * (width + 1) // 2
    assert len(gram) == products * 5, "the gram is symmetric, and so few products do not need eight bytes"


@examples(60, 500)
@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(-(2**50), 2**50), min_size=3, max_size=3))
def test_products_of_any_size_come_back_in_as_few_bytes_as_they_need(values: list[int]) -> None:
    statistics = SufficientStatistics(np.array(values), np.zeros((2, 1), np.int64))
    packed = pack(statistics)
    assert unpack(*packed, 2).triangle.tolist() == values
    bits = max(abs(value) for value in values).bit_length() + 1  # and the sign
    assert len(packed[0]) <= 3 * next(size for size in (5, 6, 8, 9) if bits < 8 * size)
    assert unpack(statistics.triangle.tobytes(), packed[1], 2).triangle.tolist() == values, "as before 0.2"


@given(_tables)
def test_half_of_the_products_are_the_whole_matrix(rows: list[Row]) -> None:
    statistics = once(rows, len(rows[0][0]))
    gram = statistics.gram
    chosen = np.arange(0, statistics.width, 2)
    assert np.array_equal(gram, gram.T)
    assert all(np.array_equal(statistics.row(n), gram[n, : n + 1]) for n in range(statistics.width))
    assert np.array_equal(statistics.diagonal, np.diag(gram))
    assert np.array_equal(statistics.products(chosen), gram[np.ix_(chosen, chosen)])


# --- quantized embeddings ----------------------------------------------------------------------------------


@given(_seeds, _shapes)
def test_an_embedding_has_a_root_mean_square_of_one(seed: int, shape: tuple[int, int, int]) -> None:
    vectors = embedding(features_of(seed, shape))
    assert vectors.shape == (shape[0], shape[2])
    assert vectors.dtype == np.float32
    if shape[2] > 2:  # views of one or two numbers may cancel out
        np.testing.assert_allclose(np.square(vectors.astype(np.float64)).mean(axis=1), 1, rtol=1e-4)


@given(_seeds, _shapes)
def test_an_embedding_is_the_mean_of_its_views_each_scaled_alone(seed: int, shape: tuple[int, int, int]) -> None:
    features = features_of(seed, (*shape[:2], max(shape[2], 7)))
    expected = unit(unit(features.astype(np.float64)).mean(axis=1))
    np.testing.assert_allclose(embedding(features), expected, rtol=1e-3, atol=1e-5)


@given(_seeds, _shapes)
def test_an_embedding_does_not_depend_on_other_rows(seed: int, shape: tuple[int, int, int]) -> None:
    features = features_of(seed, shape)
    together = embedding(features)
    for place in range(len(features)):
        assert embedding(features[place : place + 1]).tobytes() == together[place].tobytes()
    assert embedding(features[::-1]).tobytes() == together[::-1].tobytes()


@given(_seeds, _shapes, st.data())
def test_an_embedding_of_chosen_views_does_not_depend_on_how_they_lie_in_memory(
    seed: int, shape: tuple[int, int, int], data: st.DataObject
) -> None:
    features = features_of(seed, shape)
    chosen = data.draw(st.lists(st.integers(0, shape[1] - 1), min_size=1, unique=True))
    copied = np.ascontiguousarray(features[:, chosen])
    assert embedding(features[:, chosen]).tobytes() == embedding(copied).tobytes()


@given(_seeds, st.integers(1, 9), st.sampled_from([7, 64, 1280]))
def test_an_embedding_of_one_view_is_its_features_scaled(seed: int, count: int, width: int) -> None:
    features = features_of(seed, (count, width))
    expected = unit(features.astype(np.float64))
    np.testing.assert_allclose(embedding(features[:, None]), expected, rtol=1e-5, atol=1e-6)


@given(_seeds, _shapes, st.integers(-5, 30))
def test_ordinary_vectors_have_the_same_bits_at_any_size(
    seed: int, shape: tuple[int, int, int], size: int
) -> None:
    vectors = np.random.default_rng(seed).standard_normal((shape[0], max(shape[2], 7))).astype(np.float32)
    scaled = vectors * np.float32(2.0**size)
    for given_as in (scaled, scaled.astype(np.float64)):
        assert unit_rms_at_any_size(given_as).tobytes() == unit_rms(scaled).tobytes()
    assert unit_rms_at_any_size(np.asfortranarray(vectors)).tobytes() == unit_rms(vectors).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_and_smallest_vectors_are_scaled_without_overflow(dtype: type[np.floating]) -> None:
    limits = np.finfo(dtype)
    sizes = np.array([[limits.max], [limits.tiny], [limits.smallest_subnormal], [0]], dtype)
    found = unit_rms_at_any_size(sizes * np.array([[1, -1, 1, 1]], dtype))
    np.testing.assert_allclose(found, [[1, -1, 1, 1]] * 3 + [[0] * 4], rtol=1e-6)


def test_features_of_nothing_have_an_embedding_of_nothing() -> None:
    assert not embedding(np.zeros((2, 3, 5), np.float32)).any()


@given(_seeds, st.integers(1, 5), st.integers(1, 12))
def test_a_code_is_within_half_a_step_of_its_embedding(seed: int, count: int, width: int) -> None:
    largest = LARGEST / SCALE
    vectors = np.random.default_rng(seed).uniform(-largest, largest, (count, width)).astype(np.float32)
    quantized = quantize(vectors)
    assert quantized.shape == (count, width + 1)
    assert quantized.dtype == np.int16
    dequantized = dequantize(quantized)
    assert dequantized.dtype == np.float32
    assert np.abs(dequantized[:, :-1].astype(np.float64) - vectors.astype(np.float64)).max() <= HALF_STEP
    assert quantized[:, -1].tolist() == [SCALE] * count
    assert dequantized[:, -1].tolist() == [1.0] * count


def test_an_embedding_beyond_the_largest_code_is_clipped() -> None:
    vectors = np.array([[40.0, -40.0, np.inf, -np.inf, 1e30, LARGEST / SCALE]], np.float32)
    assert quantize(vectors).tolist() == [[LARGEST, -LARGEST, LARGEST, -LARGEST, LARGEST, LARGEST, SCALE]]


@given(_seeds)
def test_quantizing_a_dequantized_embedding_gives_it_back(seed: int) -> None:
    quantized = np.random.default_rng(seed).integers(-LARGEST, LARGEST + 1, (4, 9)).astype(np.int16)
    quantized[:, -1] = SCALE
    assert quantize(dequantize(quantized)[:, :-1]).tobytes() == quantized.tobytes()


@given(_seeds, st.integers(1, 6), st.integers(1, 9))
@settings(examples(fast=8, explore=25))
def test_stored_embeddings_come_back_as_one_matrix(seed: int, count: int, width: int) -> None:
    quantized: QuantizedEmbeddings = (
        np.random.default_rng(seed).integers(-LARGEST, LARGEST + 1, (count, width)).astype(np.int16)
    )
    back = stack_quantized(values.tobytes() for values in quantized)
    assert back.dtype == np.int16
    np.testing.assert_array_equal(back, quantized)


# --- few records, and the digest of the triangle -----------------------------------------------------------


@examples(20, 200)
@given(_seeds, st.integers(1, 40), st.sampled_from([2, 130, 300]))
def test_few_records_are_added_to_the_same_integers_as_many(seed: int, count: int, width: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(-LARGEST, LARGEST + 1, (count, width)).astype(np.int16)
    labels = random.integers(0, CLASSES, count).tolist()
    exact = rows.astype(object).T @ rows.astype(object) if width == 2 else None
    at_once = SufficientStatistics.zero(width, CLASSES).plus(rows, labels)
    one_by_one = SufficientStatistics.zero(width, CLASSES)
    for row, label in zip(rows, labels, strict=True):
        one_by_one = one_by_one.plus(row[None], [label])
    assert same(at_once, one_by_one)
    assert same(at_once.plus(rows[:5], labels[:5], sign=-1).plus(rows[:5], labels[:5]), at_once)
    assert exact is None or np.array_equal(at_once.gram, exact.astype(np.int64))
    restored = unpack(*pack(at_once), width)
    assert same(restored, at_once)
    assert restored.packed_digest == at_once.packed_digest != one_by_one.plus(rows[:1], labels[:1]).packed_digest

"""The random layer: exact integers that depend on the seed and on one record alone."""

from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from lmeraser.core.random_features import projection, random_features, shift_for
from lmeraser.core.sufficient_statistics import LARGEST_INTEGER, SCALE, QuantizedEmbeddings, SufficientStatistics

_shapes = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 50))


def quantized(seed: int, count: int, length: int) -> QuantizedEmbeddings:
    """Entries of any size, with the constant."""
    values = np.random.default_rng(seed).integers(-LARGEST_INTEGER, LARGEST_INTEGER + 1, (count, length))
    return np.pad(values, ((0, 0), (0, 1)), constant_values=SCALE).astype(np.int16)


@examples(40, 500)
@given(st.integers(0, 2**32 - 1), _shapes, st.integers(0, 3))
def test_it_is_the_sum_of_integers_that_the_definition_says(
    seed: int, shape: tuple[int, int, int], layer: int
) -> None:
    count, length, width = shape
    inputs = quantized(seed, count, length)
    outputs = random_features(inputs, width, layer)
    matrix = projection(layer, length, width)
    shift = shift_for(length)
    for row, result in zip(inputs.tolist(), outputs.tolist(), strict=True):
        for column in range(width):
            total = sum(value * int(weight) for value, weight in zip(row[:-1], matrix[:, column], strict=True))
            assert result[column] == min((max(total, 0) + (1 << shift >> 1)) >> shift, LARGEST_INTEGER)
        assert result[-1] == SCALE
    assert outputs.dtype == np.int16
    apart = np.concatenate([random_features(inputs[n : n + 1], width, layer) for n in range(count)])
    assert np.array_equal(apart, outputs)


def test_the_layer_is_the_same_on_every_machine() -> None:
    matrix = projection(0, 384, 4096)
    assert set(np.unique(matrix)) == {-1, 0, 1}
    digest = hashlib.sha256(matrix.astype(np.int8).tobytes()).hexdigest()
    assert digest == "639b54cdd44dae51ea3b6cdad9d9c7e2c11e5fd48d9283aa942f5a69661cc5ef"
    outputs = random_features(quantized(1, 3, 20), 8, seed=5)
    assert outputs.tolist() == [
        [0, 0, 0, 9628, 0, 0, 18366, 0, 1024],
        [981, 25453, 0, 26005, 0, 0, 0, 0, 1024],
        [24128, 0, 32767, 32767, 13985, 3668, 30158, 19660, 1024],
    ]


@examples(20, 300)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_a_record_is_subtracted_from_sums_of_outputs_to_the_bit(seed: int, gone: int) -> None:
    outputs = random_features(quantized(seed, 10, 12), 30, seed=0)
    labels = [number % 3 for number in range(10)]
    every = SufficientStatistics.zero(31, 3).plus(outputs, labels)
    kept = [number for number in range(10) if number != gone]
    without = SufficientStatistics.zero(31, 3).plus(outputs[kept], [labels[number] for number in kept])
    assert every.plus(outputs[[gone]], [labels[gone]], sign=-1).digest == without.digest


def test_outputs_have_about_the_size_of_embeddings() -> None:
    for length in (64, 384, 3000):
        values = np.random.default_rng(0).standard_normal((20, length))
        inputs = np.pad(np.rint(values * SCALE), ((0, 0), (0, 1)), constant_values=SCALE).astype(np.int16)
        size = np.sqrt(np.square(random_features(inputs, 500, 0)[:, :-1] / SCALE).mean())
        assert 0.6 < size < 1.6

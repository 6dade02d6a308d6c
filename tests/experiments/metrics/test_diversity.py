"""Against numbers worked out by hand, and against scipy's cosine distance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.diversity import choose_pairs, distances, diversity

_seeds = st.integers(0, 10**6)


def layers_of(seed: int, count: int) -> list[Any]:
    """A layer of a convolutional network, and one of tokens."""
    coins = np.random.default_rng(seed)
    return [
        coins.standard_normal((count, 5, 2, 3)).astype(np.float32),
        coins.standard_normal((count, 4, 6)).astype(np.float32),
    ]


def test_distances_by_hand() -> None:
    """One position at a right angle (distance 2), one alike but for its length (0), in the mean 1."""
    first = np.array([[[[3.0, 1.0]], [[0.0, 1.0]]]])  # channels (3, 0) and (1, 1)
    second = np.array([[[[0.0, 5.0]], [[2.0, 5.0]]]])  # channels (0, 2) and (5, 5)
    assert first.shape == (1, 2, 1, 2)
    assert distances([first], [second]) == pytest.approx([1])
    tokens = [np.moveaxis(layer.reshape(1, 2, 2), 1, 2) for layer in (first, second)]
    assert distances([tokens[0]], [tokens[1]]) == pytest.approx([1])
    assert distances([first, tokens[0]], [second, tokens[1]]) == pytest.approx([2])


def test_opposite_activations_are_4_apart_and_none_at_all_are_1_from_some() -> None:
    some, none = np.array([[[2.0, 0.0]]]), np.zeros((1, 1, 2))
    assert distances([some], [-some]) == pytest.approx([4])
    assert distances([some], [none]) == pytest.approx([1])
    assert distances([none], [none]).tolist() == [0]


@given(_seeds, st.integers(1, 6))
def test_distances_are_those_of_cosines(seed: int, count: int) -> None:
    """Position by position; 2 - 2 cos is twice scipy's cosine distance."""
    first, second = layers_of(seed, count), layers_of(seed + 1, count)
    for place, found in enumerate(distances(first, second)):
        maps = [layer[0][place].reshape(5, 6).T for layer in (first, second)]
        tokens = [layer[1][place] for layer in (first, second)]
        expected = sum(
            np.mean([2 * cosine(one, other) for one, other in zip(*sides, strict=True)])
            for sides in (maps, tokens)
        )
        assert found == pytest.approx(expected, rel=1e-5)


@given(_seeds, st.floats(1e-3, 1e3))
def test_distances_are_symmetric_bounded_and_blind_to_scale(seed: int, scale: float) -> None:
    first, second = layers_of(seed, 3), layers_of(seed + 1, 3)
    found = distances(first, second)
    assert distances(second, first).tolist() == found.tolist()
    assert distances([layer * np.float32(scale) for layer in first], second) == pytest.approx(found, rel=1e-4)
    assert ((found >= 0) & (found <= 4 * 2 + 1e-9)).all()
    assert distances(first, first).tolist() == [0, 0, 0]


def test_diversity_by_hand() -> None:
    """Three images at 0, 90 and 180 degrees: pairs at 2, 2 and 4."""
    layer = np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, 0.0]]])
    assert diversity([layer], ["a", "b", "c"]) == pytest.approx(8 / 3)


def test_equal_images_have_no_diversity() -> None:
    layers = [np.repeat(layer, 30, axis=0) for layer in layers_of(0, 1)]
    assert diversity(layers, [str(number) for number in range(30)], pairs=100) == 0


@given(_seeds, st.integers(2, 14), st.integers(1, 100))
def test_the_order_of_images_does_not_matter(seed: int, count: int, pairs: int) -> None:
    layers = layers_of(seed, count)
    ids = [f"image {number}" for number in range(count)]
    order = np.random.default_rng(seed).permutation(count)
    moved = diversity([layer[order] for layer in layers], [ids[place] for place in order], pairs=pairs, seed=seed)
    assert moved == pytest.approx(diversity(layers, ids, pairs=pairs, seed=seed))


def test_a_sample_of_pairs_is_close_to_all_of_them() -> None:
    layers = layers_of(1, 60)
    ids = [str(number) for number in range(60)]
    assert diversity(layers, ids, pairs=1000) == pytest.approx(diversity(layers, ids, pairs=1770), rel=0.02)


@given(st.integers(2, 12), st.integers(0, 30))
def test_few_images_give_all_pairs(count: int, more: int) -> None:
    ids = [str(number) for number in range(count)]
    chosen = choose_pairs(ids, pairs=math.comb(count, 2) + more, seed=0)
    found = {frozenset(pair) for pair in chosen.tolist()}
    assert len(chosen) == len(found)
    assert found == {frozenset(pair) for pair in itertools.combinations(range(count), 2)}


@given(_seeds, st.integers(20, 200), st.integers(1, 100))
def test_many_images_give_a_sample_of_pairs_of_two_images(seed: int, count: int, pairs: int) -> None:
    ids = [str(number) for number in range(count)]
    chosen = choose_pairs(ids, pairs=pairs, seed=seed)
    assert chosen.shape == (pairs, 2)
    assert ((chosen >= 0) & (chosen < count)).all()
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert choose_pairs(ids, pairs=pairs, seed=seed).tolist() == chosen.tolist()


def test_every_pair_of_two_images_is_as_likely() -> None:
    ids = [str(number) for number in range(5)]
    drawn = [tuple(pair) for seed in range(2000) for pair in choose_pairs(ids, pairs=3, seed=seed).tolist()]
    counts = [drawn.count(pair) for pair in itertools.permutations(range(5), 2)]
    assert sum(counts) == 6000
    assert min(counts) > 300 - 4 * math.sqrt(300)
    assert max(counts) < 300 + 4 * math.sqrt(300)


@pytest.mark.parametrize(
    ("ids", "pairs", "message"),
    [(["a"], 5, "1 images"), ([], 5, "0 images"), (["a", "a"], 5, "1 different ids"), (["a", "b"], 0, "0 pairs")],
)
def test_pairs_need_two_images(ids: list[str], pairs: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_pairs(ids, pairs=pairs, seed=0)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "differ in shape"),
        ([np.ones((2, 1, 3))], [np.ones((2, 1, 4))], "differ in shape"),
        ([np.ones((2, 1, 3)), np.ones((1, 1, 3))], [np.ones((2, 1, 3)), np.ones((1, 1, 3))], "differ in shape"),
        ([np.ones((2, 3))], [np.ones((2, 3))], "tokens, channels"),
        ([np.ones((2, 0, 3))], [np.ones((2, 0, 3))], "tokens, channels"),
        ([np.full((1, 1, 2), np.nan)], [np.ones((1, 1, 2))], "not finite: 2 of 2"),
    ],
)
def test_activations_that_do_not_fit_are_refused(first: Any, second: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        distances(first, second)


def test_every_layer_has_every_image() -> None:
    with pytest.raises(InputError, match="3 ids"):
        diversity(layers_of(0, 2), ["a", "b", "c"])
    with pytest.raises(InputError, match="differ in shape"):
        diversity([], ["a", "b"])

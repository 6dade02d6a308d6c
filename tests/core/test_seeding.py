"""Coins are functions of names."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.seeding import _encode, below, coin, normal, order, uniform

names = st.lists(st.one_of(st.text(max_size=8), st.integers(0, 99)), max_size=4).map(tuple)


@given(st.integers(0, 99), st.text(max_size=8), names, names)
def test_different_names_have_different_encodings(
    seed: int, purpose: str, one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    same = [str(name) for name in one] == [str(name) for name in other]
    assert (_encode(seed, purpose, one) == _encode(seed, purpose, other)) == same


def test_a_coin_depends_on_every_name() -> None:
    coins = {coin(0, "order", 1, "a"), coin(1, "order", 1, "a"), coin(0, "augment", 1, "a")}
    coins |= {coin(0, "order", 2, "a"), coin(0, "order", 1, "b"), coin(0, "order", "1a")}
    assert len(coins) == 6
    assert coin(0, "order", 1, "a") in coins


@given(st.sets(st.text(max_size=5), max_size=30), st.data())
def test_removing_ids_does_not_reorder_the_others(ids: set[str], data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.sampled_from(sorted(ids)))) if ids else set()
    assert [i for i in order(3, "order", ids, 7) if i in kept] == order(3, "order", kept, 7)


def test_an_order_is_another_in_every_epoch() -> None:
    ids = [str(number) for number in range(20)]
    assert order(0, "order", ids, 0) != order(0, "order", ids, 1)
    assert sorted(order(0, "order", ids, 0)) == sorted(ids)


def test_integers_are_within_their_bounds_and_about_uniform() -> None:
    draws = np.array([below(0, "augment", (3, 10, 1), number) for number in range(6000)])
    assert (draws.max(axis=0) == [2, 9, 0]).all()
    assert (draws.min(axis=0) == 0).all()
    assert abs(np.bincount(draws[:, 0]) - 2000).max() < 200
    assert abs(np.bincount(draws[:, 1]) - 600).max() < 120


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(0, "tokens", 50_000)
    assert 0 < numbers.min() < 0.001 < 0.999 < numbers.max() < 1
    assert np.abs(np.histogram(numbers, 10, (0, 1))[0] - 5000).max() < 300
    np.testing.assert_array_equal(numbers[:10], uniform(0, "tokens", 10))


def test_normal_numbers_are_normal() -> None:
    numbers = normal(0, "prompt", 50_000)
    assert numbers.dtype == np.float32
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.02
    assert np.isfinite(numbers).all()
    np.testing.assert_array_equal(numbers[:10], normal(0, "prompt", 10))


def test_the_functions_have_not_changed() -> None:
    """Golden values: any change here makes every model in the world a different one."""
    assert coin(0, "sample", "digit-0001").hex()[:16] == "0aa2f4a3c50913e7"
    assert below(0, "augment", (100, 100, 2), 3, "digit-0001") == (38, 71, 0)
    np.testing.assert_allclose(normal(0, "prompt", 4), [-0.7537, -1.7361, 0.1652, 1.2], atol=1e-4)

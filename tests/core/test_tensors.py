"""Equal tensors give equal bytes, whatever their order or memory layout, and come back as they were."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lmeraser.core.tensors import Array, from_bytes, to_bytes
from lmeraser.errors import CorruptError

_dtypes = st.sampled_from([np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
_array = arrays.arrays(_dtypes, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
_tensors = st.dictionaries(st.text("abc.", min_size=1, max_size=3), _array, max_size=4)


@settings(deadline=None)
@given(_tensors)
def test_tensors_come_back_as_they_were(tensors: dict[str, Array]) -> None:
    back = from_bytes(to_bytes(tensors))
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


@settings(deadline=None)
@given(_tensors)
def test_the_order_of_names_does_not_matter(tensors: dict[str, Array]) -> None:
    orders = itertools.islice(itertools.permutations(tensors), 6)
    assert len({to_bytes({name: tensors[name] for name in order}) for order in orders}) == 1


def test_the_layout_in_memory_does_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    wide = np.zeros((4, 12), dtype=np.float32)
    wide[:, ::2] = array
    layouts = [array, np.asfortranarray(array), wide[:, ::2], array[::-1][::-1]]
    assert len({to_bytes({"x": layout}) for layout in layouts}) == 1


def test_one_changed_bit_names_or_types_change_the_bytes() -> None:
    array = np.zeros(3, dtype=np.float32)
    negative = np.array([0, 0, -0.0], dtype=np.float32)
    wide, tall = array.astype(np.float64), array.reshape(1, 3)
    others: list[dict[str, Array]] = [{"x": negative}, {"y": array}, {"x": wide}, {"x": tall}, {}]
    assert len({to_bytes(tensors) for tensors in [{"x": array}, *others]}) == len(others) + 1


@pytest.mark.parametrize("cut", [0, 4, 8, 20, -1])
def test_truncated_bytes_are_corrupt(cut: int) -> None:
    data = to_bytes({"x": np.arange(4, dtype=np.float32)})
    with pytest.raises(CorruptError, match="safetensors"):
        from_bytes(data[:cut])


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_other_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptError):
        from_bytes(data)

"""Payloads of vectors: finite float32 numbers, whatever type they come in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from lmeraser.data.modalities.vector import VectorFormat, check_vector, read_vector, vector_of, vector_payload
from lmeraser.errors import InputError

LARGEST = float(np.float32(4e18))  # 20 squares of it are finite
VECTORS = arrays.arrays(np.float32, st.integers(1, 20), elements={"min_value": -LARGEST, "max_value": LARGEST})


@given(VECTORS)
def test_a_vector_comes_back_bit_by_bit_in_whatever_it_was_given(vector: NDArray[np.float32]) -> None:
    payload = vector_payload(vector, vector.size)

    assert vector_of(payload).tobytes() == vector.tobytes() == payload
    check_vector(payload, vector.size)
    assert vector_payload(vector.tolist()) == payload
    assert vector_payload(vector.astype(">f8")) == payload
    assert vector_payload(np.stack([vector, vector], axis=1)[:, 1]) == payload  # not contiguous


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint16, np.int64])
def test_numbers_of_other_types_are_rounded_to_float32(dtype: type) -> None:
    assert vector_of(vector_payload(np.array([1, 3, 100], dtype))).tolist() == [1, 3, 100]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "instead of a vector"),
        (float("nan"), "instead of a vector"),
        ("0.1, 0.2", "type str instead of a vector"),
        (0.5, "instead of a vector"),
        ([1.0, 2.0], "a vector of 2 numbers instead of 3"),
        ([], "instead of a vector"),
        ([1.0, float("nan"), 2.0], "number 1 of the vector is not finite as float32: nan"),
        ([1.0, 2.0, -np.inf], "number 2 of the vector is not finite as float32: -inf"),
        ([1e39, 1.0, 2.0], "number 0 of the vector is not finite as float32"),
        ([1.0, -1e30, 2.0], r"number 1 of the vector, -1e\+30, is too large to be squared: scale all vectors"),
        ([1.2e19, 1.2e19, 1.2e19], "too large to be squared"),
        ([1.0, None, 2.0], "instead of a vector of numbers"),
        (["1", "2", "3"], "instead of a vector of numbers"),
        ([True, False, True], "instead of a vector of numbers"),
        ([1j, 2, 3], "instead of a vector of numbers"),
        ([10**400, 1, 2], "instead of a vector of numbers"),
        ([[1.0], [1.0, 2.0]], "instead of a vector"),
        (np.zeros((1, 3)), "instead of a vector"),
    ],
)
def test_what_is_refused(value: object, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        vector_payload(value, 3)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [(b"12345", "5 bytes, not a multiple of 4"), (b"\0\0\xc0\x7f", "not finite"), (b"", "instead of a vector")],
)
def test_bytes_that_are_no_payload(payload: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        check_vector(payload)


def test_a_vector_to_classify_is_not_the_callers_own() -> None:
    given = np.ones(4, np.float32)
    read = read_vector(given, 4)
    given[:] = 0
    assert read.tolist() == [1.0] * 4


def test_files_to_classify_hold_one_vector_or_one_in_each_row(tmp_path: Path) -> None:
    own = VectorFormat(3)
    np.save(tmp_path / "one.npy", np.ones(3))
    np.save(tmp_path / "two.npy", np.ones((2, 3)))
    files = [str(tmp_path / name) for name in ("one.npy", "two.npy")]
    assert [name for name, _ in own.queries(files, Counter())] == [files[0], f"{files[1]}[0]", f"{files[1]}[1]"]
    np.save(tmp_path / "number.npy", np.float32(3))
    np.savez(tmp_path / "several.npz", X=np.ones((2, 3)))
    (tmp_path / "text.npy").write_text("no array")
    for name in ("number.npy", "several.npz", "text.npy", "missing.npy"):
        with pytest.raises(InputError, match="Cannot read the vectors"):
            own.queries([str(tmp_path / name)], Counter())

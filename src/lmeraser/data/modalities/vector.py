"""Vectors as payloads: little-endian float32 numbers, all finite, as many as the settings say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.errors import InputError

COLUMNS = ("vector", "embedding", "embeddings", "features")

_LARGEST = float(np.finfo(np.float32).max)
_WIRE_NUMBER = 32  # bytes of a number in JSON with a comma and white space, generously
_SHOWN = 4  # numbers of a vector in one line


def vector_payload(value: Any, length: int | None = None) -> bytes:
    """The payload of a vector.

    Args:
        value: an array or a sequence of numbers; converted to float32.
        length: how many numbers it has to have; None: any.

    Raises:
        ValueError: it is no vector of this length, or has a number that is not finite; says which.
    """
    return _as_vector(value, length).astype("<f4", copy=False).tobytes()


def check_vector(payload: bytes, length: int | None = None) -> None:
    """Refuse bytes that are not the payload of a vector of this length.

    Raises:
        ValueError: they are none; says why.
    """
    if length is None:
        length, rest = divmod(len(payload), 4)
        if rest:
            raise ValueError(f"{len(payload)} bytes, not a multiple of 4")
    if len(payload) != 4 * length:
        raise ValueError(f"{len(payload)} bytes instead of {4 * length} (a vector of {length} numbers)")
    numbers = np.frombuffer(payload, dtype="<f4")
    if not length or not np.isfinite(_squares(numbers)):  # else there is nothing to refuse
        _as_vector(numbers, length)


def vector_of(payload: bytes) -> NDArray[np.float32]:
    """The numbers of a payload, float32 [length]."""
    return np.frombuffer(payload, dtype="<f4").astype(np.float32)


def read_vector(value: Any, length: int) -> NDArray[np.float32]:
    """A vector to classify, float32 [length]: an array, a sequence of numbers, or the bytes of a payload.

    Raises:
        InputError: it is none.
    """
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            check_vector(bytes(value), length)
            return vector_of(bytes(value))
        return _as_vector(value, length).copy()  # the caller may change its own
    except ValueError as error:
        raise InputError(
            "Not a vector", got=str(error), next_step=f"give {length} finite numbers, as float32"
        ) from error


def _as_vector(value: Any, length: int | None) -> NDArray[np.float32]:
    try:
        numbers = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a value of type {type(value).__name__} instead of a vector") from error
    if numbers.dtype.kind not in "fiu" or isinstance(value, str | bytes):
        kind = f"an array of type {numbers.dtype}" if numbers.ndim else f"a value of type {type(value).__name__}"
        raise ValueError(f"{kind} instead of a vector of numbers")
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"an array of shape {list(numbers.shape)} instead of a vector")
    if length is not None and len(numbers) != length:
        raise ValueError(f"a vector of {len(numbers)} numbers instead of {length}")
    vector: NDArray[np.float32]
    if numbers.dtype == np.float32:
        vector = numbers
    else:
        with np.errstate(over="ignore"):
            vector = numbers.astype(np.float32)
    if not (finite := np.isfinite(vector)).all():
        place = int(np.argmin(finite))
        raise ValueError(f"number {place} of the vector is not finite as float32: {numbers[place]}")
    if not np.isfinite(_squares(vector)):
        place = int(np.argmax(np.abs(vector)))
        raise ValueError(
            f"number {place} of the vector, {numbers[place]}, is too large to be squared: scale all vectors"
        )
    return vector


def _squares(vector: NDArray[np.float32]) -> np.float32:
    """The sum of squares, by which vectors are scaled: not finite if a number is not, or if they are too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.float32(np.square(vector, dtype=np.float32).sum(dtype=np.float32))


class VectorFormat(PayloadFormat):
    """Vectors of one length.

    Args:
        length: of each.
    """

    noun = "vector"
    columns = COLUMNS
    suffix = ".f32"
    wire_field = "vectors"

    def __init__(self, length: int) -> None:
        self.length = length
        self.wire_bytes = _WIRE_NUMBER * (length + 1)

    def payload(self, value: Any) -> bytes:
        """The payload of an array or a sequence. Raises as `vector_payload`."""
        return vector_payload(value, self.length)

    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no vector. Raises as `check_vector`."""
        check_vector(payload, self.length)

    def noise(self, count: int) -> list[bytes]:
        """Standard normal vectors."""
        vectors = np.random.default_rng(0).standard_normal((count, self.length))
        return [vector_payload(vector, self.length) for vector in vectors]

    def queries(self, arguments: Sequence[str], passed_over: Counter[str]) -> list[tuple[str, Any]]:
        """The rows of ``.npy`` files."""
        found: list[tuple[str, Any]] = []
        for argument in arguments:
            try:
                rows = np.load(argument, allow_pickle=False)
                if getattr(rows, "ndim", 0) not in (1, 2):
                    raise ValueError("no array of one or two dimensions")
            except (OSError, ValueError, EOFError) as error:
                raise InputError(
                    "Cannot read the vectors",
                    got=f"{argument}: {error}",
                    next_step="give files that numpy.save wrote, with one vector or one for each row",
                ) from error
            if rows.ndim == 1:
                found.append((argument, rows))
            else:
                found += [(f"{argument}[{number}]", row) for number, row in enumerate(rows)]
        return found

    def of_json(self, value: Any) -> bytes:
        """The payload of a JSON array of numbers.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(value, list):
            raise ValueError(f"a value of type {type(value).__name__} instead of a vector")
        if len(value) != self.length:
            raise ValueError(f"a vector of {len(value)} numbers instead of {self.length}")
        for place, number in enumerate(value):
            if type(number) not in (int, float):
                raise ValueError(
                    f"a value of type {type(number).__name__} instead of number {place} of the vector"
                )
            if not abs(number) <= _LARGEST:
                raise ValueError(f"number {place} of the vector is not finite as float32")
        return vector_payload([float(number) for number in value], self.length)

    def json_schema(self) -> dict[str, Any]:
        """An array of numbers."""
        return {
            "type": "array",
            "minItems": self.length,
            "maxItems": self.length,
            "items": {"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST},
            "examples": [[0.5] * self.length],
        }

    def describe(self, payload: bytes) -> str:
        """The first numbers."""
        shown = ", ".join(f"{number:.3g}" for number in np.frombuffer(payload[: 4 * _SHOWN], dtype="<f4"))
        return f"[{shown}, \N{HORIZONTAL ELLIPSIS}] ({len(payload) // 4} numbers)"


def open_format(config: Config) -> VectorFormat:
    """Vectors of the length of the settings."""
    assert config.data.length is not None  # as the settings were checked
    return VectorFormat(config.data.length)

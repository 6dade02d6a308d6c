"""Tensors to bytes and back: the same tensors always give the same bytes.

The format is safetensors, which sorts its header by name and holds no code. Metadata is never written, because
it would be part of the digest. Knows numpy only, so that predictions, audits and verifiers share one reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lmeraser.errors import CorruptError

Array = NDArray[Any]


def to_bytes(tensors: Mapping[str, Array]) -> bytes:
    """Tensors as safetensors bytes; equal tensors give equal bytes."""
    return save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)})


def from_bytes(data: bytes) -> dict[str, Array]:
    """The tensors in ``data``.

    Raises:
        CorruptError: ``data`` is not a safetensors file.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise CorruptError(
            "An artifact is a safetensors file.", got=str(error), next_step="restore it from a backup"
        ) from error

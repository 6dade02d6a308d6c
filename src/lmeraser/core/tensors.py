"""Serialization of tensors: equal tensors always give equal bytes.

The format is safetensors, which sorts its header by name and holds no code. Metadata is never written, because it
would become part of the digest. Uses numpy only, so that predictions, audits and verifiers share one reader
without importing torch.
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
    """Serialize tensors as safetensors, sorted by name and in C order."""
    return save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)})


def from_bytes(data: bytes) -> dict[str, Array]:
    """Read the tensors from safetensors bytes.

    Raises:
        CorruptError: ``data`` is not a safetensors file.
    """
    try:
        return load(data)
    except SafetensorError as error:
        raise CorruptError(
            "Artifact is not a safetensors file", got=str(error), next_step="restore it from a backup"
        ) from error

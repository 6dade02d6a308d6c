"""A folder that holds a backbone: written here, read by `HuggingFaceBackbone` (``backbone.name = FOLDER``).

    config.json, model.safetensors     as transformers saves them, under the names that every version reads
    preprocessor_config.json           how pixels are normalised
    public.digests                     of the public images, where they were at hand (`public`)
    provenance.json                    where all this comes from; written last, after the rest was read back

Knows nothing about training or other layouts of checkpoints.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lmeraser._version import __version__
from lmeraser.config.schema import BackboneConfig
from lmeraser.core.atomic_files import TEMPORARY, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.data.provenance import PROVENANCE, PUBLIC_DIGESTS
from lmeraser.errors import InputError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

WEIGHTS = "model.safetensors"
_CONFIG, _PIXELS = "config.json", "preprocessor_config.json"
_FORMAT = 1


def check_free(out: Path, *, kept: str = "") -> None:
    """Refuse a folder with other files in it than an interrupted `write_backbone` leaves.

    Args:
        out: the folder; may be missing.
        kept: a name that may be in it as well.

    Raises:
        InputError: it holds a finished backbone, or something else.
    """
    parts = {_CONFIG, WEIGHTS, _PIXELS, PUBLIC_DIGESTS, kept}
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = {name for name in names - parts if not name.startswith(TEMPORARY)}
    if foreign or (out.exists() and not out.is_dir()):
        raise InputError(
            "A backbone is written into an empty or missing folder.",
            got=f"{out} holds {'a finished backbone' if PROVENANCE in foreign else 'other files'}",
            next_step="choose another folder with --out",
        )


def pixel_statistics(mean: tuple[float, ...], std: tuple[float, ...], size: int) -> bytes:
    """A ``preprocessor_config.json``: pixels are divided by 255, less ``mean``, divided by ``std``."""
    values = {
        "image_processor_type": "ViTImageProcessor",
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": mean,
        "image_std": std,
        "rescale_factor": 1 / 255,
        "size": {"height": size, "width": size},
    }
    return json.dumps(values, indent=1).encode()


def write_backbone(
    out: Path, *, config: bytes, weights: bytes, pixels: bytes, size: int, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a backbone, read it back, and tell where it comes from.

    Args:
        out: the folder (`check_free`).
        config: a ``config.json``.
        weights: a ``model.safetensors``.
        pixels: a ``preprocessor_config.json`` (`pixel_statistics`).
        size: side of an input that it takes, px.
        provenance: what is to be told; digests are added.

    Returns:
        What ``provenance.json`` says.

    Raises:
        BackboneError: what was written is no whole model; nothing of it is left.
        StorageError: the disk refused.
    """
    files = {_CONFIG: config, WEIGHTS: weights, _PIXELS: pixels}
    for name, data in files.items():
        write_atomic(out / name, data)
    try:
        read_back: Backbone = HuggingFaceBackbone(
            BackboneConfig(name=str(out.resolve()), image_size=size, micro_batch=2), torch.device("cpu")
        )
    except BaseException:
        for name in files:
            (out / name).unlink()
        raise
    vectors = read_back.class_vectors
    told = {
        "format": _FORMAT,
        **provenance,
        "feature_dim": read_back.feature_dim,
        "class_vectors": 0 if vectors is None else len(vectors),
        "weights": Digest.of(weights),
        "backbone": read_back.digest,
    }
    write_atomic(out / PROVENANCE, json.dumps(told, indent=1).encode())
    return told


def versions(*packages: str) -> dict[str, str]:
    """Of Python, lmeraser and what else decided the weights, for a provenance."""
    return {
        "python": platform.python_version(),
        "lmeraser": __version__,
        **{package: version(package) for package in packages},
    }

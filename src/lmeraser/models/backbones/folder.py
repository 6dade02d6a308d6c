"""A backbone as a folder, to be loaded by `HuggingFaceBackbone` with ``backbone.name = FOLDER``.

config.json, model.safetensors     as transformers saves them, with tensor names that every version of it reads
preprocessor_config.json           normalisation of pixels
public.digests                     digests of the public images, where they are known (`data.provenance`)
provenance.json                    origin of all this; written last, after the rest was read back
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
from lmeraser.config.inputs import BackboneConfig
from lmeraser.core.atomic_files import SHARED, TEMPORARY, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.data.provenance import PROVENANCE, PUBLIC_DIGESTS
from lmeraser.errors import InputError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

WEIGHTS = "model.safetensors"
_CONFIG = "config.json"
_PIXELS = "preprocessor_config.json"
_FORMAT = 1


def check_output_folder(out: Path, *, allowed: str = "") -> None:
    """Check that a folder is free for a backbone: missing, empty, or left by an interrupted `write_backbone`.

    Args:
        out: the folder.
        allowed: name of another entry that it may have.

    Raises:
        InputError: it holds a finished backbone or other files.
    """
    parts = {_CONFIG, WEIGHTS, _PIXELS, PUBLIC_DIGESTS, allowed}
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = {name for name in names - parts if not name.startswith(TEMPORARY)}
    if foreign or (out.exists() and not out.is_dir()):
        raise InputError(
            "The folder for the backbone is not empty",
            got=f"{out} holds {'a finished backbone' if PROVENANCE in foreign else 'other files'}",
            next_step="choose an empty or new folder with --out",
        )


def pixel_statistics(mean: tuple[float, ...], std: tuple[float, ...], size: int) -> bytes:
    """A ``preprocessor_config.json`` that normalises pixels to (pixel / 255 - mean) / std."""
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
    """Write a backbone, load it as a check, and write its provenance.

    Args:
        out: the folder, after `check_output_folder`.
        config: content of ``config.json``.
        weights: content of ``model.safetensors``.
        pixels: content of ``preprocessor_config.json`` (`pixel_statistics`).
        size: side of the input, px.
        provenance: origin of the weights; digests are added.

    Returns:
        The content of ``provenance.json``.

    Raises:
        BackboneError: the files are no complete model; they are removed again.
        StorageError: the disk refused.
    """
    files = {_CONFIG: config, WEIGHTS: weights, _PIXELS: pixels}
    for name, data in files.items():
        write_atomic(out / name, data, mode=SHARED)
    try:
        backbone: Backbone = HuggingFaceBackbone(
            BackboneConfig(name=str(out.resolve()), image_size=size, micro_batch=2), torch.device("cpu")
        )
    except BaseException:
        for name in files:
            (out / name).unlink()
        raise
    vectors = backbone.class_vectors
    content = {
        "format": _FORMAT,
        **provenance,
        "feature_dim": backbone.feature_dim,
        "class_vectors": 0 if vectors is None else len(vectors),
        "weights": Digest.of(weights),
        "backbone": backbone.digest,
    }
    write_atomic(out / PROVENANCE, json.dumps(content, indent=1).encode(), mode=SHARED)
    return content


def package_versions(*packages: str) -> dict[str, str]:
    """Versions of Python, lmeraser and these packages, for a provenance."""
    return {
        "python": platform.python_version(),
        "lmeraser": __version__,
        **{package: version(package) for package in packages},
    }

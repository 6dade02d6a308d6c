"""Backbones, the frozen networks (`models.modalities.load_backbone` loads one), and the device they run on."""

from __future__ import annotations

import os

import torch

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import Backbone

__all__ = ["Backbone", "open_device"]


def open_device(name: str) -> torch.device:
    """The device that ``compute.device`` names.

    Raises:
        BackboneError: there is no such device.
    """
    if name == "cuda":
        _require_gpu()
        # cuBLAS is deterministic with workspaces of a fixed size only, and reads this when it starts.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return torch.device(name)


def _require_gpu() -> None:
    """Raise an error that says what is missing, unless torch can use a GPU."""
    if torch.cuda.is_available():
        return
    if torch.version.cuda is None and torch.version.hip is None:
        why = f"torch {torch.__version__} is a build for CPUs only"
        next_step = "install a torch build for CUDA (pytorch.org lists them)"
    else:
        why = f"torch {torch.__version__} is built for GPUs (CUDA {torch.version.cuda}) but sees none"
        next_step = (
            "check that nvidia-smi lists the GPU, that its driver is new enough for this CUDA version, and that "
            "CUDA_VISIBLE_DEVICES does not hide it"
        )
    raise BackboneError(
        "Device not found",
        got=f"compute.device is 'cuda', but there is no GPU: {why}",
        next_step=f'{next_step}, or set compute.device = "cpu"',
    )

"""Backbones, the frozen networks; `load_backbone` loads the one that the settings name."""

from __future__ import annotations

import os

import torch

from lmeraser.config.schema import Config
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED
from lmeraser.models.backbones.base import Backbone

__all__ = ["Backbone", "load_backbone"]


def load_backbone(config: Config) -> Backbone:
    """Load the backbone that the settings name onto the device that they name.

    Raises:
        BackboneError: the weights cannot be found or loaded, or there is no such device.
    """
    device = _device(config.compute.device)
    if config.backbone.name == BUNDLED:
        from lmeraser.models.backbones.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(config.backbone, device)
    from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(config.backbone, device)


def _device(name: str) -> torch.device:
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

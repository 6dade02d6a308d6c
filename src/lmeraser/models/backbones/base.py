"""The interface of backbones: frozen networks that turn normalised images into feature vectors.

A backbone was trained on public data only and never changes; private records have no influence on its weights. (A
copy of it can be tuned: `Backbone.network`.) It enters the training function by the digest of its weights and
architecture. All passes have one shape: `micro_batch` images of `image_size` px. Knows nothing about heads or
records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.core.digests import Digest
from lmeraser.core.tensors import to_bytes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TokenInput:
    """The input for learned tokens of a transformer, after its class token and before the tokens of patches.

    Attributes:
        layers: number of layers of the transformer.
        width: length of a token.
        patch: side of a patch, px.
        features: computes the features of images with tokens, float32 [micro_batch, feature_dim], from images as
            in `Backbone.features` and tokens float32 [micro_batch or 1, layers or 1, count, width]; differentiable
            in the tokens. Tokens for one layer go into the first one. Tokens for all layers go into each of them,
            and replace the outputs of the layer before at their positions.
    """

    layers: int
    width: int
    patch: int
    features: Callable[[Tensor, Tensor], Tensor]


class Backbone(ABC):
    """A frozen network.

    Attributes:
        digest: of the weights and the architecture; equal digests give equal features on one machine.
        image_size: side of the input, px.
        micro_batch: number of images in every pass.
        feature_dim: length of a feature vector.
        device: of the weights.
        class_vectors: weights of the checkpoint's classifier, one vector for each public class that the network
            was trained on, float32 [classes, feature_dim]; None where the checkpoint has none.
        token_input: the input for learned tokens; None where the network has none.
    """

    digest: Digest
    image_size: int
    micro_batch: int
    feature_dim: int
    device: torch.device
    class_vectors: NDArray[np.float32] | None = None
    token_input: TokenInput | None = None
    _mean: Tensor
    _std: Tensor
    _channels: list[int] | None = None  # the image's, in the order of the input's; None: red, green, blue

    @abstractmethod
    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Feature vectors of normalised images.

        Args:
            images: float32 [micro_batch, 3, image_size, image_size], normalised by `normalize`.
            prompt: float32 [1, 3, image_size, image_size], added to every image.

        Returns:
            float32 [micro_batch, feature_dim]; differentiable in ``images``, or in ``prompt`` where there is one.
        """

    @abstractmethod
    def network(self) -> nn.Module:
        """A copy of the network with its public weights, which may be tuned.

        Returns:
            A module from normalised images, float32 [n, 3, image_size, image_size], to features, float32
            [n, feature_dim]. It is in evaluation mode, so that neither batch statistics nor dropout couple images.
        """

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 [n, 3, h, w], as float32 input, normalised with the constants of the public training."""
        if self._channels is not None and self._channels != [0, 1, 2]:
            pixels = pixels[:, self._channels]
        if self.device.type == "cuda":  # bytes travel, not floats, and the CPU does not wait for them
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(self.device, torch.float32).div_(255.0).sub_(self._mean).div_(self._std)


def channel_constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Per-channel constants as float32 [1, 3, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)


def weights_digest(architecture: Mapping[str, Any], state: Mapping[str, Tensor]) -> Digest:
    """Digest of an architecture (JSON values) and of all its tensors (names, dtypes, shapes, bytes)."""
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}
    parts = {"architecture": dict(architecture), "weights": str(Digest.of(to_bytes(tensors)))}
    return Digest.of_json(parts)

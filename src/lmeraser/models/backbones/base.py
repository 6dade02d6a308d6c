"""The interface of backbones: frozen networks that turn inputs of a fixed shape into feature vectors.

A backbone was trained on public data only and never changes; private records have no influence on its weights. (A
copy of it can be tuned: `Backbone.network`.) It enters the training function by the digest of its weights and
architecture. Every pass has `micro_batch` rows; the shape of a row depends on one record alone. Knows nothing
about heads or records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.core.digests import Digest
from lmeraser.core.tensors import to_bytes
from lmeraser.errors import BackboneError

FINAL = "final"  # the layer whose vector is the features
AUTO = "auto"  # the backbone's default layers
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TokenInput:
    """The input for learned tokens of a transformer, beside those of its input.

    Attributes:
        layers: number of layers of the transformer.
        width: length of a token.
        bound: initial values of tokens are uniform in [-bound, bound].
        features: computes the features of inputs with tokens, float32 [micro_batch, feature_dim], from inputs as
            in `Backbone.features` and tokens float32 [micro_batch or 1, layers or 1, count, width]; differentiable
            in the tokens. Tokens for one layer go into the first one. Tokens for all layers go into each of them,
            and replace the outputs of the layer before at their positions.
    """

    layers: int
    width: int
    bound: float
    features: Callable[[Tensor, Tensor], Tensor]


class Backbone(ABC):
    """A frozen network.

    Attributes:
        digest: of the weights and the architecture; equal digests give equal features on one machine.
        micro_batch: number of rows in every pass.
        feature_dim: length of a feature vector.
        device: of the weights.
        class_vectors: weights of the checkpoint's classifier, one vector for each public class that the network
            was trained on, float32 [classes, feature_dim]; None where the checkpoint has none.
        token_input: the input for learned tokens; None where the network has none.
    """

    digest: Digest
    micro_batch: int
    feature_dim: int
    device: torch.device
    class_vectors: NDArray[np.float32] | None = None
    token_input: TokenInput | None = None

    @property
    def layers(self) -> Mapping[str, int]:
        """The length of each vector that `layered` can give, by its name, besides "final" for the features."""
        return {}

    @property
    def default_layers(self) -> tuple[str, ...]:
        """What ``embedding.layers = ["auto"]`` stands for.

        Models depend on it: a better choice for the same network needs another word in the settings.
        """
        return (FINAL,)

    @abstractmethod
    def features(self, inputs: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Feature vectors of inputs.

        Args:
            inputs: [micro_batch, ...], from `place`.
            prompt: [1, ...], added to every row, where the inputs are numbers that can be added to.

        Returns:
            float32 [micro_batch, feature_dim]; differentiable in ``inputs``, or in ``prompt`` where there is one.
        """

    def layered(self, inputs: Tensor, layers: Sequence[str]) -> Tensor:
        """Feature vectors of inputs, and vectors of layers below, from the same pass.

        Args:
            inputs: [micro_batch, ...], from `place`.
            layers: names among ``self.layers``.

        Returns:
            float32 [micro_batch, feature_dim + sum of the layers' lengths]: the features, with the bits that
            `features` gives, followed by the vector of each layer.
        """
        assert not layers
        return self.features(inputs)

    @abstractmethod
    def network(self) -> nn.Module:
        """A copy of the network with its public weights, which may be tuned.

        Returns:
            A module from inputs, [n, ...], to features, float32 [n, feature_dim]. It is in evaluation mode, so
            that neither batch statistics nor dropout couple rows.
        """

    def description(self) -> dict[str, Any] | None:
        """What `network` computes, in JSON values, as the code of exports for transformers takes it.

        Without tensors, and without anything that tells where they were loaded from. None where that code has no
        such network (`inference/export/transformers_code`).
        """
        return None

    @abstractmethod
    def place(self, raw: Tensor) -> Tensor:
        """Inputs of the backbone, on its device, from inputs as they are prepared on the CPU."""

    @abstractmethod
    def probe(self, seed: int) -> Tensor:
        """Noise that depends on the seed alone, as inputs of one pass."""

    @abstractmethod
    def features_and_gradients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and the gradient, by what can be tuned at the input, of a fixed weighted sum of them.

        Args:
            inputs: [micro_batch, ...].

        Returns:
            float32 [micro_batch, feature_dim], and [micro_batch, ...] with a gradient for each row; on the CPU.
        """

    @abstractmethod
    def shared_gradient(self, inputs: Tensor) -> Tensor:
        """The same gradient by a prompt that all rows share, float32 [1, ...], on the CPU."""


def chosen_layers(backbone: Backbone, names: Sequence[str], backbone_name: str) -> tuple[str, ...]:
    """The layers that ``embedding.layers`` means for a backbone.

    Args:
        backbone: the frozen network.
        names: as in the settings.
        backbone_name: as in the settings, for errors.

    Raises:
        BackboneError: the backbone lacks one of them.
    """
    layers = tuple(backbone.default_layers if list(names) == [AUTO] else names)
    if lacking := [name for name in layers if name != FINAL and name not in backbone.layers]:
        possible = ", ".join([AUTO, FINAL, *backbone.layers])
        raise BackboneError(
            "The backbone does not offer a layer",
            got=f"{', '.join(lacking)} of {backbone_name} (possible: {possible})",
            next_step="set embedding.layers to names among these",
        )
    return layers


class ImageBackbone(Backbone):
    """A frozen network for images: all passes have ``micro_batch`` images of ``image_size`` px.

    Attributes:
        image_size: side of the input, px.
    """

    image_size: int
    _mean: Tensor
    _std: Tensor
    _channels: list[int] | None = None  # the image's, in the order of the input's; None: red, green, blue

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 [n, 3, h, w], as float32 input, normalised with the constants of the public training."""
        if self._channels is not None and self._channels != [0, 1, 2]:
            pixels = pixels[:, self._channels]
        if self.device.type == "cuda":  # bytes travel, not floats, and the CPU does not wait for them
            pixels = pixels.pin_memory().to(self.device, non_blocking=True)
        return pixels.to(self.device, torch.float32).div_(255.0).sub_(self._mean).div_(self._std)

    @property
    def pixel_constants(self) -> dict[str, list[Any]]:
        """Mean and standard deviation of the input's channels, and the order of the image's channels in it."""
        return {
            "mean": self._mean.flatten().tolist(),
            "std": self._std.flatten().tolist(),
            "channels": self._channels or [0, 1, 2],
        }

    def place(self, raw: Tensor) -> Tensor:
        """`normalize`: float32 [micro_batch, 3, image_size, image_size] from pixels, uint8."""
        return self.normalize(raw)

    def probe(self, seed: int) -> Tensor:
        """Noise, float32 [micro_batch, 3, image_size, image_size]."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.micro_batch, 3, self.image_size, self.image_size)
        return torch.randn(shape, generator=generator).to(self.device)

    def features_and_gradients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features and the gradient by the pixels, float32 [micro_batch, 3, image_size, image_size]."""
        pixels = inputs.clone().requires_grad_(True)
        features = self.features(pixels)
        return features.detach().cpu(), probe_gradient(features, pixels)

    def shared_gradient(self, inputs: Tensor) -> Tensor:
        """The gradient by a prompt, float32 [1, 3, image_size, image_size]."""
        prompt = torch.zeros_like(inputs[:1]).requires_grad_(True)
        return probe_gradient(self.features(inputs, prompt), prompt).contiguous()


def probe_gradient(features: Tensor, variable: Tensor) -> Tensor:
    """The gradient of a fixed weighted sum of features, on the CPU."""
    weights = torch.linspace(-1.0, 1.0, features.shape[1], device=features.device)
    (gradient,) = torch.autograd.grad((features * weights).sum(), variable)
    return gradient.cpu()


def channel_constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Per-channel constants as float32 [1, 3, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(1, 3, 1, 1)


def weights_digest(architecture: Mapping[str, Any], state: Mapping[str, Tensor]) -> Digest:
    """Digest of an architecture (JSON values) and of all its tensors (names, dtypes, shapes, bytes)."""
    tensors = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in state.items()}
    parts = {"architecture": dict(architecture), "weights": str(Digest.of(to_bytes(tensors)))}
    return Digest.of_json(parts)

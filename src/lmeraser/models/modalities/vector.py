"""Vectors as inputs of the backbone ``identity``: the features of a vector are its numbers.

Somebody else's model has computed them; its public name is part of the backbone's digest. No prompt can be tuned
at the input of a model that is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.seeding import normal
from lmeraser.data.modalities.vector import read_vector
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import IDENTITY
from lmeraser.models.backbones.base import Backbone, probe_gradient
from lmeraser.models.modalities.base import InputEncoder, MemberInputs, ParallelMap, slices

_PASSES = 64  # whose vectors are embedded together

Vector = NDArray[np.float32]  # [length]


class IdentityBackbone(Backbone):
    """The model of somebody else, whose features are given.

    Args:
        config: all settings.
        device: where passes are computed.

    Raises:
        BackboneError: ``backbone.name`` is another one.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        name = config.backbone.name
        if name != IDENTITY and not name.startswith(f"{IDENTITY}:"):
            raise BackboneError(
                "Not a backbone for vectors",
                got=repr(name),
                next_step=f"set backbone.name to '{IDENTITY}', or to '{IDENTITY}:NAME' with the public name of "
                "the model that computed the vectors",
            )
        assert config.data.length is not None  # as the settings were checked
        self.micro_batch = config.backbone.micro_batch
        self.feature_dim = config.data.length
        self.device = device
        made_by = name.removeprefix(IDENTITY).removeprefix(":")
        self.digest = Digest.of_json({"architecture": {"identity": made_by, "length": self.feature_dim}})

    def features(self, inputs: Tensor, prompt: Tensor | None = None) -> Tensor:
        """The inputs themselves, float32 [micro_batch, length]."""
        return inputs if prompt is None else inputs + prompt

    def network(self) -> nn.Module:
        """The identity; it has no weights."""
        return nn.Identity()

    def place(self, raw: Tensor) -> Tensor:
        """Vectors on the device."""
        return raw.to(self.device)

    def probe(self, seed: int) -> Tensor:
        """Noise, float32 [micro_batch, length]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn((self.micro_batch, self.feature_dim), generator=generator).to(self.device)

    def features_and_gradients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors, and the gradient by them, float32 [micro_batch, length]."""
        variable = inputs.clone().requires_grad_(True)
        features = self.features(variable)
        return features.detach().cpu(), probe_gradient(features, variable)

    def shared_gradient(self, inputs: Tensor) -> Tensor:
        """The gradient by a vector that is added to all, float32 [1, length]."""
        prompt = torch.zeros_like(inputs[:1]).requires_grad_(True)
        return probe_gradient(self.features(inputs, prompt), prompt)


class VectorEncoder(InputEncoder[Vector, IdentityBackbone]):
    """Inputs from vectors."""

    def __init__(self, config: Config, backbone: IdentityBackbone) -> None:
        super().__init__(config, backbone)
        self.chunk = _PASSES * backbone.micro_batch

    def load(self, value: Any) -> Vector:
        """The numbers of a payload, or of what `read_vector` takes."""
        return read_vector(value, self.backbone.feature_dim)

    def passes(self, values: Sequence[Any]) -> list[Sequence[int]]:
        """All vectors have one shape."""
        return slices(range(len(values)), self.backbone.micro_batch)

    def input(self, items: Sequence[Vector], view: View) -> Tensor:
        """Vectors, float32 [micro_batch, length]; padding is zeros."""
        return self.backbone.place(_rows(np.stack(items), self.backbone.micro_batch))

    def noise(self, number: int) -> Tensor:
        """Gaussian noise, float32 [micro_batch, length]."""
        shape = (self.backbone.micro_batch, self.backbone.feature_dim)
        drawn = normal(self.config.seed, f"noise {number}", shape[0] * shape[1])
        return self.backbone.place(torch.from_numpy(drawn).reshape(shape))

    def _vectors(
        self, items: Sequence[Vector], views: Sequence[View], layers: Sequence[str], clean: Tensor | None
    ) -> NDArray[np.float32]:
        """The vectors, float32 [n, views, length]; no pass is needed."""
        vectors: NDArray[np.float32] = np.repeat(np.stack(items)[:, None], len(views), axis=1)
        return vectors

    def members(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> VectorMembers:
        """The members' vectors."""
        return VectorMembers(np.stack([self.load(data) for data in fetch(ids)]), self.backbone.micro_batch)


class VectorMembers(MemberInputs):
    """The members' vectors, the same in every epoch."""

    def __init__(self, vectors: NDArray[np.float32], micro_batch: int) -> None:
        super().__init__(micro_batch)
        self._vectors = vectors

    def prepare(self, positions: Sequence[int], ids: Sequence[str], epoch: int | None) -> Tensor:
        """Vectors, float32 [micro_batch, length]."""
        return _rows(self._vectors[list(positions)], self.micro_batch)


def _rows(vectors: NDArray[np.float32], micro_batch: int) -> Tensor:
    return torch.from_numpy(np.pad(vectors, ((0, micro_batch - len(vectors)), (0, 0))))


ENCODER = VectorEncoder


def load_network(config: Config, device: torch.device) -> IdentityBackbone:
    """The identity, with the length of the settings. Raises as `load_backbone`."""
    return IdentityBackbone(config, device)

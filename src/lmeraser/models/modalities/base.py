"""The interface of input encoders: how the payloads of one modality become inputs of a backbone.

    payload -> item (decoded) -> inputs of passes (of fixed shapes) -> features of views

Every pass has ``micro_batch`` rows, and the shape of a row depends on its record alone, so that neither neighbours
nor their number change a bit. Knows nothing about clusters, heads or where payloads come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.sufficient_statistics import unit_rms
from lmeraser.models.backbones.base import FINAL, Backbone, chosen_layers

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")
B = TypeVar("B", bound=Backbone)


class ParallelMap(Protocol):
    """Applies a function to items, possibly to several at once; results are in the order of the items."""

    def __call__(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """The result for each item."""
        ...


class MemberInputs(ABC):
    """The inputs of one cluster's members while it is tuned; a member is named by its position.

    Args:
        micro_batch: rows of a pass.
    """

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def micro_batches(self, positions: Sequence[int]) -> list[Sequence[int]]:
        """Positions divided into passes, whose rows have one shape; depends on these members alone."""
        return slices(positions, self.micro_batch)

    @abstractmethod
    def prepare(self, positions: Sequence[int], ids: Sequence[str], epoch: int | None) -> Tensor:
        """The input of one pass on the CPU, as `Backbone.place` takes it.

        Args:
            positions: at most ``micro_batch`` members of one pass.
            ids: of these members.
            epoch: whose random view is taken; None: the clean view, as in predictions.

        Returns:
            [micro_batch, ...]; rows beyond the members are padding.
        """


class InputEncoder(ABC, Generic[Item, B]):
    """Inputs of a backbone from payloads of one modality.

    Args:
        config: all settings.
        backbone: the frozen network.

    Attributes:
        chunk: number of records that are embedded together.
        one_shape: whether the inputs of all passes have one shape, so that a pass can be recorded.
    """

    chunk: int
    one_shape = True

    def __init__(self, config: Config, backbone: B) -> None:
        self.config = config
        self.backbone = backbone
        self.chunk = backbone.micro_batch

    @cached_property
    def _layers(self) -> tuple[str, ...]:
        return chosen_layers(self.backbone, self.config.embedding.layers, self.config.backbone.name)

    @abstractmethod
    def load(self, value: Any) -> Item:
        """The item of a payload, of whatever else callers may give, or of an item."""

    def prepare(self, values: Sequence[Any]) -> Sequence[Any]:
        """Values as `passes` and `load` take them, with what both need done once.

        Images stay as they are: all of them decoded at once would take too much memory.
        """
        return values

    @abstractmethod
    def passes(self, values: Sequence[Any]) -> list[Sequence[int]]:
        """Positions divided into lists of at most ``micro_batch`` whose clean views have one shape.

        Args:
            values: as `load` takes them.
        """

    @abstractmethod
    def input(self, items: Sequence[Item], view: View) -> Tensor:
        """A view of at most ``micro_batch`` items as input of the backbone.

        Args:
            items: of one of `passes`.
            view: which one; one that is a single row for each item.

        Returns:
            [micro_batch, ...]; rows beyond the items are padding.
        """

    def features(
        self, items: Sequence[Item], views: Sequence[View], clean: Tensor | None = None
    ) -> NDArray[np.float32]:
        """Features of views of some items.

        Args:
            items: at most ``chunk``.
            views: which ones, in their order.
            clean: the `input` of the clean view of these items, where it is known.

        Returns:
            float32 [n, views, d].
        """
        return self._vectors(items, views, (), clean)

    def embeddable(
        self, items: Sequence[Item], views: Sequence[View], clean: Tensor | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of views of some items, and the layers that embeddings are made of, from the same passes.

        Args:
            items: at most ``chunk``.
            views: which ones, in their order.
            clean: the `input` of the clean view of these items, where it is known.

        Returns:
            The features, float32 [n, views, d]; and the vectors of ``embedding.layers``, each scaled to root mean
            square 1 where there are several, float32 [n, views, sum of their lengths].
        """
        names = self._layers
        below = tuple(name for name in names if name != FINAL)
        width = self.backbone.feature_dim
        vectors = self._vectors(items, views, below, clean)
        features = np.ascontiguousarray(vectors[..., :width])
        if names == (FINAL,):
            return features, features
        parts = {FINAL: features}
        for name in below:
            parts[name] = vectors[..., width : width + self.backbone.layers[name]]
            width += self.backbone.layers[name]
        return features, np.concatenate([unit_rms(parts[name]) for name in names], axis=-1)

    def _vectors(
        self, items: Sequence[Item], views: Sequence[View], layers: Sequence[str], clean: Tensor | None
    ) -> NDArray[np.float32]:
        """Features of views and vectors of layers, float32 [n, views, d + sum of the layers' lengths]."""
        known = {self.config.clean_view: clean} if clean is not None else {}
        rows: dict[View, NDArray[np.float32]] = {}
        with torch.inference_mode():
            # One pass after the other: all inputs at once would take the memory of all views.
            for view in views:
                if view not in rows:
                    inputs = known[view] if view in known else self.input(items, view)
                    rows[view] = self._pass(inputs, layers, len(items))
        return np.stack([rows[view] for view in views], axis=1)

    def _pass(self, inputs: Tensor, layers: Sequence[str], count: int) -> NDArray[np.float32]:
        """Features and vectors of layers of the first ``count`` rows, float32 [count, d + ...]."""
        vectors = self.backbone.layered(inputs, layers) if layers else self.backbone.features(inputs)
        result: NDArray[np.float32] = vectors[:count].float().cpu().numpy()
        return result

    @abstractmethod
    def noise(self, number: int) -> Tensor:
        """Noise as input of one pass, drawn by the settings' seed and a number."""

    @abstractmethod
    def members(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> MemberInputs:
        """The inputs of these records for tuning.

        Args:
            ids: record ids of the members.
            fetch: gives their payloads.
            budget: bytes of decoded inputs that may be kept in memory.
            parallel: decodes several at once.
        """


def slices(positions: Sequence[int], size: int) -> list[Sequence[int]]:
    """Positions in parts of at most ``size``, in their order."""
    return [positions[first : first + size] for first in range(0, len(positions), size)]

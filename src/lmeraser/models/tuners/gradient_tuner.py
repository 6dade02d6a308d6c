"""Gradient descent on the members' inputs: what all constituents that are tuned through the backbone share.

    minimise over b, h:   mean of CE(h(f_b(x)), y) over the members (x, y)

f_b are features that depend on what is tuned (b: a prompt, tokens, a whole network), h is a linear head. Each step
takes ``batch_size`` records, computes gradients in micro-batches of one fixed shape (padded with weight 0), adds
them up in a fixed order and applies them with torch's SGD or AdamW. The number of epochs is fixed. Order, crops
and mirror images are hashes of the record id, so they don't depend on the other members. On a CPU several threads
compute micro-batches; a GPU has recorded passes in flight while the threads prepare their inputs
(`recorded_passes`). Knows nothing about stores or threads.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.sufficient_statistics import UNIT_RMS_EPSILON
from lmeraser.core.tensors import Array
from lmeraser.data.crops import Corner
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities import input_encoder
from lmeraser.models.modalities.base import MemberInputs, ParallelMap
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners.base import Members, Tuner, ignore_step, serial_map
from lmeraser.models.tuners.class_means import class_means
from lmeraser.models.tuners.optimization import Stepper, batches
from lmeraser.models.tuners.recorded_passes import PassesInFlight

Values = Mapping[str, Tensor]  # the tensors of a constituent, float32, by name

_IN_FLIGHT = 2  # of passes on a GPU: one computes while the other starts and copies


@dataclass(frozen=True)
class MicroBatch:
    """At most ``micro_batch`` members as one pass through the backbone sees them; rows beyond them are padding.

    Attributes:
        inputs: of the backbone, [micro_batch, ...].
        cluster_numbers: cluster of each member, where clusters are tuned together, else 0; int64 [micro_batch].
        shifts: of the corners from `GradientTuner.corners` (see `PromptShape.shifts`), int64.
        clean: whether these are clean views, as in predictions, or those of an epoch.
    """

    inputs: Tensor
    cluster_numbers: Tensor
    shifts: Tensor
    clean: bool


class GradientTuner(Tuner[MemberInputs]):
    """Tunes a linear head and something in the features before it.

    Args:
        backbone: the frozen network.
        config: all settings; those of ``[compute]`` do not change a result.

    Attributes:
        tunes_head: whether the head is tuned as well, or keeps its initial values.
    """

    tunes_head = True

    def __init__(self, backbone: Backbone, config: Config) -> None:
        self.backbone = backbone
        self.config = config
        self._encoder = input_encoder(config, backbone)
        self.in_flight = _IN_FLIGHT if backbone.device.type == "cuda" and self._encoder.one_shape else 0
        self._passes: PassesInFlight | None = None
        self._passes_lock = threading.Lock()

    @abstractmethod
    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """Initial values of everything but the head, on the backbone's device.

        Args:
            cluster_count: number of clusters that are tuned together.
        """

    @abstractmethod
    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of one of `initial_values`."""

    @abstractmethod
    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of a micro-batch, float32 [micro_batch, d], differentiable in the values.

        Reads nothing else that changes, and copies nothing from the CPU, so that it can be recorded.
        """

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """Where the prompt's corner is in the images of a micro-batch; a single one where it is the same for all.

        Args:
            ids: the members.
            epoch: as in `MicroBatch`; None: clean views.
        """
        return [(0, 0)]

    def load(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> MemberInputs:
        """The members' inputs, decoded once if they fit in the budget."""
        return self._encoder.members(ids, fetch, budget=budget, parallel=parallel)

    def tune(
        self,
        members: Members[MemberInputs],
        *,
        classes: int,
        parallel: ParallelMap = serial_map,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = ignore_step,
    ) -> dict[str, Array]:
        """Tune a constituent.

        Returns:
            The tensors by name: those of `initial_values`, ``head.weight`` float32 [classes, d] and ``head.bias``
            float32 [classes].
        """
        inputs = _TrainingInputs(members, self)
        values = self._initialize(members, inputs, classes, parallel) if start is None else self._resume(start)
        stepper = Stepper(self._parameter_groups(values), self.config.tuning, len(members.ids))
        steps = (self._steps_in_flight if self.in_flight else self._steps)(values, inputs, parallel)
        with closing(steps):  # it may hold the recorded passes
            for records, gradients in steps:
                stepper.step(gradients)
                on_step(records)
        return {name: value.detach().cpu().numpy() for name, value in values.items()}

    def initial_head(
        self, member_features: Callable[[], Tensor], labels: Sequence[int], classes: int
    ) -> tuple[Tensor, Tensor]:
        """Initial weight, float32 [classes, d], and bias, float32 [classes], of the head.

        Args:
            member_features: computes the features of all members as the head sees them, float32 [n, d]; takes a
                pass over all images, so it is called only where it is needed.
            labels: class index of each member.
            classes: number of classes.
        """
        if self.config.head.init == "class_means":
            return class_means(member_features(), labels, classes)
        return torch.zeros((classes, self.backbone.feature_dim)), torch.zeros(classes)

    def _initialize(
        self, members: Members[MemberInputs], inputs: _TrainingInputs, classes: int, parallel: ParallelMap
    ) -> dict[str, Tensor]:
        initial = self.initial_values(members.cluster_count)

        def member_features() -> Tensor:
            """Of clean views, as in predictions."""
            parts = inputs.micro_batches(members.ids)
            rows = torch.cat(list(parallel(features, parts)))
            place = {record_id: row for row, record_id in enumerate(chain(*parts))}
            return rows[[place[record_id] for record_id in members.ids]]

        def features(ids: Sequence[str]) -> Tensor:
            with torch.no_grad():
                raw = self.features(initial, self._micro_batch(self._load(inputs, (ids, None, len(ids)))))
                return head_input(raw, self.config)[: len(ids)].cpu()

        weight, bias = self.initial_head(member_features, members.labels, classes)
        head = {"head.weight": weight, "head.bias": bias}
        return self._trainable({**initial, **head})

    def _resume(self, start: Mapping[str, Array]) -> dict[str, Tensor]:
        names = [*self.initial_values(), "head.weight", "head.bias"]
        return self._trainable({name: torch.from_numpy(start[name]) for name in names})

    def _trainable(self, values: Values) -> dict[str, Tensor]:
        """Copies of the values that steps may change in place, on the backbone's device."""
        copies = {
            name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in values.items()
        }
        return {name: value.to(self.backbone.device).requires_grad_(True) for name, value in copies.items()}

    def _parameter_groups(self, values: Values) -> list[dict[str, Any]]:
        """Torch's parameter groups: values with the same rates, in their order."""
        tuning = self.config.tuning
        head = {
            "head.weight": (tuning.head_learning_rate, tuning.head_weight_decay),
            "head.bias": (tuning.head_learning_rate, 0.0),
        }
        rates = {name: head[name] if name in head else self.rates(name) for name in values}
        return [
            {"params": [values[name] for name in names], "lr": rate, "weight_decay": decay}
            for (rate, decay), names in groupby(self._tuned_names(values), key=rates.__getitem__)
        ]

    def _tuned_names(self, values: Values) -> list[str]:
        return [name for name in values if self.tunes_head or not name.startswith("head.")]

    def _steps(
        self, values: Values, inputs: _TrainingInputs, parallel: ParallelMap
    ) -> Generator[tuple[int, list[Tensor]]]:
        """For each step its number of records and its gradients; values change in between.

        Threads compute the micro-batches of a step.
        """
        for epoch, ids in batches(inputs.ids, self.config):

            def gradients(part: Sequence[str], epoch: int = epoch, count: int = len(ids)) -> list[Tensor]:
                return self._gradients(values, self._load(inputs, (part, epoch, count)))

            yield len(ids), _sum(parallel(gradients, inputs.micro_batches(ids)))

    def _steps_in_flight(
        self, values: Values, inputs: _TrainingInputs, parallel: ParallelMap
    ) -> Generator[tuple[int, list[Tensor]]]:
        """The same with recorded passes, while threads prepare the micro-batches of this and the next steps."""
        parts = (
            (part, epoch, len(ids))
            for epoch, ids in batches(inputs.ids, self.config)
            for part in inputs.micro_batches(ids)
        )
        prepared = iter(parallel(inputs.prepare, parts))
        with self._passes_lock:
            self._passes = self._passes or PassesInFlight(self._gradients, self.backbone.device, self.in_flight)
            for _, ids in batches(inputs.ids, self.config):
                own = islice(prepared, len(inputs.micro_batches(ids)))
                yield len(ids), _sum(self._passes.results(values, (partial(self._place, part) for part in own)))

    def _load(self, inputs: _TrainingInputs, part: _Part) -> dict[str, Tensor]:
        return self._place(inputs.prepare(part))

    def _place(self, prepared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A prepared micro-batch on the device, its inputs as the backbone takes them."""
        device = self.backbone.device
        placed = {name: tensor.to(device, non_blocking=True) for name, tensor in prepared.items() if name != "raw"}
        return {**placed, "inputs": self.backbone.place(prepared["raw"])}

    def _micro_batch(self, placed: Mapping[str, Tensor], *, clean: bool = True) -> MicroBatch:
        return MicroBatch(placed["inputs"], placed["cluster_numbers"], placed["shifts"], clean)

    def _gradients(self, values: Values, placed: Mapping[str, Tensor]) -> list[Tensor]:
        """Gradients of one micro-batch's share of the mean cross-entropy over the step.

        Args:
            values: the current values.
            placed: the micro-batch on the device.

        Returns:
            One gradient for each tuned value, in their order.
        """
        own = {name: value.detach() for name, value in values.items()}
        tuned = [own[name].requires_grad_(own[name].numel() > 0) for name in self._tuned_names(values)]
        features = self.features(own, self._micro_batch(placed, clean=False))
        logits = F.linear(head_input(features, self.config), own["head.weight"], own["head.bias"])
        losses = F.cross_entropy(logits, placed["labels"], reduction="none")
        variables = [value for value in tuned if value.requires_grad]
        # A network may have weights that its features do not depend on; their gradients are 0.
        total = (losses * placed["weights"]).sum()
        gradients = iter(torch.autograd.grad(total, variables, materialize_grads=True))
        return [next(gradients) if value.requires_grad else value for value in tuned]


def head_input(features: Tensor, config: Config) -> Tensor:
    """Features, float32 [n, d], as the head sees them: as they are, or each row scaled by `unit_rms`."""
    return features if config.head.normalize == "none" else unit_rms(features)


def unit_rms(features: Tensor) -> Tensor:
    """Rows scaled to root mean square 1, float32 [n, d]: each by itself, never with statistics of a batch.

    `core.sufficient_statistics.unit_rms` is the same for numpy arrays; the two round differently, and both
    roundings are part of models.
    """
    scale = features.square().mean(dim=1, keepdim=True).add(UNIT_RMS_EPSILON).rsqrt()
    return features * scale


class StackedHeads:
    """The linear heads of several clusters, applied to one micro-batch with a head for each image.

    Args:
        constituents: the tensors of each cluster, with ``head.weight`` and ``head.bias``.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], backbone: Backbone, config: Config) -> None:
        self._config = config
        self._weights = stacked(constituents, "head.weight", backbone)
        self._biases = stacked(constituents, "head.bias", backbone)

    def probabilities(self, features: Tensor, index: Tensor, count: int) -> NDArray[np.float32]:
        """Class probabilities, float32 [count, classes], by one head for each image.

        Args:
            features: of one micro-batch, float32 [micro_batch, d].
            index: position of the head for each row, int64 [micro_batch].
            count: number of rows that are images; the others are padding.
        """
        inputs = head_input(features, self._config)
        # A product and a sum for each image by itself: a batched matrix product may depend on the other rows.
        logits = (self._weights[index] * inputs[:, None, :]).sum(dim=2) + self._biases[index]
        probabilities: NDArray[np.float32] = logits.softmax(dim=1)[:count].cpu().numpy()
        return probabilities


def stacked(constituents: Sequence[Mapping[str, Array]], name: str, backbone: Backbone) -> Tensor:
    """One of the tensors of several constituents, [constituents, ...], on the backbone's device."""
    return torch.from_numpy(np.stack([tensors[name] for tensors in constituents])).to(backbone.device)


def padded_index(chosen: NDArray[np.int64], count: int) -> Tensor:
    """Positions for a whole micro-batch, int64 [count]; 0 for the rows of padding."""
    return F.pad(torch.from_numpy(chosen), (0, count - len(chosen)))


_Part = tuple[Sequence[str], int | None, int]  # ids of a micro-batch; its epoch, or clean; records of its step


class _TrainingInputs:
    """The members as each epoch sees them, with what their rows count."""

    def __init__(self, members: Members[MemberInputs], tuner: GradientTuner) -> None:
        self.ids = members.ids
        self._members = members
        self._tuner = tuner
        self._shape = PromptShape.of(tuner.config)
        self._position = {record_id: index for index, record_id in enumerate(members.ids)}

    def micro_batches(self, ids: Sequence[str]) -> list[Sequence[str]]:
        """These members divided into passes."""
        positions = [self._position[record_id] for record_id in ids]
        return [[self.ids[p] for p in part] for part in self._members.inputs.micro_batches(positions)]

    def prepare(self, part: _Part) -> dict[str, Tensor]:
        """At most one micro-batch of members, on the CPU, in memory that a GPU can read.

        Returns:
            ``raw`` as `Backbone.place` takes it; for each row its label, its weight in the mean over the step (0
            for padding) and the number of its cluster; ``shifts`` as in `MicroBatch`.
        """
        ids, epoch, step_size = part
        backbone = self._tuner.backbone
        indices = [self._position[record_id] for record_id in ids]
        numbers = self._members.cluster_numbers
        padding = [0] * (backbone.micro_batch - len(ids))
        prepared = {
            "raw": self._members.inputs.prepare(indices, ids, epoch),
            "labels": torch.tensor([*(self._members.labels[index] for index in indices), *padding]),
            "weights": torch.tensor([*[1.0 / step_size] * len(ids), *[0.0] * len(padding)]),
            "cluster_numbers": torch.tensor([*(numbers[i] if numbers else 0 for i in indices), *padding]),
            "shifts": self._shape.shifts(self._tuner.corners(ids, epoch)),
        }
        if backbone.device.type == "cpu":
            return prepared
        return {name: tensor.pin_memory() for name, tensor in prepared.items()}


def _sum(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """Sums of gradients, in the order of the micro-batches, not the order in which they finished."""
    iterator = iter(parts)
    total = next(iterator)
    for part in iterator:
        total = [one + other for one, other in zip(total, part, strict=True)]
    return total

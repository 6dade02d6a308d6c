"""Tuning one cluster, compared with the paper's code and with a plain PyTorch loop.

    python benchmarks/tuning.py --out bench

The same images, epochs, batch and prompt for all three (`baselines`); each decodes its own images. Also prints the
share of the machine's matrix product rate that tuning a ViT-B/16 reaches: the network's floating-point operations
(forward, and backward to the input; products with weights and attention) over the time, by the best rate of
torch's matrix product and of the packed one in the same run, on the same cores; and the same for the operations
that are done, which omit what the class token does not need.
"""

from __future__ import annotations

import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from baselines import EfficientNetFeatures, TransformerFeatures, Work, plain, reference
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.models.backbones.base import ImageBackbone
from lmeraser.models.backbones.frozen import FrozenLinear
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor
from measuring import compare, keep, parser_of, seconds

CLASSES, BATCH, SIDE = 10, 16, 64


def pictures(count: int) -> list[bytes]:
    """Smooth coloured noise as PNG files."""
    coins = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(coins.integers(256, size=(8, 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "png")
        found.append(buffer.getvalue())
    return found


class Ours:
    """The product's executor on one cluster."""

    def __init__(self, name: str, size: int, micro: int, records: int, epochs: int) -> None:
        self.config = parse(
            {
                "backbone": {"name": name, "image_size": size, "micro_batch": micro},
                "tuning": {"epochs": epochs, "batch_size": BATCH},
            }
        )
        self.executor = LocalExecutor(self.config)
        ids = tuple(f"{number:04d}" for number in range(records))
        self.labels = tuple(number % CLASSES for number in range(records))
        self.images = dict(zip(ids, pictures(records), strict=True))
        self.task = TuneTask(Digest.of(b"benchmark"), ids, self.labels, CLASSES)

    def __call__(self) -> None:
        """Tune the cluster."""
        list(self.executor.tune([self.task], lambda ids: [self.images[i] for i in ids], lambda *_: None))

    def work(self) -> Work:
        """The same work for the others."""
        network = self.executor.network
        assert isinstance(network, ImageBackbone)
        return Work(
            images=list(self.images.values()),
            labels=self.labels,
            classes=CLASSES,
            size=self.config.backbone.image_size,
            canvas=self.config.backbone.canvas_size,
            width=self.config.prompt_width,
            mean=network._mean,
            std=network._std,
            batch=BATCH,
            epochs=self.config.tuning.epochs_run,
        )


def measure(name: str, size: int, micro: int, records: int, epochs: int, pairs: int) -> dict[str, Any]:
    """Both comparisons on one backbone; checks first that the networks are the same."""
    ours = Ours(name, size, micro, records, epochs)
    network = EfficientNetFeatures(size) if name == "efficientnet-lite0" else TransformerFeatures(name)
    probe = torch.randn(
        ours.config.backbone.micro_batch, 3, size, size, generator=torch.Generator().manual_seed(0)
    )
    with torch.inference_mode():
        torch.testing.assert_close(ours.executor.network.features(probe), network(probe), rtol=1e-3, atol=1e-3)
    work = ours.work()
    dimension = network.dimension
    others = {
        "against the reference step": lambda: reference(network, dimension, work),
        "against a plain loop": lambda: plain(network, dimension, work),
    }
    found = compare(ours, others, pairs)
    return {**found, "images per second": records * epochs / found["against a plain loop"].seconds}


def product_rate(cores: int) -> float:
    """The most operations per second of a matrix product of a ViT-B's shapes, on all cores."""
    best = 0.0
    for rows, inner, outer in ((1576, 768, 3072), (1576, 3072, 768), (2048, 2048, 2048)):
        x, weight = torch.randn(rows, inner), torch.randn(outer, inner)
        packed = FrozenLinear(weight, None)
        pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
        with torch.inference_mode(), pool:
            for once in (packed.pass_forward, lambda x, w=weight: torch.nn.functional.linear(x, w)):
                best = max(best, *(_rate(pool, once, x, 2.0 * rows * inner * outer) for _ in range(4)))
    return best


def _rate(pool: ThreadPoolExecutor, once: Any, x: Tensor, operations: float, repeats: int = 8) -> float:
    spent = seconds(lambda: list(pool.map(lambda _: once(x), range(repeats))))
    return operations * repeats / spent


def operations(size: int, *, skipping: bool, patch: int = 16, width: int = 768, layers: int = 12) -> float:
    """Floating-point operations of one image, forward and backward to the input, of a ViT with these sizes.

    ``skipping``: without what its features don't need: of the last layer only keys and values of all tokens.
    """
    tokens = (size // patch) ** 2 + 1
    weights, attention = 12 * width * width * tokens, 2 * tokens * tokens * width
    total = layers * (weights + attention) + (tokens - 1) * 3 * patch * patch * width
    if skipping:
        total -= 10 * width * width * (tokens - 1) + attention * (tokens - 1) // tokens
    return 2 * 2 * total


def random_transformer(folder: str, *, tiny: bool = False) -> str:
    """A ViT-B/16 with random weights, or a tiny ViT for 32 px."""
    from transformers import ViTConfig, ViTModel
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    torch.manual_seed(0)
    small = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = ViTConfig(image_size=32, patch_size=8, **small) if tiny else ViTConfig()
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    cores = torch.get_num_threads()
    rows: dict[str, Any] = {}

    def add(label: str, found: dict[str, Any]) -> None:
        rows.update({f"{label}: {name}": cell for name, cell in found.items()})

    # Half a second long each, so three times as many.
    add("EfficientNet-Lite0, 96 px", measure("efficientnet-lite0", 96, 8, 64, 5, 3 * options.pairs))
    add("EfficientNet-Lite0, 224 px", measure("efficientnet-lite0", 224, 4, 32, 3, options.pairs))
    with tempfile.TemporaryDirectory() as folder:
        add("ViT-B/16, 224 px", measure(random_transformer(folder), 224, 8, 32, 1, options.pairs))
    rate = product_rate(cores)
    each = rows["ViT-B/16, 224 px: images per second"] / rate
    rows["matrix product, GFLOP/s"] = rate / 1e9
    rows["ViT-B/16, 224 px: share of its rate"] = each * operations(224, skipping=False)
    rows["ViT-B/16, 224 px: share of its rate, operations done"] = each * operations(224, skipping=True)
    keep(options, "tuning", rows, batch=BATCH, cores=cores)


if __name__ == "__main__":
    main()

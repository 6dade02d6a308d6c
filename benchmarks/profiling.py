"""Profile of a tuning step by operation, on one core.

    python benchmarks/profiling.py

One micro-batch forward and backward to the prompt, after enough steps that memory is warm.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from lmeraser.config.schema import parse
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities import Backbone, load_backbone
from tuning import random_transformer

WORDS = {  # operations by the beginning of their name
    "mkldnn::_convolution": "convolutions, forward and backward",
    "mkldnn::_linear": "matrix products, forward and backward",
    "aten::convolution_backward": "convolutions with stride 2, backward",
    "aten::hardtanh_backward": "masks of clamped values",
    "aten::gelu": "GELU and its gradient",
    "aten::_scaled_dot": "attention, forward and backward",
    "aten::native_layer_norm": "layer norms",
    "aten::add": "sums",
}


def shares(backbone: Backbone, steps: int) -> dict[str, float]:
    """Share of the time of a step by kind of operation."""
    images = backbone.probe(seed=0)
    prompt = torch.zeros_like(images[:1]).requires_grad_(True)

    def step() -> None:
        features = backbone.features(images, prompt)
        torch.autograd.grad(features.square().sum(), prompt)

    with deterministic():
        for _ in range(steps):
            step()
        with profile(activities=[ProfilerActivity.CPU]) as found:
            for _ in range(steps):
                step()
    times: Counter[str] = Counter()
    for event in found.key_averages():
        word = next((word for start, word in WORDS.items() if event.key.startswith(start)), "the rest")
        times[word] += event.self_cpu_time_total
    return {word: spent / times.total() for word, spent in times.most_common()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, size, micro in (
            ("efficientnet-lite0", 96, 8),
            ("efficientnet-lite0", 224, 4),
            (random_transformer(folder), 224, 2),
        ):
            settings = {"name": name, "image_size": size, "micro_batch": micro}
            label = "ViT-B/16" if name == folder else name
            print(f"\n{label}, {size} px, micro-batches of {micro}")
            for word, share in shares(load_backbone(parse({"backbone": settings})), options.steps).items():
                print(f"  {word:45}{share:6.1%}")


if __name__ == "__main__":
    main()
